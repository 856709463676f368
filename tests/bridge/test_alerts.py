"""Notices to a person: real Redis, real mail to pretend mailboxes, and time that is passed on the store's clock."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.bookkeeping import OVERDUE
from bridge.causes import GATHER, NAMED, PAUSED_FOR, Cause
from bridge.check import advice
from bridge.demo.mailbox import PretendMailbox
from bridge.models import Account, Delivery, DeliveryState, Notice, TicketRef
from bridge.notice_text import NoticeText
from bridge.notices import AGAIN_AFTER, OVER_FOR, Claim, NoticeBook
from bridge.probe import PAUSE
from bridge.processes import Process
from bridge.watcher import CLAIM_MARGIN, FIRST_WAIT, LONGEST_WAIT, Watcher
from bridge.web.status import status
from connectors.base import ConnectorContext, Rejected, Unavailable
from connectors.email import Email, EmailSettings
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.conftest import RedisServer
from tests.end_to_end.inside import inside
from tests.psa import reference

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture
def backup() -> Iterator[PretendMailbox]:
    with PretendMailbox() as mailbox:
        yield mailbox


@pytest.fixture
def make(redis_url: str, tmp_path: Path, systems: Systems, backup: PretendMailbox) -> Iterator[MakeStage]:
    """Starts a process whose notices go over the connectors named."""
    with contextlib.ExitStack() as stack:

        def make(*alerts: str, url: str = redis_url, **tables: Any) -> Stage:
            connectors = {
                "psa": systems.table("psa"),
                "oncall": systems.mailbox.settings(timeout=2),
                "backup": backup.settings(timeout=2, sender="other@example.com"),
            }
            tables = {"alerts": {"connectors": list(alerts or ("oncall",))}} | tables
            stage = stack.enter_context(Stage(url, tmp_path, systems, connectors, **tables))
            stage.runtime.books.poll_started()
            polled(stage)
            return stage

        yield make


def polled(stage: Stage) -> None:
    """A poll was complete just now."""
    stage.runtime.books.save_poll(last_complete_at=stage.store.now(), error="")


class Watch:
    """The watcher of one process. Every look comes after a complete poll, unless `polling` is turned off."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.polling = True
        runtime = stage.runtime
        self.watcher = Watcher(
            stage.store, runtime.books, lambda: runtime.services, lambda: runtime.settings, runtime.account
        )

    def look(self, seconds: float = 0) -> None:
        """Lets time pass, then looks."""
        self.stage.store.clock_offset += seconds
        if self.polling:
            polled(self.stage)
        self.watcher.look()

    def wait(self, seconds: float) -> None:
        """As `look`, every ten seconds."""
        while seconds > 0:
            self.look(min(10.0, seconds))
            seconds -= 10

    def problems(self) -> dict[str, str]:
        """What nobody could be told of, and why."""
        return {each.cause: each.problem for each in self.watcher.notices.outstanding() if each.problem}


def end(
    stage: Stage, *numbers: int, connector: str = "psa", state: DeliveryState = DeliveryState.REJECTED, why: str = "no"
) -> None:
    """These reports' deliveries end in `state`."""
    stage.report(*numbers, connectors=[connector])
    for number in numbers:
        claim = stage.claim(number, connector)
        assert not isinstance(claim, str), claim
        assert stage.store.release(claim, state=state, reason=why, kind=str(state))


def deliver(stage: Stage, number: int, connector: str = "psa") -> None:
    """A person retried the delivery, and now there is a ticket."""
    assert stage.store.retry(number, connector)
    claim = stage.claim(number, connector)
    assert not isinstance(claim, str), claim
    stage.store.record(claim, TicketRef(str(number)))


def mails(mailbox: PretendMailbox) -> list[EmailMessage]:
    return [mail.message for mail in mailbox.messages]


def subjects(mailbox: PretendMailbox) -> list[str]:
    return [str(mail["Subject"]).removeprefix("[huntress-bridge] ") for mail in mails(mailbox)]


def body(mail: EmailMessage) -> str:
    return str(mail.get_content())


# One notice for each cause, and one when it is over


def test_a_refused_delivery_is_told_once_and_once_more_when_it_is_over(make: MakeStage, systems: Systems) -> None:
    stage = make()
    watch = Watch(stage)
    end(stage, 7, why="board is closed\n{{ 7*7 }}")
    watch.look()
    assert mails(systems.mailbox) == [], "others may follow at once"
    watch.look(GATHER)
    (mail,) = mails(systems.mailbox)
    assert mail["Subject"] == "[huntress-bridge] 1 delivery to psa rejected"
    assert mail["To"] == "oncall@example.com"
    for part in (reference(7), "organization 1", "> board is closed {{ 7*7 }}", "huntress-bridge retry REPORT"):
        assert part in body(mail)
    watch.wait(600)
    deliver(stage, 7)
    watch.look(10)
    watch.look(OVER_FOR - 5)
    assert len(systems.mailbox.messages) == 1, "not over for long enough"
    watch.look(10)
    assert subjects(systems.mailbox)[1:] == ["over: no delivery to psa is rejected any more"]
    over = mails(systems.mailbox)[1]
    assert over["In-Reply-To"] == mail["Message-ID"] != over["Message-ID"]
    watch.wait(600)
    assert len(systems.mailbox.messages) == 2
    assert watch.watcher.notices.outstanding() == []


def test_what_is_retried_in_vain_is_neither_over_nor_news(make: MakeStage, systems: Systems) -> None:
    stage = make()
    watch = Watch(stage)
    end(stage, 7)
    watch.wait(100)
    assert stage.store.retry(7, "psa") == "rejected"
    watch.look(10)
    claim = stage.claim(7, "psa")
    assert not isinstance(claim, str)
    stage.store.release(claim, state=DeliveryState.REJECTED, reason="no", kind="rejected")
    watch.wait(600)
    assert stage.store.retry(7, "psa") == "rejected"
    watch.wait(OVER_FOR - 10)
    assert len(systems.mailbox.messages) == 1, "the time before it came back does not count"


def test_three_hundred_refusals_are_one_notice_and_those_after_it_another(make: MakeStage, systems: Systems) -> None:
    stage = make()
    watch = Watch(stage)
    end(stage, *range(1, 301))
    watch.look(GATHER)
    end(stage, *range(301, 306))
    watch.wait(AGAIN_AFTER - 100)
    (mail,) = mails(systems.mailbox)
    assert subjects(systems.mailbox) == ["300 deliveries to psa rejected"]
    assert [line for line in body(mail).splitlines() if line.startswith("* Report")] == [
        f"* Report {number}, organization 1, reference {reference(number)}:" for number in range(1, NAMED + 1)
    ]
    assert f"* {300 - NAMED} more: huntress-bridge deliveries --state rejected" in body(mail)
    watch.wait(200)
    assert subjects(systems.mailbox)[1:] == ["305 deliveries to psa rejected"]
    again = mails(systems.mailbox)[1]
    assert again["In-Reply-To"] == mail["Message-ID"] != again["Message-ID"]
    watch.wait(2 * AGAIN_AFTER)
    assert len(systems.mailbox.messages) == 2


def test_kinds_and_connectors_are_told_apart(make: MakeStage, systems: Systems, backup: PretendMailbox) -> None:
    stage = make("oncall", "backup")
    watch = Watch(stage)
    end(stage, 1)
    end(stage, 2, state=DeliveryState.HELD, why="three workers ended over it")
    end(stage, 3, connector="oncall", state=DeliveryState.HELD)
    watch.wait(60)
    assert sorted(subjects(systems.mailbox)) == ["1 delivery to psa held", "1 delivery to psa rejected"]
    assert subjects(backup) == ["1 delivery to oncall held"], "a notice about one goes over the other"


@pytest.mark.parametrize("kind", ["rate", "misconfigured", "unfindable"])
def test_a_long_pause_is_told_whatever_its_reason(make: MakeStage, systems: Systems, kind: str) -> None:
    stage = make()
    watch = Watch(stage)
    stage.store.pause("psa", kind, PAUSE, "board: there is no board Security", probe_in=60 if kind != "rate" else 0)
    watch.wait(PAUSED_FOR - 10)
    assert mails(systems.mailbox) == []
    watch.wait(20)
    (mail,) = mails(systems.mailbox)
    assert mail["Subject"] == "[huntress-bridge] connector psa is paused for 15 minutes"
    assert "> board: there is no board Security" in body(mail)
    stage.store.probe_failed("psa", "still none", longest=900, pause=PAUSE)
    watch.wait(1800)
    assert len(mails(systems.mailbox)) == 1
    stage.store.resume("psa")
    watch.wait(OVER_FOR + 20)
    assert subjects(systems.mailbox)[1:] == ["over: connector psa is served again"]


def test_rests_one_upon_another_are_one_pause_unless_something_is_delivered(make: MakeStage, systems: Systems) -> None:
    stage = make()
    watch = Watch(stage)
    end(stage, 1)
    watch.look(GATHER)
    for _ in range(15):  # each a little longer than its rest
        stage.store.pause("psa", "rate", 55, "asks to be left alone")
        watch.wait(60)
    deliver(stage, 1)
    assert subjects(systems.mailbox)[1:] == [], "not for 15 min"
    for _ in range(14):
        stage.store.pause("psa", "rate", 55, "asks to be left alone")
        watch.wait(60)
    assert [subject for subject in subjects(systems.mailbox) if "paused" in subject] == []
    for _ in range(3):
        stage.store.pause("psa", "rate", 55, "asks to be left alone")
        watch.wait(60)
    stage.store.pause("psa", "misconfigured", PAUSE, "no board", probe_in=60)
    watch.wait(60)
    assert len([subject for subject in subjects(systems.mailbox) if "paused" in subject]) == 1


def test_missing_polls_are_told_without_a_poller(make: MakeStage, systems: Systems) -> None:
    stage = make()
    watch = Watch(stage)
    watch.look()
    watch.polling = False
    stage.runtime.books.save_poll(error="Huntress answered 500")
    watch.wait(OVERDUE - 10)
    assert mails(systems.mailbox) == []
    watch.wait(20)
    (mail,) = mails(systems.mailbox)
    assert mail["Subject"] == "[huntress-bridge] no complete poll of Huntress for 10 minutes"
    assert "> Huntress answered 500" in body(mail)
    watch.wait(3600)
    watch.polling = True
    watch.wait(OVER_FOR + 20)
    assert subjects(systems.mailbox)[1:] == ["over: polls of Huntress are complete again"]


def test_slow_cycles_have_three_of_their_own_length(make: MakeStage, systems: Systems) -> None:
    stage = make()
    watch = Watch(stage)
    stage.runtime.books.save_poll(expected_cycle_seconds=1000.0)
    watch.look()
    watch.polling = False
    watch.wait(2980)
    assert mails(systems.mailbox) == []
    watch.wait(40)
    assert len(mails(systems.mailbox)) == 1


def test_a_bridge_that_was_stopped_for_a_day_gets_the_time_for_a_poll(make: MakeStage, systems: Systems) -> None:
    stage = make()
    stage.store.clock_offset += 86400
    watch = Watch(stage)
    watch.polling = False
    watch.wait(OVERDUE / 3 - 10)
    assert mails(systems.mailbox) == []
    watch.wait(20)
    assert len(mails(systems.mailbox)) == 1


def test_a_poller_that_never_ran_is_missed_too(make: MakeStage, systems: Systems) -> None:
    stage = make()
    stage.store.client.delete(stage.store.key("poll"))
    watch = Watch(stage)
    watch.polling = False
    watch.wait(OVERDUE - 10)
    assert mails(systems.mailbox) == []
    watch.wait(20)
    (mail,) = mails(systems.mailbox)
    assert "perhaps no poller runs" in body(mail)


def test_a_connector_that_is_configured_no_more_needs_nobody(make: MakeStage, systems: Systems) -> None:
    stage = make()
    watch = Watch(stage)
    end(stage, 1, connector="backup")
    watch.look(GATHER)
    assert stage.runtime.assembly.services
    services = dict(stage.runtime.services)
    del services["backup"]
    watch.watcher.services = lambda: services
    watch.wait(OVER_FOR + 20)
    assert subjects(systems.mailbox) == [
        "1 delivery to backup rejected",
        "over: connector backup is no longer configured",
    ]


# Whoever sends it


def test_a_restart_tells_nothing_twice_and_still_says_when_it_is_over(make: MakeStage, systems: Systems) -> None:
    first = make()
    end(first, 7)
    Watch(first).look(GATHER)
    second = make()
    second.store.clock_offset = first.store.clock_offset
    watch = Watch(second)
    watch.wait(100)
    assert len(mails(systems.mailbox)) == 1
    deliver(second, 7)
    watch.wait(OVER_FOR + 20)
    assert len(mails(systems.mailbox)) == 2


def test_processes_that_look_at_the_same_time_send_one_notice(make: MakeStage, systems: Systems) -> None:
    stages = [make() for _ in range(4)]
    end(stages[0], 7)
    end(stages[0], 8, state=DeliveryState.HELD)
    systems.mailbox.latency = 0.2  # so that all of them find it untold
    barrier = threading.Barrier(len(stages))

    def look(stage: Stage) -> None:
        stage.store.clock_offset = GATHER
        watch = Watch(stage)
        barrier.wait()
        watch.look()

    threads = [threading.Thread(target=look, args=(stage,)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(subjects(systems.mailbox)) == ["1 delivery to psa held", "1 delivery to psa rejected"]


def test_what_a_killed_process_was_about_to_send_another_one_sends(make: MakeStage, systems: Systems) -> None:
    stage = make()
    end(stage, 7)
    stage.store.clock_offset += GATHER
    now = stage.store.now()
    claim = NoticeBook(stage.store).claim("rejected:psa", over=False, since=now, newest=now, lease=2 + CLAIM_MARGIN)
    assert isinstance(claim, Claim)
    watch = Watch(stage)
    watch.wait(CLAIM_MARGIN)
    assert mails(systems.mailbox) == []
    watch.wait(10)
    assert len(mails(systems.mailbox)) == 1
    NoticeBook(stage.store).failed(claim, "the dead one wakes up", 0)
    assert watch.problems() == {}
    watch.wait(100)
    assert len(mails(systems.mailbox)) == 1


@pytest.mark.parametrize("role", ["poller", "worker", "web"])
def test_every_process_that_lives_long_watches(make: MakeStage, role: str) -> None:
    runtime = make(web={"port": 1}).runtime
    runtime.stopping.set()  # every part ends at once
    process = Process(runtime, [role])
    process.start()
    try:
        assert "watcher" in [thread.name for thread in process._threads]
    finally:
        process.stop()


class Steps(threading.Event):
    """Instead of waiting, takes the next step; set once there is none left."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__()
        self.steps = list(steps)

    def wait(self, timeout: float | None = None) -> bool:
        if not self.steps:
            self.set()
            return True
        self.steps.pop(0)()
        return False


def test_an_outage_of_redis_ends_no_watch_and_the_poller_gets_its_time_afterwards(
    make: MakeStage, make_redis_server: Callable[..., RedisServer], systems: Systems
) -> None:
    server = make_redis_server("--appendonly", "yes")
    stage = make(url=server.url)
    watcher = Watch(stage).watcher

    def pass_time(seconds: float) -> None:
        stage.store.clock_offset += seconds
        stage.store.client.delete(stage.store.key("notices:turn"))

    def come_back() -> None:
        server.start()
        pass_time(OVERDUE + 10)

    steps = [lambda: pass_time(0), server.stop, come_back, lambda: pass_time(OVERDUE / 3 - 10)]
    watcher.run(Steps(*steps))
    assert mails(systems.mailbox) == []
    watcher.run(Steps(lambda: pass_time(20)))
    assert subjects(systems.mailbox) == ["no complete poll of Huntress for 13 minutes"]


def test_a_look_is_one_process_turn(make: MakeStage) -> None:
    one, other = Watch(make()).watcher, Watch(make()).watcher
    assert one._turn()
    assert not other._turn()
    left = one.store.client.pttl(one.store.key("notices:turn"))
    assert 0 < left < 10_000


# Over which connector


def test_a_notice_that_fails_goes_over_the_next_connector(
    make: MakeStage, systems: Systems, backup: PretendMailbox
) -> None:
    stage = make("oncall", "backup")
    watch = Watch(stage)
    systems.mailbox.fault("reject_rcpt_550", times=None)
    end(stage, 7)
    watch.look(GATHER)
    assert mails(backup) == []
    watch.look(10)
    assert subjects(backup) == ["1 delivery to psa rejected"]
    watch.wait(100)
    assert len(mails(backup)) == 1
    assert watch.problems() == {}


def test_a_notice_that_nobody_takes_is_tried_less_and_less_often_and_shown(make: MakeStage, systems: Systems) -> None:
    stage = make()
    watch = Watch(stage)
    systems.mailbox.fault("reject_rcpt_550", times=None)
    end(stage, 7)
    with capture_logs() as logs:
        watch.look(GATHER)
        waits: list[float] = []
        last = stage.store.now()
        tried = len(systems.mailbox.asked)
        while len(waits) < 7:
            watch.look(10)
            if len(systems.mailbox.asked) > tried:
                waits.append(stage.store.now() - last)
                tried, last = len(systems.mailbox.asked), stage.store.now()
    assert (
        [wait // 10 * 10 for wait in waits]  # to the ten seconds of a look: the clock runs on while it looks
        == [30, 60, 120, 240, 480, 900, 900]
        == [min(FIRST_WAIT * 2**n, LONGEST_WAIT) for n in range(7)]
    )
    assert [entry["cause"] for entry in logs if entry["log_level"] == "error"] == ["rejected:psa"], "said once"
    answer = status(stage.runtime)
    assert not answer["ok"]
    assert answer["alerts"]["notices"][0]["told_at"] is None
    assert answer["problems"][-1].startswith("nobody could be told of rejected:psa: oncall: ")
    systems.mailbox.faults.clear()
    watch.wait(LONGEST_WAIT)
    assert len(mails(systems.mailbox)) == 1
    answer = status(stage.runtime)
    assert not [problem for problem in answer["problems"] if problem.startswith("nobody")]
    assert answer["alerts"]["notices"][0]["told_at"] is not None


def test_what_nobody_was_told_of_is_not_said_to_be_over(make: MakeStage, systems: Systems) -> None:
    stage = make()
    watch = Watch(stage)
    systems.mailbox.fault("reject_rcpt_550", times=None)
    end(stage, 7)
    watch.look(GATHER)
    systems.mailbox.faults.clear()
    deliver(stage, 7)
    watch.wait(300)
    assert mails(systems.mailbox) == []
    assert watch.watcher.notices.outstanding() == []


def test_a_connector_alone_tells_of_its_own_deliveries_but_not_of_its_pause(make: MakeStage, systems: Systems) -> None:
    stage = make("oncall")
    watch = Watch(stage)
    end(stage, 7, connector="oncall")
    watch.look(GATHER)
    assert subjects(systems.mailbox) == ["1 delivery to oncall rejected"]
    stage.store.pause("oncall", "misconfigured", PAUSE, "password", probe_in=60)
    watch.wait(PAUSED_FOR + 20)
    assert len(mails(systems.mailbox)) == 1
    assert list(watch.problems()) == ["paused:oncall"]
    stage.store.resume("oncall")
    watch.wait(100)
    assert len(mails(systems.mailbox)) == 1, "nobody was told, so nobody needs to hear that it is over"
    assert watch.problems() == {}


def test_a_paused_connector_is_passed_over(make: MakeStage, systems: Systems, backup: PretendMailbox) -> None:
    stage = make("oncall", "backup")
    watch = Watch(stage)
    stage.store.pause("oncall", "misconfigured", PAUSE, "password", probe_in=60)
    end(stage, 7)
    watch.look(GATHER)
    assert subjects(backup) == ["1 delivery to psa rejected"]
    watch.wait(PAUSED_FOR)
    assert subjects(backup)[1:] == ["connector oncall is paused for 15 minutes"]
    assert mails(systems.mailbox) == []


def test_without_connectors_nobody_is_told_and_nothing_is_kept(make: MakeStage) -> None:
    stage = make(alerts={})
    watch = Watch(stage)
    end(stage, 7)
    watch.wait(100)
    assert not watch.watcher._turn()
    assert stage.store.client.keys(stage.store.key("notice*")) == []


def test_check_warns_of_a_single_carrier_without_a_finding(make: MakeStage) -> None:
    assert len(list(advice(make("oncall").runtime.settings))) == 1
    assert list(advice(make("oncall", "backup").runtime.settings)) == []
    stage = make("oncall")
    result = inside("check", config=stage.config)
    assert (result.exit_code, result.stdout) == (0, "nothing wrong, 1 warning\n")
    assert result.stderr.startswith("warning: alerts.connectors: oncall alone carries notices")


# What it says


def claimed(cause: str, *, over: bool = False, number: int = 0) -> Claim:
    return Claim(cause, over, "", since=1_700_000_000.0, failures=0, problem="", number=number)


def delivery(number: int, reason: str) -> Delivery:
    return Delivery(
        number, "psa", DeliveryState.REJECTED, 12, f"huntress-5-{number}", None, 1, reason, None, 1_700_000_000.0
    )


CASES: Mapping[str, Cause | None] = {
    "rejected": Cause(
        "rejected", "psa", 0, count=7, deliveries=(delivery(7, "board is closed"), delivery(8, "a\nb ![x](y) \x1b[31m"))
    ),
    "held": Cause("held", "psa", 0, count=1, deliveries=(delivery(7, "three workers ended over it"),)),
    "paused": Cause("paused", "psa", 0, reason="board: there is none\nBridge: forged", next_probe=1_700_001_500.0),
    "unpolled": Cause("unpolled", "", 0, reason="Huntress answered 500"),
    "over": None,
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "bridge-1")
    cause = CASES[name]
    notice = NoticeText("Europe/Berlin", []).write(
        claimed(cause.name if cause else "rejected:psa", over=cause is None),
        cause,
        account=Account(5, "Account"),
        gone=False,
        now=1_700_001_000.0,
    )
    assert notice.text.startswith(f"{notice.subject}\n")
    golden = GOLDEN / f"notice-{name}.txt"
    assert notice.text == golden.read_text("utf-8")


def test_a_secret_in_a_reason_is_masked(make: MakeStage, systems: Systems) -> None:
    stage = make()
    secret = stage.runtime.settings.huntress.api_secret.get_secret_value()
    end(stage, 7, why=f"no such key: {secret}")
    Watch(stage).look(GATHER)
    (mail,) = mails(systems.mailbox)
    assert "> no such key: ***" in body(mail)
    assert secret not in body(mail)


def test_a_long_reason_is_cut(make: MakeStage, systems: Systems) -> None:
    stage = make()
    end(stage, 7, why="very " * 5000)
    Watch(stage).look(GATHER)
    (mail,) = mails(systems.mailbox)
    assert len(body(mail)) < 2000


def test_a_broken_template_keeps_nobody_in_the_dark(monkeypatch: pytest.MonkeyPatch) -> None:
    text = NoticeText("UTC", [])
    monkeypatch.setattr(text._environment, "loader", None)
    with capture_logs():
        notice = text.write(claimed("paused:psa"), CASES["paused"], account=None, gone=False, now=1_700_001_000.0)
    assert notice.subject == "[huntress-bridge] paused:psa"
    assert "huntress-bridge check --online" in notice.text


# E-mail


class Memory:
    """`Progress` that forgets nothing."""

    def __init__(self) -> None:
        self.saved: dict[str, str] = {}

    def get(self) -> Mapping[str, str]:
        return self.saved

    def save(self, key: str, value: str) -> None:
        self.saved[key] = value


def mail_connector(mailbox: PretendMailbox, **settings: Any) -> Email:
    table = mailbox.settings(recipients=["one@example.com", "two@example.com"], timeout=2, **settings)
    return Email("oncall", EmailSettings.model_validate(table), ConnectorContext())


NOTICE = Notice("huntress-5-notice-1-0-rejected-a_b", "subject", "text")


def test_a_notice_by_mail_goes_to_each_recipient_once(backup: PretendMailbox) -> None:
    email, progress = mail_connector(backup), Memory()
    backup.fault("reject_rcpt_450", recipient="two@example.com")
    with pytest.raises(Unavailable, match="1 of 2 recipients have it"):
        email.notify(NOTICE, progress)
    email.notify(NOTICE, progress)
    assert [mail.recipient for mail in backup.messages] == ["one@example.com", "two@example.com"]
    assert len({mail.raw for mail in backup.messages}) == 1, "the same mail, its date included"
    assert mails(backup)[0]["Message-ID"] == "<huntress-5-notice-1-0-rejected-a-b@example.com>"


def test_a_notice_by_mail_has_arrived_when_one_has_it_and_the_others_are_refused(backup: PretendMailbox) -> None:
    email = mail_connector(backup)
    backup.fault("reject_rcpt_550", times=None, recipient="two@example.com")
    email.notify(NOTICE, Memory())
    assert [mail.recipient for mail in backup.messages] == ["one@example.com"]
    backup.fault("reject_rcpt_550", times=None)
    with pytest.raises(Rejected):
        email.notify(NOTICE, Memory())


def test_a_notice_by_mail_whose_answer_is_lost_is_not_sent_for_ever(backup: PretendMailbox) -> None:
    email, progress = mail_connector(backup, on_unknown="hold"), Memory()
    backup.fault("drop_after_dot", times=None)
    email.notify(NOTICE, progress)
    assert len(backup.messages) == 2
