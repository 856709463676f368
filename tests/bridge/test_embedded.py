from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bridge import embedded
from bridge.embedded import DataFolderBusy, EmbeddedRedis, EmbeddedRedisError, exclusive_run, server_binary


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    yield folder
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # what a failed test left running
        os.kill(int((folder / "redis.pid").read_text()), signal.SIGKILL)


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def server_pid(url: str) -> int:
    with client(url) as connection:
        return int(connection.info("server")["process_id"])


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 5
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # an orphan that ended may stay a zombie for as long as its new parent likes
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return sys.platform != "linux"


def start_user(data_dir: Path, code: str) -> subprocess.Popen[str]:
    """A process of its own session that works on the folder; it prints one line when it is so far."""
    program = f"""
import os, pathlib, sys, time, redis
from bridge.embedded import EmbeddedRedis, exclusive_run
server = EmbeddedRedis(pathlib.Path({str(data_dir)!r}))
url = server.acquire()
client = redis.Redis.from_url(url)
{code}
"""
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=10)


def test_starts_on_a_private_socket_with_every_write_on_disk_and_no_tcp(data_dir: Path) -> None:
    server = EmbeddedRedis(data_dir)
    url = server.acquire()
    with client(url) as connection:
        connection.set("report", "1001")
        settings = connection.config_get("*")
    assert settings["port"] == "0"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"
    assert int(settings["databases"]) >= 2
    assert (data_dir / "redis.sock").stat().st_mode & 0o777 == 0o700
    assert data_dir.stat().st_mode & 0o777 == 0o700
    readable_by_others = [path for path in data_dir.rglob("*") if path.stat().st_mode & 0o077]
    assert readable_by_others == []
    server.release()


def test_release_stops_the_server_and_the_data_is_there_next_time(data_dir: Path) -> None:
    server = EmbeddedRedis(data_dir)
    url = server.acquire()
    pid = server_pid(url)
    with client(url) as connection:
        connection.set("report", "1001")
    server.release()
    assert not (data_dir / "redis.sock").exists()
    wait_for_end(pid)

    with client(server.acquire()) as connection:
        assert connection.get("report") == "1001"
    server.release()


def test_is_quick_and_small(data_dir: Path) -> None:
    server = EmbeddedRedis(data_dir)
    times = []
    for _ in range(3):
        begin = time.monotonic()
        url = server.acquire()
        times.append(time.monotonic() - begin)
        with client(url) as connection:
            assert int(connection.info("memory")["used_memory_rss"]) < 12_000_000
        server.release()
    assert min(times) < 0.15


def test_two_users_share_one_server_and_the_last_one_stops_it(data_dir: Path) -> None:
    one, other = EmbeddedRedis(data_dir), EmbeddedRedis(data_dir)
    url = one.acquire()
    pid = server_pid(url)
    assert other.acquire() == url
    assert server_pid(url) == pid
    one.release()
    assert server_pid(url) == pid
    other.release()
    wait_for_end(pid)


def test_acquire_and_release_are_idempotent_for_one_user(data_dir: Path) -> None:
    server = EmbeddedRedis(data_dir)
    server.release()
    pid = server_pid(server.acquire())
    assert server_pid(server.acquire()) == pid
    server.release()
    server.release()
    wait_for_end(pid)


def test_kill_9_of_the_parent_keeps_every_acknowledged_write_and_leaves_an_orphan_to_adopt(data_dir: Path) -> None:
    writer = start_user(
        data_dir,
        """
for number in range(1_000_000):
    client.set("last", number)
    os.write(1, b"%d\\n" % number)
""",
    )
    for _ in range(300):
        acknowledged = int(read_line(writer))
    os.killpg(writer.pid, signal.SIGKILL)
    rest = writer.communicate(timeout=10)[0].splitlines()
    acknowledged = int(rest[-1]) if rest else acknowledged

    orphan = int((data_dir / "redis.pid").read_text())
    assert is_running(orphan)
    server = EmbeddedRedis(data_dir)
    url = server.acquire()
    assert server_pid(url) == orphan
    # Killing the orphan as well shows that the writes are on disk and not only in its memory.
    os.kill(orphan, signal.SIGKILL)
    wait_for_end(orphan)
    assert server.ensure_alive()
    with client(url) as connection:
        assert int(connection.get("last") or -1) >= acknowledged >= 299
    server.release()


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(data_dir: Path) -> None:
    user = start_user(data_dir, "print('ready', flush=True)\ntime.sleep(60)")
    assert read_line(user) == "ready"
    pid = int((data_dir / "redis.pid").read_text())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if user.poll() is None:
            os.killpg(user.pid, number)
    finish(user)
    server = EmbeddedRedis(data_dir)
    assert server_pid(server.acquire()) == pid
    server.release()


def test_ensure_alive_restarts_a_server_that_died(data_dir: Path) -> None:
    server = EmbeddedRedis(data_dir)
    assert not server.ensure_alive(), "nothing is kept alive before it is in use"
    url = server.acquire()
    with client(url) as connection:
        connection.set("report", "1001")
    assert not server.ensure_alive()
    pid = server_pid(url)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    assert server.ensure_alive()
    assert not server.ensure_alive()
    with client(url) as connection:
        assert connection.get("report") == "1001"
    server.release()


def test_one_that_answered_is_not_asked_again_while_its_socket_is_there(data_dir: Path) -> None:
    server = EmbeddedRedis(data_dir)
    with client(server.acquire()) as connection:
        before = connection.info("stats")["total_connections_received"]
        assert not server.ensure_alive(answered=True)
        assert connection.info("stats")["total_connections_received"] == before
        (data_dir / "redis.sock").unlink()
        assert server.ensure_alive(answered=True)
    server.release()


def test_of_many_who_see_it_die_exactly_one_restarts_it(data_dir: Path) -> None:
    users = [EmbeddedRedis(data_dir) for _ in range(6)]
    url = {user.acquire() for user in users}.pop()
    pid = server_pid(url)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    restarted: list[bool] = []
    threads = [threading.Thread(target=lambda user=user: restarted.append(user.ensure_alive())) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(restarted) == [False] * 5 + [True]
    for user in users:
        user.release()


def test_a_deleted_socket_is_mended_without_losing_anything(data_dir: Path) -> None:
    server, later = EmbeddedRedis(data_dir), EmbeddedRedis(data_dir)
    url = server.acquire()
    with client(url) as connection:
        connection.set("report", "1001")
    pid = server_pid(url)
    (data_dir / "redis.sock").unlink()
    assert server.ensure_alive()
    wait_for_end(pid)
    later.acquire()
    with client(url) as connection:
        assert connection.get("report") == "1001"
    later.release()
    server.release()


def test_an_unreachable_orphan_is_replaced(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "SOCKET_TIMEOUT", 0.1)
    user = start_user(data_dir, "client.set('report', 1001)\nprint('ready', flush=True)\ntime.sleep(60)")
    read_line(user)
    orphan = int((data_dir / "redis.pid").read_text())
    user.kill()
    finish(user)
    (data_dir / "redis.sock").unlink()
    server = EmbeddedRedis(data_dir)
    url = server.acquire()
    wait_for_end(orphan)
    with client(url) as connection:
        assert connection.get("report") == "1001"
    server.release()


@pytest.mark.parametrize("end", ["release", "ensure_alive"])
def test_a_deleted_folder_leaves_no_server_behind(data_dir: Path, end: str) -> None:
    server = EmbeddedRedis(data_dir)
    pid = server_pid(server.acquire())
    data_dir.rename(data_dir.with_name("moved away"))
    if end == "ensure_alive":
        assert server.ensure_alive()
        assert server_pid(server.acquire()) != pid
    server.release()
    wait_for_end(pid)
    assert data_dir.exists() == (end == "ensure_alive")


def _come_and_go(data_dir: Path, rounds: int, failures: multiprocessing.Queue[str]) -> None:
    try:
        for number in range(rounds):
            server = EmbeddedRedis(data_dir)
            with client(server.acquire()) as connection:
                connection.incr("uses")
                time.sleep(0.002 * (number % 3))
                connection.incr("uses")
            server.release()
    except Exception as error:  # whatever goes wrong in the child is the test's to judge
        failures.put(repr(error))


def test_nobody_stops_the_server_under_somebody_who_just_adopted_it(data_dir: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    failures: multiprocessing.Queue[str] = spawn.Queue()
    users = [spawn.Process(target=_come_and_go, args=(data_dir, 15, failures)) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
        assert user.exitcode == 0
    assert failures.empty(), failures.get()
    server = EmbeddedRedis(data_dir)
    with client(server.acquire()) as connection:
        assert connection.get("uses") == "120"
    server.release()


def test_a_second_run_on_the_folder_is_told_who_is_first(data_dir: Path) -> None:
    with exclusive_run(data_dir):
        first = rf"another run works on this data folder \(pid {os.getpid()}\)"
        with pytest.raises(DataFolderBusy, match=first), exclusive_run(data_dir):
            pass
        command = EmbeddedRedis(data_dir)
        command.acquire()
        command.release()
    with exclusive_run(data_dir):
        pass


def test_the_folder_is_free_again_after_kill_9_of_its_run_even_while_the_server_lives_on(data_dir: Path) -> None:
    user = start_user(
        data_dir,
        f"""
with exclusive_run(pathlib.Path({str(data_dir)!r})):
    print('ready', flush=True)
    time.sleep(60)
""",
    )
    assert read_line(user) == "ready"
    with pytest.raises(DataFolderBusy, match=f"pid {user.pid}"), exclusive_run(data_dir):
        pass
    user.kill()
    finish(user)
    with exclusive_run(data_dir):
        assert is_running(int((data_dir / "redis.pid").read_text()))


def test_a_torn_tail_of_the_append_only_file_is_loaded_without_it(data_dir: Path) -> None:
    server = EmbeddedRedis(data_dir)
    with client(server.acquire()) as connection:
        connection.set("report", "1001")
    server.release()
    tail = next((data_dir / "appendonlydir").glob("*.incr.aof"))
    with tail.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$6\r\nrepo")
    with client(server.acquire()) as connection:
        assert connection.get("report") == "1001"
    server.release()


def test_a_damaged_file_is_a_sentence_that_says_what_to_do(data_dir: Path) -> None:
    server = EmbeddedRedis(data_dir)
    with client(server.acquire()) as connection:
        for number in range(50):
            connection.set(f"report:{number}", "x" * 100)
    server.release()
    damaged = next((data_dir / "appendonlydir").glob("*.incr.aof"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:500] + b"\0garbage\0" + content[520:])
    with pytest.raises(EmbeddedRedisError, match=r"did not start: .*appendonlydir away and start again") as caught:
        server.acquire()
    assert str(data_dir) in str(caught.value)
    (data_dir / "appendonlydir").rename(data_dir / "damaged")
    server.acquire()
    server.release()


def test_the_log_holds_this_start_and_the_one_before(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "redis.log").write_text("old line\n" * 10_000)
    server = EmbeddedRedis(data_dir)
    for _ in range(2):
        server.acquire()
        server.release()
    assert 0 < sum(log.stat().st_size for log in data_dir.glob("redis.log*")) < 20_000


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for use in (EmbeddedRedis(tmp_path / "file" / "data").acquire, exclusive_run(tmp_path / "file" / "data").__enter__):
        with pytest.raises(EmbeddedRedisError, match=r"the data folder .* cannot be used: .*Set data_dir to a local"):
            use()


def test_without_any_server_the_error_names_the_ways_out(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedRedisError, match=r"Install one of them, or set redis\.url"):
        EmbeddedRedis(data_dir).acquire()


def test_a_server_on_the_path_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "redis-server").symlink_to(server_binary())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server_binary() == tmp_path / "redis-server"


class TestLongPath:
    @pytest.fixture
    def data_dir(self, tmp_path: Path) -> Path:
        return tmp_path / ("long" * 20) / "with a space, a % and ümlauts" / "data"

    def private_folder(self, data_dir: Path) -> Path:
        data_dir.mkdir(parents=True)
        return embedded._socket_path(data_dir.resolve()).parent

    def test_the_socket_moves_to_a_private_folder(self, data_dir: Path) -> None:
        server = EmbeddedRedis(data_dir)
        url = server.acquire()
        with client(url) as connection:
            path = Path(connection.config_get("unixsocket")["unixsocket"])
            connection.set("report", "1001")
        assert len(os.fsencode(path)) < 100
        assert path.parent.stat().st_mode & 0o777 == 0o700
        other = EmbeddedRedis(data_dir)
        assert other.acquire() == url
        other.release()
        server.release()
        assert not path.exists()
        path.parent.rmdir()

    def test_a_private_folder_that_others_may_enter_is_refused(self, data_dir: Path) -> None:
        private = self.private_folder(data_dir)
        private.chmod(0o755)
        with pytest.raises(EmbeddedRedisError, match="not a private folder"):
            EmbeddedRedis(data_dir).acquire()
        private.rmdir()

    def test_a_link_planted_there_is_refused(self, data_dir: Path, tmp_path: Path) -> None:
        private = self.private_folder(data_dir)
        private.rmdir()
        private.symlink_to(tmp_path)
        with pytest.raises(EmbeddedRedisError, match="not a private folder"):
            EmbeddedRedis(data_dir).acquire()
        private.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_root_leaves_nothing_that_the_owner_of_the_folder_cannot_open() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        data_dir = Path(folder) / "data"
        data_dir.mkdir()
        os.chown(folder, 65534, 65534)
        os.chown(data_dir, 65534, 65534)
        server = EmbeddedRedis(data_dir)
        with client(server.acquire()) as connection:
            connection.set("report", "1001")
        server.release()
        assert {path.stat().st_uid for path in data_dir.rglob("*")} == {65534}
