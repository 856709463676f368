"""Enqueues a peer's jobs with its own client: `python -m tests.benchmarks.ticket_enqueue PEER COUNT`."""

from __future__ import annotations

import os
import sys

import redis

from tests.benchmarks import ticket_peers


def enqueue(peer: str, references: list[str]) -> None:
    if peer == "dramatiq":
        for reference in references:
            ticket_peers.dramatiq_ticket.send(reference)
    elif peer == "celery":
        for reference in references:
            ticket_peers.celery_ticket.delay(reference)
    else:
        import rq

        queue = rq.Queue(connection=redis.Redis.from_url(os.environ["PEER_REDIS"]))
        # By name: the workers import it from its own folder.
        queue.enqueue_many([rq.Queue.prepare_data("ticket_peers.ticket", (reference,)) for reference in references])


if __name__ == "__main__":
    enqueue(sys.argv[1], [f"huntress-1-{number}" for number in range(1, int(sys.argv[2]) + 1)])
