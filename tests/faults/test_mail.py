"""Mail servers that ask to come back, hang up, forget to answer or refuse a recipient, under load.

E-mail cannot be asked what it received, so a mail whose answer was lost is sent again (`on_unknown = "resend"`) or held
for a person (`"hold"`). Only such a mail may come twice, and only where the operator chose so.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from bridge.demo.mailbox import MailFaultKind, PretendMailbox
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.faults.figures import Figures
from tests.faults.judge import Load, connectors, wait_until_quiet
from tests.psa import reference

FIRST, SECOND, UNKNOWN = "first@example.com", "second@example.com", "unknown@example.com"
#: What is certain: the mail was not taken.
NOT_TAKEN: tuple[MailFaultKind, ...] = (
    "reject_connect_421",
    "auth_wait",
    "reject_mail_451",
    "reject_rcpt_450",
    "shut_down_421",
    "reject_data_451",
    "greylist",
    "drop_connect",
    "drop_before_data",
    "hang",
    "hang_rcpt",
)
#: What leaves the sender in doubt. Only the first recipient meets it, so that a person can decide for each mail alone.
IN_DOUBT: tuple[MailFaultKind, ...] = (
    "drop_before_dot",
    "drop_after_dot",
    "lose_after_dot",
    "garbage_after_dot",
    "hang_after_dot",
)
#: Seconds that a mail may take.
TIMEOUT = 4


@dataclass(frozen=True)
class Form:
    """Rounds through all faults, how often each happens in a round, and for how many seconds a server greylists."""

    rounds: int
    times: int
    greylisted: float


LONG, SHORT = Form(6, 4, 6.0), Form(1, 1, 3.0)
PER_SECOND = 4.0
#: Seconds of the longest back-off, and of what comes after it.
LONGEST_WAIT = 400.0

MakeWorld = Callable[..., World]
MakeBridge = Callable[..., Bridge]
Report = Callable[[Figures], None]


class Mails:
    """What a mailbox took, by reference and recipient."""

    def __init__(self, mailbox: PretendMailbox, *recipients: str) -> None:
        self.mailbox = mailbox
        self.recipients = recipients

    def received(self, *, answered: bool | None = None) -> Counter[tuple[str, str]]:
        """All mails, or only those whose sender was told that they were taken, or was not."""
        return Counter(
            (str(mail.message["Message-ID"]).strip("<>").partition("@")[0], mail.recipient)
            for mail in list(self.mailbox.messages)
            if answered in (None, mail.answered)
        )

    def missing(self, numbers: Collection[int]) -> list[tuple[str, str]]:
        received = self.received()
        wanted = [(reference(number), recipient) for number in numbers for recipient in self.recipients]
        return [mail for mail in wanted if mail not in received]

    def doubled(self) -> int:
        return sum(times - 1 for times in self.received().values())

    def excepted(self) -> int:
        """Mails that came again after one whose answer was lost."""
        unanswered = self.received(answered=False)
        return sum(min(times - 1, unanswered[mail]) for mail, times in self.received().items())


def go_wrong_in_turn(mailbox: PretendMailbox, form: Form, dice: random.Random) -> int:
    """Lets the server misbehave in every way, one after the other. Returns how often it did."""
    happened = 0
    for _ in range(form.rounds):
        for kind in dice.sample(NOT_TAKEN + IN_DOUBT, len(NOT_TAKEN + IN_DOUBT)):
            grey = kind == "greylist"
            fault = mailbox.fault(
                kind, None if grey else form.times, FIRST if kind in IN_DOUBT else "", form.greylisted
            )
            until = time.monotonic() + form.greylisted
            while time.monotonic() < until and (grey or fault.times):
                time.sleep(0.05)
            mailbox.faults.clear()
            happened += len(fault.asked) if grey else form.times - (fault.times or 0)
    return happened


def decide(bridge: Bridge, mails: Mails) -> tuple[int, int]:
    """What a person does with held deliveries: looks for the mail, and retries what is not there. (held, retried)."""
    held = [row["report_id"] for row in wait_until_quiet(bridge, LONGEST_WAIT) if row["state"] == "held"]
    lost = [number for number in held if mails.missing([number])]
    for number in lost:
        assert bridge("retry", str(number), "--connector", "oncall").returncode == 0
    return len(held), len(lost)


def in_doubt(world: World, bridge: Bridge, on_unknown: str, form: Form) -> Figures:
    """Every fault in turn, over two recipients."""
    mails = Mails(world.mailbox, FIRST, SECOND)
    process = bridge.start("run")
    wait_until(lambda: '"ready"' in bridge.log(), 60, "it is ready")
    with Load(world, PER_SECOND, seed=1) as load:
        faults = go_wrong_in_turn(world.mailbox, form, random.Random(2))
    over = time.monotonic()
    held, retried = decide(bridge, mails)
    numbers = range(1, load.next)
    while mails.missing(numbers) and time.monotonic() < over + LONGEST_WAIT:
        time.sleep(0.1)
    settled = time.monotonic() - over
    wait_until_quiet(bridge)
    assert bridge.stop(process) == 0
    assert "Traceback" not in bridge.log()
    return Figures(
        f"4 mail server: 4xx, losses before and after the final dot, greylisting; `{on_unknown}`",
        reports=len(numbers),
        faults=faults,
        lost=len(mails.missing(numbers)),
        doubled=mails.doubled(),
        settled=settled,
        remarks=(
            f"{mails.received(answered=False).total()} answers lost after the mail was kept; "
            f"{held} deliveries held for a person, who sent {retried} again"
        ),
        excepted=mails.excepted() if on_unknown == "resend" else 0,
    )


def refused(world: World, bridge: Bridge, form: Form) -> Figures:
    """One recipient of three is refused, while the server greylists the others."""
    mails = Mails(world.mailbox, FIRST, SECOND)
    world.mailbox.fault("reject_rcpt_550", None, UNKNOWN)
    process = bridge.start("run")
    wait_until(lambda: '"ready"' in bridge.log(), 60, "it is ready")
    with Load(world, PER_SECOND, seed=3) as load:
        for _ in range(form.rounds):
            time.sleep(2)
            grey = world.mailbox.fault("greylist", None, SECOND, form.greylisted)
            time.sleep(form.greylisted)
            world.mailbox.faults.remove(grey)
    over = time.monotonic()
    numbers = range(1, load.next)
    rows = wait_until_quiet(bridge, LONGEST_WAIT)
    settled = time.monotonic() - over
    lost = mails.missing(numbers)
    for row in rows:
        assert row["state"] == "rejected"
        assert UNKNOWN in row["reason"]
        assert "550" in row["reason"]
        assert FIRST not in row["reason"]
        assert SECOND not in row["reason"]
    faults = Counter(world.mailbox.asked)[UNKNOWN]
    world.mailbox.faults.clear()
    assert bridge("retry", "--connector", "oncall", "--state", "rejected").returncode == 0
    everybody = Mails(world.mailbox, FIRST, SECOND, UNKNOWN)
    wait_until(lambda: not everybody.missing(numbers), 60, "the recipient is there now and has all mails")
    wait_until_quiet(bridge)
    assert bridge.stop(process) == 0
    return Figures(
        "4 mail server: a refused recipient among accepted ones",
        reports=len(numbers),
        faults=faults,
        lost=len(lost),
        doubled=everybody.doubled(),
        settled=settled,
        remarks="every delivery names the refused recipient; its mails came after `retry`, the others got none again",
    )


@pytest.mark.timeout(3600)
def test_a_mail_server_that_fails(
    make_world: MakeWorld, make_bridge: MakeBridge, long: bool, report_figures: Report
) -> None:
    form = LONG if long else SHORT

    def make(on_unknown: str, *recipients: str) -> tuple[World, Bridge]:
        world = make_world()
        world.mailbox.users = {"bridge": "secret-of-the-bridge"}
        settings = {"timeout": TIMEOUT, "on_unknown": on_unknown, "recipients": list(recipients)}
        return world, make_bridge(world, connectors=connectors(world, "oncall", **settings))

    resend, hold, one_refused = (
        make("resend", FIRST, SECOND),
        make("hold", FIRST, SECOND),
        make("hold", FIRST, UNKNOWN, SECOND),
    )
    with ThreadPoolExecutor(3) as pool:
        rows = [
            pool.submit(in_doubt, *resend, "resend", form),
            pool.submit(in_doubt, *hold, "hold", form),
            pool.submit(refused, *one_refused, form),
        ]
    for row in rows:
        report_figures(row.result())
