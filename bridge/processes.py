"""One process of the bridge: its parts in threads, its signals, its sign of life."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import redis
import structlog

from bridge.broker import WorkerThreads, broker_client, make_broker, queued
from bridge.delivery import Deliverer
from bridge.dispatcher import PATIENCE as DISPATCHER_PATIENCE
from bridge.dispatcher import Dispatcher
from bridge.embedded import EmbeddedRedisError
from bridge.heartbeat import Heartbeat
from bridge.jobs import QUEUE, deliver_actor, enqueue
from bridge.leadership import Leadership
from bridge.organization_sync import OrganizationSync
from bridge.poller import PATIENCE as POLLER_PATIENCE
from bridge.poller import Poller
from bridge.render_guard import GUARD
from bridge.resolving import Resolving
from bridge.runtime import Runtime, settings_digest
from bridge.settings import watched_files
from bridge.watcher import Watcher

log = structlog.get_logger(__name__)

#: Seconds between signs of life, and between looks at the watched files.
BEAT_EVERY = 2.0
#: Seconds that a stopping worker gives requests in flight to end; beyond that they are found again by their reference.
STOP_SECONDS = 35.0


#: Seconds that a thread may go on while another wants to, where poller and worker share a process (CPython's: 5 ms). A
#: new report passes through several threads on its way to its ticket, and at each waits for what else is going on. In a
#: process of workers alone it does not, and more switches would cost tickets per second.
SWITCH_EVERY = 0.001


class Process:
    """The parts of one process. `roles` are any of `poller` (which holds the dispatcher too), `worker` and `web`."""

    def __init__(self, runtime: Runtime, roles: Iterable[str]) -> None:
        self.runtime = runtime
        self.roles = tuple(roles)
        self.stopping = runtime.stopping
        self._reload = threading.Event()
        self._threads: list[threading.Thread] = []
        self._leaderships: list[Leadership] = []
        self._worker: WorkerThreads | None = None
        self._heartbeat: Heartbeat | None = None
        self._seen: dict[Path, tuple[int, int, int]] = {}
        settings = runtime.settings
        client, shared_database = broker_client(runtime.url, settings.redis.broker_url.get_secret_value())
        self.broker_client = client
        self.broker = make_broker(client, settings.redis.namespace, maintenance=not shared_database)
        deliverer = Deliverer(
            runtime.store,
            runtime.keeper,
            runtime.prober,
            runtime.surroundings,
            stopping=self.stopping.is_set,
        )
        self.actor = deliver_actor(self.broker, deliverer.work)
        self.poller: Poller | None = None

    # -- parts ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts this process' parts."""
        if {"poller", "worker"} <= set(self.roles):
            sys.setswitchinterval(SWITCH_EVERY)
        if "web" in self.roles:
            # Flask takes a while to import; processes without the page need not wait for it.
            from bridge.web.server import WebServer

            web = WebServer(self.runtime)
            self._thread("web", lambda: web.serve(self.stopping))
        if "worker" in self.roles:
            self.start_worker()
        if "poller" in self.roles:
            self.start_dispatcher()
            poller = self.make_poller()
            self._thread("poller", lambda: poller.run(self.stopping))
            self.start_sync(poller.leadership)
            self.start_resolving(poller.leadership)
        self.start_watcher()

    def start_worker(self) -> None:
        GUARD.warm_up()
        for name, service in self.runtime.services.items():
            self.runtime.store.unprove(name, settings_digest(service.settings), changed=False)
        self.runtime.keeper.start()
        self._worker = WorkerThreads(self.broker, self.runtime.settings.worker_threads)
        self._worker.start()

    def start_dispatcher(self) -> None:
        runtime = self.runtime
        leadership = self._lead("dispatcher", DISPATCHER_PATIENCE)
        dispatcher = Dispatcher(
            runtime.store,
            lambda: runtime.services,
            leadership,
            runtime.prober,
            lambda jobs: enqueue(self.broker, self.actor, jobs),
            lambda: queued(self.broker_client, runtime.settings.redis.namespace, QUEUE),
        )
        for name in runtime.services:
            runtime.store.probe_now(name)
        self._thread("dispatcher", lambda: dispatcher.run(self.stopping))

    def start_watcher(self) -> None:
        runtime = self.runtime
        watcher = Watcher(
            runtime.store, runtime.books, lambda: runtime.services, lambda: runtime.settings, runtime.account
        )
        self._thread("watcher", lambda: watcher.run(self.stopping))

    def start_sync(self, leadership: Leadership) -> None:
        """Compares the organizations on schedule, beside the polls of the leader."""
        runtime = self.runtime
        sync = OrganizationSync(runtime.store, runtime.books, lambda: runtime.assembly, runtime.routes, leadership)
        self._thread("organizations", lambda: sync.run(self.stopping))

    def start_resolving(self, leadership: Leadership) -> None:
        """Resolves reports whose tickets people closed, where that is wanted, beside the polls of the leader."""
        runtime = self.runtime
        resolving = Resolving(runtime.store, runtime.books, lambda: runtime.assembly, leadership)
        self._thread("resolving", lambda: resolving.run(self.stopping))

    def make_poller(self) -> Poller:
        """A poller that tries to lead from now on; its loop is the caller's."""
        runtime = self.runtime
        leadership = self._lead("poller", POLLER_PATIENCE)
        runtime.moving = leadership.alive
        heartbeat = self._heartbeat = Heartbeat(runtime.books, lambda: runtime.settings.alerts)
        self._thread("heartbeat", lambda: heartbeat.run(self.stopping))
        self.poller = Poller(
            runtime.store,
            runtime.books,
            lambda: runtime.assembly.source,
            lambda: runtime.settings,
            runtime.routes,
            leadership,
            heartbeat.polled,
        )
        return self.poller

    def _lead(self, role: str, patience: float) -> Leadership:
        leadership = Leadership(self.runtime.store, role, patience=patience)
        leadership.start()
        self._leaderships.append(leadership)
        return leadership

    def _thread(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Starts, works until SIGTERM or SIGINT, stops. SIGHUP reads the configuration again."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)
        started = time.monotonic()
        self.start()
        self.runtime.books.save_configuration_problem("")  # whatever a process before this one refused
        self._changed_files()
        log.info("ready", roles=list(self.roles), seconds=round(time.monotonic() - started, 2))
        try:
            while not self.stopping.is_set():
                self.beat()
                self.stopping.wait(BEAT_EVERY)
        finally:
            self.stop()

    def beat(self) -> None:
        """One round of housekeeping: sign of life, embedded Redis, changed configuration."""
        answered = self._say_alive()
        if self.runtime.embedded is not None:
            try:
                self.runtime.embedded.ensure_alive(answered=answered)
            except EmbeddedRedisError as error:
                log.error("the embedded Redis does not run", error=str(error))
        if self._changed_files() or self._reload.is_set():
            self._reload.clear()
            try:
                taken = self.runtime.reload()
            except redis.RedisError as error:
                self._reload.set()
                log.warning("cannot take the changed configuration yet: Redis does not answer", error=str(error))
            else:
                if taken and self.poller is not None:
                    self.poller.forget_account()
                if taken and self._worker is not None:
                    self._worker.resize(self.runtime.settings.worker_threads)
        self.runtime.requests.flush()

    def _say_alive(self) -> bool:
        """Writes this process' sign of life. False: Redis did not answer, or was not asked."""
        try:
            if self.roles:
                self.runtime.books.beat_all({role: self.problem(role) for role in self.roles})
            return bool(self.roles)
        except redis.RedisError:
            return False  # the parts say so themselves; a missing beat is what tells the health check

    def problem(self, role: str) -> str:
        """Why this process does not do its work as `role`; '' while it does."""
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        dead += [f"leadership of {each.role}" for each in self._leaderships if not each.running()]
        if self._worker is not None and not self.runtime.keeper.alive():
            dead.append("renewal of leases")
        if dead:
            return f"{', '.join(dead)} ended"
        if role == "worker" and self._worker is not None:
            if not self._worker.alive():
                return "the worker's threads ended"
            hanging = self.runtime.keeper.overdue()
            if hanging * 2 > self.runtime.settings.worker_threads:
                return f"{hanging} of {self.runtime.settings.worker_threads} worker threads hang"
        return ""

    def stop(self) -> None:
        """Lets work in flight end, then gives up every part. Nothing is lost when it does not end in time."""
        self.stopping.set()
        log.info("stopping")
        for leadership in self._leaderships:
            leadership.stop()  # first, so that another process takes over while requests in flight end here
        if self._worker is not None:
            self._worker.stop(STOP_SECONDS)
        if self._heartbeat is not None:
            self._heartbeat.end()
        for thread in self._threads:
            thread.join(timeout=5)
        with suppress(redis.RedisError):
            for role in self.roles:
                self.runtime.books.leave(role)
        self.broker.close()
        self.broker_client.close()
        log.info("stopped")

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.stopping.set()

    def _hang_up(self, _: int, __: FrameType | None) -> None:
        self._reload.set()

    def _changed_files(self) -> bool:
        """Did a secret file or the organizations file change since the last look?"""
        seen = {}
        for path in watched_files(self.runtime.settings):
            try:
                status = path.stat()
            except OSError:
                continue  # being replaced, or gone: the old values stay in use
            seen[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        known, self._seen = self._seen, seen
        return bool(known) and any(known.get(path) != value for path, value in seen.items())
