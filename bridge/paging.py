"""One pager for the three ways in which the source was seen to page. It never follows a URL from an answer.

`next_page_token` is what the vendor documents, `next_page` what its API answered before, `total_pages` what a
third-party guide describes. A listing is whole or it fails: whatever looks like a repeated, skipped or endless page
raises `PagingError`, because a shortened listing would make open reports look closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bridge.parsing import whole_number

Params = Mapping[str, str | int]

#: Most items asked for on a page, and the most the vendor allows.
PAGE_SIZE = 500
#: Pages after which a listing is taken for endless: 125,000 items even from a server that gives 25 a page.
MAX_PAGES = 5000
#: Pages without items in a row, although more are promised, after which a listing is taken for endless.
MAX_EMPTY_PAGES = 10


class PagingError(ValueError):
    """An answer is no page of this listing, or the pages do not add up; `str()` is a sentence for people."""


class Pages(Iterator[list[Any]]):
    """Items of one page after the other, each id once. `fetch` gets a request's parameters and returns its JSON.

    `came` is told of each page how many items it has, and how many pages there are, where the answer says so. Items
    without a usable id are passed on as they are. After an error that `fetch` raised, the same page is fetched again.
    """

    def __init__(
        self,
        fetch: Callable[[Params], Any],
        key: str,
        filters: Params,
        came: Callable[[int, int | None], None] = lambda items, total: None,
    ) -> None:
        self._fetch = fetch
        self._key = key
        self._came = came
        self._first: dict[str, str | int] = {**filters, "limit": PAGE_SIZE}
        #: Parameters of the page that came last, or comes first, and what it said of the next.
        self._place: dict[str, str | int] = {}
        self._pagination: Any = None
        self._tokens: set[str] = set()
        self._seen: set[int] = set()
        self._empty = 0
        self._count = 0

    def __next__(self) -> list[Any]:
        key = self._key
        place = self._following() if self._count else {}
        if self._count == MAX_PAGES:
            raise PagingError(f"the listing of {key} does not end after {MAX_PAGES} pages")
        body = self._fetch(self._first | place)
        self._place = place
        self._tokens.add(str(place.get("page_token", "")))
        self._count += 1
        items = body.get(key) if isinstance(body, Mapping) else None
        if not isinstance(items, list):
            raise PagingError(f"the answer has no list of {key}")
        fresh = _unseen(items, self._seen)
        if items and not fresh and place:
            raise PagingError(f"a page of {key} repeats the pages before it")
        self._empty = 0 if items else self._empty + 1
        self._pagination = body.get("pagination")
        self._came(len(fresh), _pages_named(self._pagination))
        return fresh

    def _following(self) -> dict[str, str | int]:
        place = _following(self._pagination, self._place, self._empty)
        if not place:
            raise StopIteration
        token = str(place.get("page_token", ""))
        if token and token in self._tokens:
            raise PagingError(f"the pages of {self._key} go in a circle: a page token came twice")
        return place


def _unseen(items: list[Any], seen: set[int]) -> list[Any]:
    fresh = []
    for item in items:
        number = whole_number(item.get("id"), least=1) if isinstance(item, Mapping) else None
        if number in seen:
            continue
        if number is not None:
            seen.add(number)
        fresh.append(item)
    return fresh


def _following(pagination: Any, place: Params, empty: int) -> dict[str, str | int]:
    """Parameters of the page after the one at `place`; empty after the last one."""
    if not pagination:
        return {}
    if not isinstance(pagination, Mapping):
        raise PagingError("the answer's pagination is not an object")
    token = pagination.get("next_page_token")
    if token:
        if not isinstance(token, str | int):
            raise PagingError("next_page_token is neither text nor a number")
        if empty >= MAX_EMPTY_PAGES:
            raise PagingError(f"{empty} pages in a row are empty although more are promised")
        return {"page_token": str(token)}
    if "page_token" in place:
        return {}

    page = int(place.get("page", 1))
    current = _number(pagination, "current_page")
    if current not in (None, page):
        raise PagingError(f"page {page} was asked for and page {current} came")
    following = _number(pagination, "next_page")
    if following and following != page + 1:
        raise PagingError(f"after page {page} the answer names page {following}")
    if not following and page >= _total_pages(pagination):
        return {}
    if empty:
        raise PagingError(f"page {page} is empty although more are promised")
    return {"page": page + 1}


def _pages_named(pagination: Any) -> int | None:
    try:
        return _total_pages(pagination) or None if isinstance(pagination, Mapping) else None
    except PagingError:
        return None  # said where the next page is looked for


def _total_pages(pagination: Mapping[str, Any]) -> int:
    """`total_pages`, else what follows from `total_count` and the server's own `limit`, else 0."""
    total = _number(pagination, "total_pages")
    if total is None:
        count, limit = _number(pagination, "total_count"), _number(pagination, "limit")
        total = -(-count // limit) if count and limit else 0
    return total


def _number(pagination: Mapping[str, Any], name: str) -> int | None:
    value = pagination.get(name)
    if value is None or value == "":
        return None
    number = whole_number(value)
    if number is None:
        raise PagingError(f"the pagination's {name} is not a number")
    return number
