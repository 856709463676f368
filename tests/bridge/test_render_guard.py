"""Templates that never end, take all memory or get stuck: plain rendering takes their place, and nothing else ends."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.render_guard import GUARD, KEPT_HELPERS, MOST_HELPERS, RenderGuard
from bridge.rendering import Renderer, samples
from bridge.sandbox import MEMORY, Job, TemplateFailure, Templates
from bridge.ticket_view import TicketView, make_view
from connectors.base import PsaSettings, TemplatePart, Unavailable
from tests.bridge.test_rendering import ConnectWiseDesk
from tests.end_to_end.conftest import wait_until

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
#: One call of C that takes years and looks at no signals: two nested lists of 2 ** 60 equal leaves are compared.
STUCK = (
    "{% set ns = namespace(a=[report.id], b=[report.id]) %}"
    "{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}"
)
PARTS = (
    TemplatePart("title", "title.j2", 100, single_line=True),
    TemplatePart("text", "text.j2"),
    TemplatePart("notice", "notice.j2", single_line=True),
)
SAMPLE = next(samples())


@contextlib.contextmanager
def guard_with(**seconds: float) -> Iterator[RenderGuard]:
    GUARD.close()  # only the helpers of a test's own guard are there
    guard = RenderGuard(**({"template_seconds": 0.3, "later_seconds": 0.1, "patience_seconds": 0.05} | seconds))
    yield guard
    guard.close()


@pytest.fixture
def guard() -> Iterator[RenderGuard]:
    with guard_with() as guard:
        yield guard


def renderer(guard: RenderGuard, folder: Path, **fields: str) -> Renderer:
    settings = PsaSettings(type="connectwise", templates=str(folder), fields=dict(fields))
    return Renderer(ConnectWiseDesk(settings, PARTS), settings, timezone="UTC", portal_url="", guard=guard)


def view() -> TicketView:
    return make_view(
        report=SAMPLE.report,
        reference="huntress-5-1",
        organization=None,
        agent=None,
        account=None,
        company=None,
        portal_pattern="",
    )


def job(source: str) -> Job:
    return Job(Templates((), "UTC", 0), view(), "a template", source=source)


def helpers() -> set[int]:
    """The children of this process that render."""
    tasks = Path("/proc/self/task").glob("*/children")
    children = {int(pid) for task in tasks for pid in task.read_text("ascii").split()}
    return {pid for pid in children if b"bridge.sandbox" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


TIME = "it takes more than 0.3 s of processor time"
SPACE = f"it takes more than {MEMORY // 1024**2} MB of memory"


@pytest.mark.parametrize(
    ("template", "line", "why"),
    [
        ("one\n" + LOOP, 2, TIME),
        ("{% macro m(n) %}{{ m(n - 1) + m(n - 1) if n }}{% endmacro %}\n{{ m(99) }}", 1, TIME),
        (STUCK, None, TIME),
        ("{{ 7 ** (9 ** 9) }}", None, TIME),  # already when it is compiled
        (LOOP.replace("}{% endfor", "}x{% endfor"), None, "it produces more than 4,000,000 characters"),
        ("one\n{{ 'ab' * 3000000000 }}", 2, SPACE),
        ("{{ [report.id] * 3000000000 }}", 1, SPACE),
        ("one\n\n{{ subject | center(5000000000) }}", 3, SPACE),
        ("{{ '%5000000000d' % report.id }}", 1, SPACE),
        ("{{ '{:5000000000}'.format(report.id) }}", 1, SPACE),
        (
            "{% set ns = namespace(x=subject) %}\n{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            2,
            SPACE,
        ),
        ("{{ ('a' * 9000000).replace('a', 'b' * 90000) | length }}", 1, SPACE),
    ],
)
def test_a_template_without_an_end_costs_no_ticket(
    guard: RenderGuard, tmp_path: Path, template: str, line: int | None, why: str
) -> None:
    if why != TIME:
        guard.template_seconds = 20
    ours = renderer(guard, tmp_path)
    (tmp_path / "text.j2").write_text(template)
    rendered = ours.render(SAMPLE)
    at = f", line {line}" if line else ""
    assert rendered.problems == (
        f"connector psa: template {tmp_path}/text.j2{at}: {why}; the plain rendering took its place",
    )
    assert rendered.ticket.text == ours.render(SAMPLE, plain=True).ticket.text
    untouched = renderer(guard, tmp_path / "none").render(SAMPLE)
    assert (rendered.ticket.title, rendered.ticket.notice) == (untouched.ticket.title, untouched.ticket.notice)
    assert untouched.problems == ()


def test_a_helper_that_stands_still_is_replaced(guard: RenderGuard, tmp_path: Path) -> None:
    ours = renderer(guard, tmp_path / "none")
    ours.render(SAMPLE)
    (pid,) = helpers()
    os.kill(pid, signal.SIGSTOP)
    guard.ticket_seconds = 0.2
    problems = ours.render(SAMPLE).problems
    assert len(problems) == len(PARTS)
    assert all(": its ticket takes too long; the plain rendering took its place" in problem for problem in problems)
    guard.ticket_seconds = 20
    assert not alive(pid)
    assert ours.render(SAMPLE).problems == ()


def test_after_one_was_stopped_the_rest_of_the_ticket_is_given_less_time(guard: RenderGuard, tmp_path: Path) -> None:
    for part in PARTS:
        (tmp_path / part.file).write_text(LOOP)
    ours = renderer(guard, tmp_path, memo="{{ reference }}", poNumber=LOOP)
    rendered = ours.render(SAMPLE)
    seconds = [problem.split("more than ")[1].split(" s ")[0] for problem in rendered.problems]
    assert seconds == ["0.3", "0.1", "0.1", "0.1"]
    assert rendered.ticket.fields == {"memo": SAMPLE.reference}


def test_a_field_may_do_no_more_than_a_template(guard: RenderGuard, tmp_path: Path) -> None:
    guard.template_seconds = 2
    rendered = renderer(guard, tmp_path, memo="{{ 'ab' * 3000000000 }}", poNumber=STUCK).render(SAMPLE)
    assert rendered.problems == (
        f"connector psa: fields.memo, line 1: {SPACE}; the field was left out",
        f"connector psa: fields.poNumber: {TIME.replace('0.3', '2')}; the field was left out",
    )
    assert rendered.ticket.fields == {}


def test_the_check_finds_it_and_tries_it_on_one_sample_only(guard: RenderGuard, tmp_path: Path) -> None:
    (tmp_path / "text.j2").write_text(LOOP)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    findings = renderer(guard, tmp_path).check()
    guard.close()
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
    assert [finding.message for finding in findings] == [f"template {tmp_path}/text.j2, line 1: {TIME}"]
    samples_at_least = 8
    assert len(list(samples())) >= samples_at_least
    assert used < 0.3 + (samples_at_least - 1) * 0.1


def test_the_end_of_the_time_hits_nothing_but_the_rendering(guard: RenderGuard) -> None:
    """The signal comes at any moment, many times: each answer is the text or the failure, and all are of one helper."""
    template = job("{% for i in range(400) %}{{ loop.index }} {% endfor %}")
    guard.later_seconds = guard.template_seconds = 30
    draw, stop, failures = random.Random(1), threading.Event(), 0
    with guard.ticket() as rendering:
        whole = rendering.render(template)
        (pid,) = helpers()

        def signals() -> None:
            while not stop.wait(draw.uniform(0, 0.002)):
                os.kill(pid, signal.SIGPROF)

        with ThreadPoolExecutor() as pool:
            sent = pool.submit(signals)
            try:
                for _ in range(2000):
                    try:
                        assert rendering.render(template) == whole
                    except TemplateFailure as failure:
                        failures += failure.overdue
                        if not failure.overdue:
                            raise
            finally:
                stop.set()
            sent.result()
        assert rendering.render(template) == whole
        assert helpers() == {pid}
    assert 100 < failures < 1900


def test_others_are_rendered_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "text.j2").write_text(LOOP)
    with guard_with(template_seconds=3) as guard, ThreadPoolExecutor() as pool:
        slow = pool.submit(renderer(guard, tmp_path).render, SAMPLE)
        wait_until(lambda: len(helpers()) == 1)
        innocent = renderer(guard, tmp_path / "none")
        for _ in range(20):
            assert innocent.render(SAMPLE).problems == ()
        assert not slow.done()
        assert "processor time" in slow.result().problems[0]


def test_tickets_that_are_quick_take_turns_with_one_helper(tmp_path: Path) -> None:
    innocent = renderer(guard := RenderGuard(patience_seconds=30), tmp_path / "none")
    with contextlib.closing(guard), ThreadPoolExecutor(8) as pool:
        GUARD.close()
        guard.warm_up()
        for rendered in pool.map(lambda _: innocent.render(SAMPLE), range(40)):
            assert rendered.problems == ()
        assert len(helpers()) == 1


def test_when_too_many_are_slow_the_next_is_put_off(tmp_path: Path) -> None:
    (tmp_path / "text.j2").write_text(LOOP)
    with guard_with(template_seconds=1, wait_seconds=0.05) as guard, ThreadPoolExecutor(MOST_HELPERS) as pool:
        slow = [pool.submit(renderer(guard, tmp_path).render, SAMPLE) for _ in range(MOST_HELPERS)]
        wait_until(lambda: len(helpers()) == MOST_HELPERS)
        innocent = renderer(guard, tmp_path / "none")
        with pytest.raises(Unavailable, match="other reports keep every process that renders templates busy"):
            innocent.render(SAMPLE)
        assert innocent.render(SAMPLE, plain=True).ticket.title
        assert all("processor time" in each.result().problems[0] for each in slow)
        assert innocent.render(SAMPLE).problems == ()
        assert len(helpers()) == KEPT_HELPERS


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_helper_that_somebody_ends_is_replaced(guard: RenderGuard, tmp_path: Path, number: int) -> None:
    ours = renderer(guard, tmp_path / "none")
    ours.render(SAMPLE)
    (pid,) = helpers()
    os.kill(pid, number)
    assert ours.render(SAMPLE).problems == ()
    assert (helpers() == {pid}) is (number != signal.SIGKILL), "whoever stops the bridge lets it finish"


def test_a_helper_that_crashes_is_replaced_once() -> None:
    crashed: set[int] = set()
    with guard_with(template_seconds=30) as guard, ThreadPoolExecutor() as pool, guard.ticket() as rendering:
        slow = pool.submit(rendering.render, job(LOOP))
        while len(crashed) < 2:
            wait_until(lambda: helpers() - crashed)
            (pid,) = helpers() - crashed
            os.kill(pid, signal.SIGSEGV)
            crashed.add(pid)
        with pytest.raises(TemplateFailure, match=r"the process that rendered it ended, twice \(exit status -11\)"):
            slow.result()
        assert rendering.render(job("text")) == "text"


def test_a_helper_that_cannot_be_started_costs_no_ticket(
    guard: RenderGuard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    guard.warm_up()
    rendered = renderer(guard, tmp_path / "none").render(SAMPLE)
    assert len(rendered.problems) == len(PARTS)
    assert "the process that renders it cannot be started: [Errno 2]" in rendered.problems[0]


def test_a_helper_knows_no_secrets_and_is_the_first_to_end_when_memory_is_short(
    guard: RenderGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_HUNTRESS__API_KEY", "the-key")
    with guard.ticket() as rendering:
        rendering.render(job("text"))
        (pid,) = helpers()
        assert b"the-key" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert Path(f"/proc/{pid}/oom_score_adj").read_text("ascii") == "1000\n"


@pytest.mark.parametrize("source", ["idle", LOOP, STUCK])
def test_a_helper_does_not_outlive_the_bridge(source: str) -> None:
    program = (
        "import sys, threading\n"
        "from tests.bridge.test_render_guard import RenderGuard, helpers, job\n"
        "guard = RenderGuard(template_seconds=0.5)\n"
        "with guard.ticket() as rendering:\n"
        "    rendering.render(job('text'))\n"
        "    print(*helpers(), flush=True)\n"
        "    rendering.render(job(sys.argv[1])) if sys.argv[1] != 'idle' else threading.Event().wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, source], stdout=subprocess.PIPE, text=True) as bridge:
        assert bridge.stdout is not None
        pid = int(bridge.stdout.readline())
        bridge.kill()
    wait_until(lambda: not alive(pid), 20)
