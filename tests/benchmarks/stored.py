"""Fills a store with deliveries whose reports are long over, each in the exact form of one that the scripts made."""

from __future__ import annotations

import time
from dataclasses import replace

from bridge.idempotency import Claim, IdempotencyStore
from bridge.models import DeliveryState, IncidentReport, TicketRef
from bridge.news import facts

CONNECTOR = "psa"
#: The first report's id; ids are as long as the source's.
FIRST = 2_000_000
#: Days ago that they ended: their snapshots are forgotten, they themselves are not.
AGO = 100
DAY = 86400.0
URL = (
    "https://na.myconnectwise.net/v4_6_release/services/system_io/router/openrecord.rails?locale=en_US"
    "&companyName=examplemsp&recordType=ServiceFv&recid={}"
)

# ARGV: first and last number, id of the report to copy, its ticket's id, score of the state. What differs from one to
# the other is as long as in the original.
COPY = """
local P, model, score = KEYS[1], ARGV[3], tonumber(ARGV[5]) - tonumber(ARGV[3])
local function text(number) return string.format('%.0f', number) end
local flat = redis.call('HGETALL', P .. 'delivery:' .. model .. ':psa')
local events = redis.call('LRANGE', P .. 'history:' .. model .. ':psa', 0, -1)
for number = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local report, ticket = text(number), text(tonumber(ARGV[4]) + number - tonumber(model))
  local fields, happened = {}, {}
  for i, value in ipairs(flat) do
    fields[i] = (value == ARGV[4] and ticket) or value
  end
  for i, event in ipairs(events) do happened[i] = string.gsub(event, ' ' .. ARGV[4] .. '$', ' ' .. ticket) end
  redis.call('HSET', P .. 'delivery:' .. report .. ':psa', unpack(fields))
  redis.call('RPUSH', P .. 'history:' .. report .. ':psa', unpack(happened))
  redis.call('ZADD', P .. 'state:closed', text(score + number), report .. '|psa')
end
"""
TICKET = 7_000_000


def lead(store: IdempotencyStore) -> int:
    """The number of whoever leads the polling, so that nobody is deposed; else of this process."""
    return int(store.script("lead", "poller", store.client.get(store.key("leader:poller")) or "fill", 6000))


def make_one(store: IdempotencyStore, number: int) -> None:
    """A report comes, has its ticket, changes, ends, and its snapshot is forgotten: all of it `AGO` days ago."""
    offset = store.clock_offset
    store.clock_offset = -AGO * DAY
    leader = lead(store)
    opened = IncidentReport(
        number, account_id=51234, organization_id=123456, severity="high", subject="HIGH - an incident on host WS-0042"
    )

    def seen(report: IncidentReport) -> Claim:
        store.observe(leader, [(report, [(CONNECTOR, f"huntress-51234-{number}")])])
        claim = store.claim(number, CONNECTOR, group="fill", concurrency=10, settle=60)
        if not isinstance(claim, Claim):
            raise SystemExit(f"not claimed: {claim}")
        return claim

    claim = seen(opened)
    if not store.begin_create(claim, proof=False).open:
        raise SystemExit("not let through")
    ticket = str(TICKET + number - FIRST)
    made = TicketRef(ticket, ticket, URL.format(ticket), "559")
    store.record(claim, made, told=1, facts=facts(opened))
    closed = replace(opened, status="closed")
    claim = seen(closed)
    store.plan(claim, "{}" * 200, sending=True)
    store.tell(claim, told=2, facts=facts(closed), state=DeliveryState.CLOSED, ended=True, statuses=["562"])
    store.release(claim)
    store.clock_offset = offset
    forget(store)


def forget(store: IdempotencyStore) -> None:
    """One whole round with the default settings."""
    store.client.delete(store.key("forgetting"))
    while True:
        answer = store.answer("forget", lead(store), 50, round(30 * DAY * 1000), round(400 * DAY * 1000), 1000)
        if not answer[3]:
            return


def fill(store: IdempotencyStore, count: int) -> None:
    """Brings the store to `count` deliveries of `CONNECTOR` that are at rest, and looks at some of them."""
    known = store.count(DeliveryState.CLOSED)
    if not known:
        make_one(store, FIRST)
        known = 1
    key = store.key(f"delivery:{FIRST}:{CONNECTOR}")
    if store.client.exists(store.key(f"report:{FIRST}")) or not store.client.hexists(key, "moments"):
        raise SystemExit("the delivery to copy is not at rest")
    score = round((time.time() - AGO * DAY) * 1000)
    copy = store.client.register_script(COPY)
    for start in range(FIRST + known, FIRST + count, 5000):
        last = min(start + 5000, FIRST + count) - 1
        copy(keys=[store.prefix], args=[start, last, FIRST, TICKET, score])
    for number in (FIRST, FIRST + count // 2, FIRST + count - 1):
        ticket = str(TICKET + number - FIRST)
        [delivery] = store.read_deliveries([(number, CONNECTOR)])
        expected = (DeliveryState.CLOSED, f"huntress-51234-{number}", TicketRef(ticket, ticket, URL.format(ticket)))
        if (delivery.state, delivery.reference, delivery.ticket) != expected:
            raise SystemExit(f"a copied delivery reads wrongly: {delivery}")
    if store.count(DeliveryState.CLOSED) != count:
        raise SystemExit(f"{store.count(DeliveryState.CLOSED)} deliveries are stored, not {count}")
