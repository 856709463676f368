"""Does everything in the store agree? Indexes against records, records against themselves; and mends what does not.

It walks in small batches beside a running system. What it tells was so in one moment, by one script: nothing that
merely moved meanwhile is a finding. A repair is that same script; it loses no delivery, and has those that may have
been sent looked up.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar, cast

from bridge.history import What
from bridge.idempotency import SCRIPT_BATCH, IdempotencyStore, stored_report
from bridge.models import IncidentReport, ReportKey, report_key, severity_rank
from bridge.store_findings import Finding

T = TypeVar("T")

#: Names after the prefix, and what Redis calls their type; a name that ends in `:` stands for all that begin so.
LAYOUT = {
    **dict.fromkeys(("meta", "counters", "poll", "organizations", "organizations:fresh", "quarantine"), "hash"),
    **dict.fromkeys(("streams", "configuration_problems", "heartbeats"), "hash"),
    **dict.fromkeys(("report:", "delivery:", "progress:", "notice_progress:", "pause:", "proof:", "notice:"), "hash"),
    **dict.fromkeys(("day:", "comments:", "forgetting"), "hash"),
    **dict.fromkeys(("open", "missing", "changed", "listed", "budget", "budget:"), "zset"),
    **dict.fromkeys(("due:", "ready:", "waiting:", "slots:", "state:"), "zset"),
    **dict.fromkeys(("notices",), "set"),
    **dict.fromkeys(("history:", "wake", "patterns"), "list"),
    **dict.fromkeys(("webhook:", "webhook_taken", "fence:", "leader:", "counted:", "agent:", "suspect:"), "string"),
    **dict.fromkeys(("poll:wanted", "organizations:", "budget:rest", "notices:turn"), "string"),
    "page:": "",  # its own room's business (`bridge.web.sessions`)
}
#: Keys that one SCAN looks at.
SCANNED = 500

#: What identifies a report's first ticket in a connector's system; None: that cannot be told.
Reference = Callable[[IncidentReport, str], str | None]


def kind_of(name: str) -> str | None:
    """The entry of `LAYOUT` that a key belongs to, by its name after the prefix; None: nobody knows it."""
    if name in LAYOUT and not name.endswith(":"):
        return name
    fitting = [kind for kind in LAYOUT if kind.endswith(":") and name.startswith(kind)]
    return max(fitting, key=len, default=None)


class StoreCheck:
    """One walk over one store. `repair`: also mends. `reference` is needed to mend what has lost its own.

    `moves` is called for every batch with how many keys it had. Raises `redis.RedisError` when Redis is away.
    """

    def __init__(
        self,
        store: IdempotencyStore,
        *,
        repair: bool = False,
        reference: Reference = lambda report, connector: None,
        moves: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.store = store
        self.client = store.client
        self.repair = repair
        self.reference = reference
        self.moves = moves
        self._unknown: Counter[str] = Counter()
        self._indexes: set[str] = set()

    def keys(self) -> int:
        """About how many keys there are to walk over."""
        return int(self.client.dbsize())

    def findings(self) -> Iterator[Finding]:
        """What is wrong, as the walk comes to it; each once, though a walk meets some from several sides."""
        told: set[Finding] = set()
        for finding in self._walk():
            if finding not in told:
                told.add(finding)
                yield finding

    def _walk(self) -> Iterator[Finding]:
        wrong_type = False
        for names in self._scan():
            found = list(self._types(names))
            wrong_type = wrong_type or bool(found)
            yield from found
        for name, count in sorted(self._unknown.items()):
            yield Finding("unknown_key", key=name, more=f"{count} of them" if count > 1 else "")
        if wrong_type:
            return  # scripts would fail at it
        for names in self._scan():
            yield from self._of_keys(names)
        for name in sorted(self._indexes):
            for members in self._members(name):
                yield from self._of_members(name, members)

    # -- keys ----------------------------------------------------------------------------------------------------------

    def _scan(self) -> Iterator[list[str]]:
        prefix = self.store.prefix
        pattern = re.sub(r"([*?\[\]\\^-])", r"\\\1", prefix) + "*"
        cursor = 0
        while True:
            cursor, keys = cast("tuple[int, list[str]]", self.client.scan(cursor, match=pattern, count=SCANNED))
            self.moves(len(keys))
            if keys:
                yield [key.removeprefix(prefix) for key in keys]
            if cursor == 0:
                return

    def _types(self, names: list[str]) -> Iterator[Finding]:
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            pipeline.type(self.store.key(name))
        for name, found in zip(names, pipeline.execute(), strict=True):
            kind = kind_of(name)
            if kind is None:
                self._unknown[re.sub(r":.*", ":…", name)] += 1
            elif found != "none" and LAYOUT[kind] not in ("", found):
                yield Finding("wrong_type", key=name, more=f"{found} instead of {LAYOUT[kind]}")

    def _of_keys(self, names: list[str]) -> Iterator[Finding]:
        pairs: dict[tuple[str, str], None] = {}
        reports: list[str] = []
        for name in names:
            kind, _, rest = name.partition(":")
            if kind in ("delivery", "history", "progress"):
                report, _, connector = rest.partition(":")
                pairs[report, connector] = None
            elif kind == "report":
                reports.append(rest)
            elif kind == "proof":
                yield from self._proof(rest)
            elif kind == "notice":
                yield from self._entries("notice", name, [rest])
            elif kind in ("due", "ready", "waiting", "state", "slots", "open", "missing") or name == "notices":
                self._indexes.add(name)
        yield from self._deliveries(pairs)
        yield from self._reports(reports)

    # -- what is checked -----------------------------------------------------------------------------------------------

    def _deliveries(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Finding]:
        for batch in _batches(pairs):
            yield from self._checked(batch)

    def _checked(self, batch: tuple[tuple[str, str], ...]) -> Iterator[Finding]:
        for place, code, mended in self._ask("check_deliveries", json.dumps(batch), self._mend):
            report, connector = batch[place]
            if not self.repair or code not in ("lost", "no_reference"):
                yield Finding(code, _named(report), connector, f"delivery:{report}:{connector}", bool(mended))
                continue
            problem = self._rebuild(report, connector)
            yield Finding(code, _named(report), connector, f"delivery:{report}:{connector}", not problem, problem)
            if not problem:
                yield from self._checked((batch[place],))

    def _reports(self, reports: Iterable[str]) -> Iterator[Finding]:
        for batch in _batches(reports):
            pipeline = self.client.pipeline(transaction=False)
            for report in batch:
                pipeline.hmget(self.store.key(f"report:{report}"), ["snapshot", "digest"])
            asked = [
                (report, digest if snapshot and digest and stored_report(snapshot) is None else "")
                for report, (snapshot, digest) in zip(batch, pipeline.execute(), strict=True)
            ]
            for place, code, mended in self._ask("check_reports", json.dumps(asked), self._mend):
                yield Finding(code, _named(batch[place]), key=f"report:{batch[place]}", mended=bool(mended))

    def _proof(self, connector: str) -> Iterator[Finding]:
        if code := self.store.script("check_proof", connector, self._mend):
            yield Finding(code, key=f"proof:{connector}", mended=self.repair)

    def _members(self, name: str) -> Iterator[list[str]]:
        """An index's entries, in batches."""
        cursor = 0
        while True:
            key = self.store.key(name)
            if name == "notices":
                cursor, members = cast("tuple[int, list[str]]", self.client.sscan(key, cursor, count=SCANNED))
            else:
                cursor, scored = cast(
                    "tuple[int, list[tuple[str, float]]]", self.client.zscan(key, cursor, count=SCANNED)
                )
                members = [member for member, _ in scored]
            yield members
            if cursor == 0:
                return

    def _of_members(self, name: str, members: list[str]) -> Iterator[Finding]:
        kind, _, rest = name.partition(":")
        if kind in ("slots", "notices"):
            yield from self._entries(kind, name, members)
            return
        strange: list[str] = []
        pairs: list[tuple[str, str]] = []
        for member in members:
            report, connector = (member, rest) if kind != "state" else member.partition("|")[::2]
            if _named(report) is None or (not connector and kind not in ("open", "missing")):
                strange.append(member)
            else:
                pairs.append((report, connector))
        yield from self._entries(kind, name, strange)
        if kind in ("open", "missing"):
            yield from self._reports(report for report, _ in pairs)
            return
        # What has a record was checked with it.
        pipeline = self.client.pipeline(transaction=False)
        for report, connector in pairs:
            pipeline.exists(self.store.key(f"delivery:{report}:{connector}"))
        there = pipeline.execute()
        yield from self._deliveries(pair for pair, exists in zip(pairs, there, strict=True) if not exists)

    def _entries(self, kind: str, name: str, entries: list[str]) -> Iterator[Finding]:
        if not entries:
            return
        for place, code, mended in self._ask("check_members", kind, name, json.dumps(entries), self._mend):
            yield Finding(code, key=name, mended=bool(mended), more=repr(entries[place]))

    # -- mending -------------------------------------------------------------------------------------------------------

    @property
    def _mend(self) -> int:
        return 1 if self.repair else 0

    def _ask(self, script: str, *arguments: object) -> list[tuple[int, str, int]]:
        return [(place, code, mended) for place, code, mended in json.loads(self.store.script(script, *arguments))]

    def _rebuild(self, report: str, connector: str) -> str:
        """Writes anew what is known of a delivery. Returns why that could not be done, '' when it is."""
        key = _named(report)
        stored = self.store.report(key) if key is not None else None
        if key is None or stored is None:
            return "not mended: the store has nothing of its report; once Huntress lists that, repair again"
        again = [event.text for event in self.store.history(key, connector) if event.what == What.CONTINUED]
        reference = again[-1] if again else self.reference(stored, connector)
        if not reference:
            return f"not mended: {connector} is not configured"
        since = round(stored.since.timestamp() * 1000) if stored.since else 0
        organization = "" if stored.organization_id is None else stored.organization_id
        order = round(severity_rank(stored.severity) * 1e13 + since)
        self.store.script("check_rebuild", key, connector, reference, organization, stored.severity, order)
        return ""


def _batches(things: Iterable[T]) -> Iterator[tuple[T, ...]]:
    left = iter(things)
    while batch := tuple(islice(left, SCRIPT_BATCH)):
        yield batch


def _named(report: str) -> ReportKey | None:
    try:
        return report_key(report)
    except ValueError:
        return None
