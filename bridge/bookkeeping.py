"""What the processes know in common beside deliveries: organizations, agents, quarantine, the last poll, who lives."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import redis
from pydantic import TypeAdapter

from bridge.idempotency import IdempotencyStore
from bridge.models import Agent, Kind, Organization, ReportKey

#: Seconds that an agent's details are kept.
AGENT_KEPT = 3600
#: Most quarantined reports that are kept; the oldest go first.
QUARANTINE_KEPT = 500
#: Longest part of an unparsable report that is kept, in characters.
QUARANTINE_RAW = 20_000
#: Seconds after which a process' sign of life is dropped altogether.
HEARTBEAT_KEPT = 600
#: A poll counts as overdue after the longer of this many seconds and three expected cycles.
OVERDUE = 600.0

_ORGANIZATION = TypeAdapter(Organization)
_AGENT = TypeAdapter(Agent)


@dataclass(frozen=True, slots=True)
class PollState:
    """How the poller is doing. Times are seconds since the epoch, durations seconds; None: not yet."""

    first_started_at: float | None = None
    last_complete_at: float | None = None
    #: How long the last complete cycle took.
    cycle_seconds: float | None = None
    #: How long a cycle takes with this many organizations and this budget.
    expected_cycle_seconds: float | None = None
    dialect: str = ""
    scope: str = ""
    error: str = ""
    #: When the monitor last took the heartbeat, and why it did not take the newest.
    heartbeat_at: float | None = None
    heartbeat_problem: str = ""


def overdue_after(poll: PollState) -> float:
    """Seconds after which a complete poll should have happened."""
    return max(OVERDUE, 3 * (poll.expected_cycle_seconds or 0.0), 3 * (poll.cycle_seconds or 0.0))


@dataclass(frozen=True, slots=True)
class StreamState:
    """How the listing of one further stream is doing, as `PollState`. `problem` is empty after a complete one."""

    last_complete_at: float | None = None
    problem: str = ""
    problem_since: float | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """The organizations as they were when somebody last took note of them."""

    #: Seconds since the epoch.
    at: float
    organizations: Mapping[int, Organization]


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A report that cannot be parsed."""

    key: str
    report_id: ReportKey | None
    reason: str
    raw: str
    seen_at: float


_STREAM = TypeAdapter(StreamState)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A process' last sign of life. `problem` is empty while it does its work."""

    role: str
    host: str
    pid: int
    at: float
    problem: str


_BASELINE = TypeAdapter(Baseline)


class Bookkeeping:
    """Small records beside the deliveries, in the same Redis."""

    def __init__(self, store: IdempotencyStore) -> None:
        self.store = store
        self.client = store.client

    # -- organizations and agents --------------------------------------------------------------------------------------

    def save_organizations(self, organizations: Iterable[Organization]) -> None:
        """The whole list as the source gives it; what is no longer in it goes."""
        key, fresh = self.store.key("organizations"), self.store.key("organizations:fresh")
        pipeline = self.client.pipeline()
        pipeline.delete(fresh)
        known = set[int]()
        for organization in organizations:
            pipeline.hset(fresh, str(organization.id), _ORGANIZATION.dump_json(organization).decode())
            known.add(organization.id)
        if known:
            pipeline.rename(fresh, key)
        else:
            pipeline.delete(key)
        pipeline.execute()
        if unknown := self.listed_at().keys() - known:
            self.client.zrem(self.store.key("listed"), *map(str, unknown))
        self.client.set(self.store.key("organizations:at"), f"{self.store.now():.3f}")

    def save_organization(self, organization: Organization) -> None:
        self.client.hset(
            self.store.key("organizations"), str(organization.id), _ORGANIZATION.dump_json(organization).decode()
        )

    def organizations(self) -> dict[int, Organization]:
        stored = cast("dict[str, str]", self.client.hgetall(self.store.key("organizations")))
        return {int(key): _ORGANIZATION.validate_json(value) for key, value in stored.items()}

    def organization_ids(self) -> set[int]:
        return set(map(int, cast("list[str]", self.client.hkeys(self.store.key("organizations")))))

    def organization(self, organization_id: int) -> Organization | None:
        stored = cast("str | None", self.client.hget(self.store.key("organizations"), str(organization_id)))
        return _ORGANIZATION.validate_json(stored) if stored else None

    def organizations_at(self) -> float | None:
        """When the list was last read whole."""
        stored = cast("str | None", self.client.get(self.store.key("organizations:at")))
        return float(stored) if stored else None

    def baseline(self, whose: Literal["diff", "sync"]) -> Baseline | None:
        """What the command `organizations diff`, or the scheduled sync, compares with; None: nothing yet."""
        stored = cast("str | None", self.client.get(self.store.key(f"organizations:baseline:{whose}")))
        return _BASELINE.validate_json(stored) if stored else None

    def save_baseline(self, whose: Literal["diff", "sync"], organizations: Mapping[int, Organization]) -> None:
        baseline = _BASELINE.dump_json(Baseline(self.store.now(), organizations)).decode()
        self.client.set(self.store.key(f"organizations:baseline:{whose}"), baseline)

    def sync_tried_at(self) -> float | None:
        """When the scheduled sync of the organizations last began."""
        stored = cast("str | None", self.client.get(self.store.key("organizations:sync:at")))
        return float(stored) if stored else None

    def sync_tried(self) -> None:
        """The scheduled sync begins, now."""
        self.client.set(self.store.key("organizations:sync:under_way"), "1")
        self.client.set(self.store.key("organizations:sync:at"), f"{self.store.now():.3f}")

    def sync_ended(self) -> None:
        self.client.delete(self.store.key("organizations:sync:under_way"))

    def sync_under_way(self) -> bool:
        """Did the scheduled sync not come to an end since it last began?"""
        return bool(self.client.exists(self.store.key("organizations:sync:under_way")))

    def save_agent(self, agent: Agent) -> None:
        self.client.set(self.store.key(f"agent:{agent.id}"), _AGENT.dump_json(agent).decode(), ex=AGENT_KEPT)

    def agent(self, agent_id: int) -> Agent | None:
        stored = cast("str | None", self.client.get(self.store.key(f"agent:{agent_id}")))
        return _AGENT.validate_json(stored) if stored else None

    # -- listing per organization --------------------------------------------------------------------------------------

    def listed(self, organization_ids: Collection[int]) -> None:
        """These organizations' open reports were listed completely, now."""
        if organization_ids:
            self.client.zadd(self.store.key("listed"), dict.fromkeys(map(str, organization_ids), self.store.now()))

    def listed_at(self) -> dict[int, float]:
        """When each organization was last listed completely."""
        pairs = cast("list[tuple[str, float]]", self.client.zrange(self.store.key("listed"), 0, -1, withscores=True))
        return {int(member): score for member, score in pairs}

    # -- quarantine ----------------------------------------------------------------------------------------------------

    def quarantine(self, key: str, report_id: ReportKey | None, reason: str, raw: str) -> bool:
        """Keeps a report that cannot be parsed. True when it is new or its reason changed."""
        name = self.store.key("quarantine")
        known = cast("str | None", self.client.hget(name, key))
        if known is not None and json.loads(known)["reason"] == reason:
            return False
        if known is None and self.client.hlen(name) >= QUARANTINE_KEPT:
            oldest = min(self.quarantined(), key=lambda entry: entry.seen_at)
            self.client.hdel(name, oldest.key)
        entry = {"report_id": report_id, "reason": reason, "raw": raw[:QUARANTINE_RAW], "seen_at": self.store.now()}
        self.client.hset(name, key, json.dumps(entry))
        return True

    def quarantined_count(self) -> int:
        return self.client.hlen(self.store.key("quarantine"))

    def quarantined(self) -> list[Quarantined]:
        stored = cast("dict[str, str]", self.client.hgetall(self.store.key("quarantine")))
        return sorted(
            (Quarantined(key=key, **json.loads(value)) for key, value in stored.items()),
            key=lambda entry: entry.seen_at,
        )

    # -- the poller's state --------------------------------------------------------------------------------------------

    def save_poll(self, **changes: str | float | None) -> None:
        """Writes fields of `PollState`."""
        self._save_poll(self.client, changes)

    def poll_completed(self, at: float, seconds: float, quarantined: Iterable[str]) -> None:
        """A poll was complete: its start, its length. What it did not quarantine was mended, or is no longer open."""
        name, pipeline = self.store.key("quarantine"), self.client.pipeline(transaction=False)
        pipeline.hkeys(name)
        self._save_poll(pipeline, {"last_complete_at": at, "cycle_seconds": seconds, "error": ""})
        kept, _ = pipeline.execute()
        if gone := set(kept) - set(quarantined):
            self.client.hdel(name, *gone)

    def _save_poll(self, client: redis.Redis, changes: Mapping[str, str | float | None]) -> None:
        client.hset(
            self.store.key("poll"),
            mapping={name: "" if value is None else str(value) for name, value in changes.items()},
        )

    def poll_started(self) -> None:
        self.client.hsetnx(self.store.key("poll"), "first_started_at", str(self.store.now()))

    def poll(self) -> PollState:
        stored = cast("dict[str, str]", self.client.hgetall(self.store.key("poll")))

        def seconds(name: str) -> float | None:
            return float(stored[name]) if stored.get(name) else None

        return PollState(
            first_started_at=seconds("first_started_at"),
            last_complete_at=seconds("last_complete_at"),
            cycle_seconds=seconds("cycle_seconds"),
            expected_cycle_seconds=seconds("expected_cycle_seconds"),
            dialect=stored.get("dialect", ""),
            scope=stored.get("scope", ""),
            error=stored.get("error", ""),
            heartbeat_at=seconds("heartbeat_at"),
            heartbeat_problem=stored.get("heartbeat_problem", ""),
        )

    def save_stream(self, kind: Kind, problem: str = "") -> None:
        """A further stream was listed, now; `problem` says why not, or not to its end."""
        now, before = self.store.now(), self.stream(kind)
        state = StreamState(before.last_complete_at if problem else now)
        if problem:
            state = replace(state, problem=problem, problem_since=before.problem_since or now)
        self.client.hset(self.store.key("streams"), kind.value, _STREAM.dump_json(state).decode())

    def stream(self, kind: Kind) -> StreamState:
        stored = cast("str | None", self.client.hget(self.store.key("streams"), kind.value))
        return _STREAM.validate_json(stored) if stored else StreamState()

    def save_configuration_problem(self, problem: str) -> None:
        """Why the last change of the configuration was refused; '' when it was taken."""
        if problem:
            self.client.hset(self.store.key("configuration_problems"), socket.gethostname(), problem)
        else:
            self.client.hdel(self.store.key("configuration_problems"), socket.gethostname())

    def configuration_problems(self) -> dict[str, str]:
        """Refused changes of the configuration, by host."""
        return cast("dict[str, str]", self.client.hgetall(self.store.key("configuration_problems")))

    # -- who is alive --------------------------------------------------------------------------------------------------

    def beat(self, role: str, problem: str = "") -> None:
        """This process says that it does its work as `role`, or why it does not."""
        self.beat_all({role: problem})

    def beat_all(self, problems: Mapping[str, str]) -> None:
        """`beat` for several roles at once: for each, why this process does not do its work ('' while it does)."""
        beats = [text for role, problem in problems.items() for text in (_beating(role), problem)]
        self.store.script("beat", HEARTBEAT_KEPT * 1000, *beats)

    def leave(self, role: str) -> None:
        """A clean stop: this process is not expected to beat any more."""
        self.client.hdel(self.store.key("heartbeats"), _beating(role))

    def heartbeats(self, role: str = "", host: str = "") -> list[Heartbeat]:
        """The last signs of life, of all roles and hosts unless told otherwise."""
        found = []
        for name, entry in cast("dict[str, str]", self.client.hgetall(self.store.key("heartbeats"))).items():
            its_role, its_host, pid = name.split(":", 2)
            if role in ("", its_role) and host in ("", its_host):
                found.append(Heartbeat(its_role, its_host, int(pid), **json.loads(entry)))
        return sorted(found, key=lambda beat: (beat.role, beat.host, beat.pid))


def _beating(role: str) -> str:
    return f"{role}:{socket.gethostname()}:{os.getpid()}"
