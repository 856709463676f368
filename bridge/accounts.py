"""Whose reports are these? The account that the API key belongs to must be the one that the store was made for."""

from __future__ import annotations

from bridge.huntress import HuntressClient, SourceRefused
from bridge.idempotency import IdempotencyStore
from bridge.models import Account


def own_account(source: HuntressClient, store: IdempotencyStore) -> Account:
    """The account as the source gives it. Raises `SourceError`, also when the store is of another account.

    Then its reports would be taken for ended ones, and its organizations for removed ones.
    """
    account = source.account()
    stored = store.recall("account_id")
    if stored and int(stored) != account.id:
        raise SourceRefused(
            f"the API key belongs to Huntress account {account.id}, but this store is of account {stored}; check "
            "[huntress] api_key and account_id, or give the new account another [redis] namespace"
        )
    return account
