"""Serves the page from a thread."""

from __future__ import annotations

import logging
import threading

import structlog
from waitress.server import create_server

from bridge.runtime import Runtime
from bridge.settings import ConfigurationError
from bridge.web.app import create_app
from bridge.webhooks import LONGEST_BODY

log = structlog.get_logger(__name__)

#: Threads that answer.
THREADS = 4

# It warns of every request that waits for a thread, and anybody can send many.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)


class WebServer:
    """Listens from its making on; answers while `serve` runs."""

    def __init__(self, runtime: Runtime) -> None:
        runtime.settings.require_page()
        web = runtime.settings.web
        try:
            self.server = create_server(
                create_app(runtime),
                host=web.host,
                port=web.port,
                threads=THREADS,
                ident=None,
                # It reads a whole body before the application is asked.
                max_request_body_size=LONGEST_BODY + 1,
            )
        except OSError as error:
            raise ConfigurationError(
                [f"web.port: cannot listen on {web.host} port {web.port} ({error.strerror}); set it to a free one"]
            ) from None
        log.info("page", url=f"http://{web.host}:{web.port}/status")

    def serve(self, stopping: threading.Event) -> None:
        """Answers until `stopping`."""
        threading.Thread(target=lambda: self._end(stopping), name="web-end", daemon=True).start()
        try:
            self.server.run()
        except OSError:
            if not stopping.is_set():
                raise
        finally:
            self.server.task_dispatcher.shutdown()

    def _end(self, stopping: threading.Event) -> None:
        stopping.wait()
        self.server.task_dispatcher.shutdown()  # first, or an answer under way would find what it writes to closed
        self.server.close()
