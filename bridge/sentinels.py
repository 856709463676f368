"""Is the server that answers the primary for everybody? Asked of Redis' Sentinels.

A primary that was cut off from its replicas and Sentinels goes on taking writes while they make another one; whoever
still reaches it would create tickets that the others know nothing of.
"""

from __future__ import annotations

import redis
from redis.sentinel import SentinelConnectionPool


def has_sentinels(client: redis.Redis) -> bool:
    """Was the client made for `redis+sentinel://`?"""
    return isinstance(client.connection_pool, SentinelConnectionPool)


def most_name(client: redis.Redis, run_id: str) -> bool:
    """Do most of the Sentinels in the URL name the server with this `run_id` the primary, and see it alive?

    One that does not answer within its second counts as a no.
    """
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)  # noqa: S101 - `has_sentinels` was asked
    sentinels = list(pool.sentinel_manager.sentinels)
    agreed = 0
    for sentinel in sentinels:
        try:
            state = sentinel.sentinel_master(pool.service_name)
        except redis.RedisError:
            continue
        agreed += state.get("runid") == run_id and not (state["is_sdown"] or state["is_odown"])
        if agreed * 2 > len(sentinels):
            return True
    return False
