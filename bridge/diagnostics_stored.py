"""What the store says for a bundle of `diagnostics`, as plain data; bounded, so that a large one is not read whole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from statistics import median
from types import TracebackType
from typing import Any, cast

import redis

from bridge.broker import quick_client, store_client
from bridge.embedded import EmbeddedRedisError
from bridge.models import SETTLED, Delivery, DeliveryState, ReportKey, report_key
from bridge.printing import moment
from bridge.runtime import Runtime, redis_url, undisturbed
from bridge.settings import Settings
from bridge.web.metrics import exposition
from bridge.web.status import status

KEYS_LOOKED_AT = 20_000
DELIVERIES_TIMED = 2_000
DELIVERIES_READ = 5_000
AGENTS_NAMED = 500
REASONS_SHOWN = 40
HISTORIES_SHOWN = 20
REPORTS_SHOWN = 50

#: Of what `INFO` says.
_REDIS_FIELDS = """
    redis_version valkey_version server_name redis_mode role uptime_in_seconds connected_clients
    blocked_clients used_memory_human used_memory_peak_human used_memory_rss_human maxmemory_human
    maxmemory_policy mem_fragmentation_ratio loading aof_enabled aof_rewrite_in_progress
    aof_last_write_status aof_last_bgrewrite_status aof_current_size aof_base_size rdb_last_save_time
    rdb_last_bgsave_status latest_fork_usec total_commands_processed instantaneous_ops_per_sec
    rejected_connections evicted_keys expired_keys connected_slaves master_link_status
    total_error_replies
"""


class Stored:
    """What the store knows. Use as a context manager; `problem` says why it cannot be read, '' when it can."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.problem = ""
        self._stack = ExitStack()
        self._client: redis.Redis | None = None
        self._runtime: Runtime | None = None

    def __enter__(self) -> Stored:
        try:
            quiet = self._stack.enter_context(undisturbed(self.settings))
            url, _ = self._stack.enter_context(redis_url(quiet))
            quick = quick_client(url)
            self._stack.callback(quick.close)
            quick.ping()
            self._client = store_client(url)
            self._stack.callback(self._client.close)
            self._runtime = self._stack.enter_context(Runtime(quiet, keep_out=True))
        except (redis.RedisError, EmbeddedRedisError) as error:
            self.problem = f"Redis does not answer, so nothing that it stores is here: {error}"
        except Exception as error:  # such as an organizations file that is broken: Redis itself can be looked at
            self.problem = f"the store could not be opened: {type(error).__name__}: {error}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def runtime(self) -> Runtime:
        assert self._runtime is not None  # noqa: S101 - `files` offers what needs it only when it is there
        return self._runtime

    def files(self, *, with_reports: bool) -> Iterator[tuple[str, Callable[[], object]]]:
        """The files that can be made, by name."""
        client = self._client
        if client is not None:
            yield "redis.json", lambda: server(client, self.settings.redis.namespace)
        if self._runtime is None:
            return
        yield "status.json", self.status
        yield "processes.json", self.processes
        yield "timings.json", self.timings
        yield "metrics.txt", lambda: exposition(self.runtime).decode()
        yield "errors.json", self.errors
        yield "histories.json", self.histories
        yield "quarantine.json", self.quarantine
        if with_reports:
            yield "reports.json", self.reports

    def names(self) -> Iterator[tuple[str, str]]:
        """Names of customers, each with what may stand in its place."""
        if self._runtime is None:
            return
        account = self.runtime.account()
        if account is not None:
            yield account.name, f"account {account.id}"
            yield account.subdomain, f"account-{account.id}"
        for organization in self.runtime.books.organizations().values():
            yield organization.name, f"organization {organization.id}"
        unsettled = self._unsettled(DELIVERIES_READ)
        for delivery in unsettled:
            yield delivery.subject, f"the subject of report {delivery.report_id}"
        agents = dict.fromkeys(each.agent_id for each in unsettled if each.agent_id is not None)
        for agent_id in islice(agents, AGENTS_NAMED):
            agent = self.runtime.books.agent(agent_id)
            if agent is not None:
                yield agent.hostname, f"agent {agent.id}"

    def status(self) -> dict[str, Any]:
        found = status(self.runtime)
        found.pop("quarantine", None)  # has a file of its own
        return found

    def processes(self) -> list[dict[str, Any]]:
        now = self.runtime.store.now()
        return [
            asdict(beat) | {"at": moment(beat.at), "seconds_ago": round(now - beat.at, 1)}
            for beat in self.runtime.books.heartbeats()
        ]

    def timings(self) -> dict[str, Any]:
        poll = self.runtime.books.poll()
        taken: dict[str, list[float]] = {}
        pairs = list(islice(self.runtime.store.every_delivery(), DELIVERIES_TIMED))
        for delivery in self.runtime.store.read_deliveries(pairs):
            if delivery.recorded_at is not None and delivery.created_at is not None:
                taken.setdefault(delivery.connector, []).append(delivery.recorded_at - delivery.created_at)
        return {
            "poll_cycle_seconds": poll.cycle_seconds,
            "poll_expected_cycle_seconds": poll.expected_cycle_seconds,
            "redis_ping_milliseconds": [round(each, 2) for each in self._pings()],
            "seconds_from_seen_to_ticket": {
                connector: {
                    "newest_deliveries": len(seconds),
                    "median": round(median(seconds), 2),
                    "95th_percentile": round(sorted(seconds)[int(0.95 * (len(seconds) - 1))], 2),
                    "longest": round(max(seconds), 2),
                }
                for connector, seconds in sorted(taken.items())
            },
        }

    def _pings(self) -> Iterator[float]:
        for _ in range(5):
            started = time.perf_counter()
            self.runtime.store.client.ping()
            yield (time.perf_counter() - started) * 1000

    def _unsettled(self, most: int) -> list[Delivery]:
        """The deliveries that wait, were refused or are held, with what their reports say; the newest change first."""
        store = self.runtime.store
        states = [state for state in DeliveryState if state not in SETTLED]
        members = []
        for state in states:
            found = cast("list[str]", store.client.zrevrange(store.key(f"state:{state}"), 0, most - 1))
            members += [tuple(member.split("|", 1)) for member in found]
        pairs: list[tuple[ReportKey, str]] = [(report_key(report), connector) for report, connector in members[:most]]
        return store.read_deliveries(pairs)

    def errors(self) -> list[dict[str, Any]]:
        unsettled = self._unsettled(DELIVERIES_READ)
        counts = Counter((each.connector, str(each.state), each.reason) for each in unsettled)
        shown = []
        for (connector, state, reason), count in counts.most_common(REASONS_SHOWN):
            same = [
                each
                for each in unsettled
                if (each.connector, str(each.state), each.reason) == (connector, state, reason)
            ]
            shown.append(
                {
                    "connector": connector,
                    "state": state,
                    "reason": reason or self.runtime.why_waiting(connector),
                    "deliveries": count,
                    "most_attempts": max(each.attempts for each in same),
                    "last_change": moment(max(each.updated_at for each in same)),
                    "reports": [each.report_id for each in same[:5]],
                }
            )
        return shown

    def histories(self) -> list[dict[str, Any]]:
        store = self.runtime.store
        return [
            {
                "report_id": each.report_id,
                "organization_id": each.organization_id,
                "connector": each.connector,
                "state": str(each.state),
                "events": [asdict(event) for event in store.history(each.report_id, each.connector)],
            }
            for each in self._unsettled(HISTORIES_SHOWN)
        ]

    def quarantine(self) -> list[dict[str, Any]]:
        return [
            {"report_id": entry.report_id, "reason": entry.reason, "seen_at": moment(entry.seen_at)}
            for entry in self.runtime.books.quarantined()
        ]

    def reports(self) -> dict[str, Any]:
        waiting = dict.fromkeys(each.report_id for each in self._unsettled(REPORTS_SHOWN))
        store = self.runtime.store
        return {
            "waiting": {
                str(report_id): cast("str | None", store.client.hget(store.key(f"report:{report_id}"), "snapshot"))
                for report_id in waiting
            },
            "quarantined": [entry.raw for entry in self.runtime.books.quarantined()[:REPORTS_SHOWN]],
        }


def server(client: redis.Redis, namespace: str) -> dict[str, Any]:
    """The server's own figures, and how many keys of each kind there are, as far as they were looked at."""
    info = client.info()
    prefix = f"{namespace}:"
    kinds: Counter[str] = Counter()
    looked_at = cursor = 0
    while True:
        cursor, keys = cast("tuple[int, list[str]]", client.scan(cursor, count=1000))
        looked_at += len(keys)
        for key in keys:
            kinds[key[len(prefix) :].split(":", 1)[0] if key.startswith(prefix) else "of somebody else"] += 1
        if cursor == 0 or looked_at >= KEYS_LOOKED_AT:
            break
    return {
        "server": {name: value for name, value in info.items() if name in _REDIS_FIELDS.split()},
        "keys": client.dbsize(),
        "keys_looked_at": looked_at,
        "keys_by_kind": dict(kinds.most_common()),
    }
