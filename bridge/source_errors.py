"""What can go wrong at the source, as one small tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from bridge.listing import Listing


class SourceError(Exception):
    """The source did not give what was asked for. `str()` is a sentence for people, free of secrets.

    ::

        SourceError
        ├── BudgetExhausted    not sent: the request budget has no room within the time given (fatal)
        ├── SourceUnavailable  try again later: not reachable, time-out, 5xx
        │   ├── SourceThrottled   429: the account's requests are used up (fatal)
        │   └── SourceGarbled     an answer that cannot be used: no JSON, no list, pages that do not add up
        ├── SourceRefused      401, a redirect, a certificate: key or address must be mended (fatal)
        │   └── SourceForbidden   403: the key may not read or do this
        ├── SourceNotFound     404: it does not exist, or the key may not see it
        └── SourceDeclined     409, 422: it does not do this as things stand
    """

    #: What a listing that broke off had shown until then: all of it open, but not all that is.
    shown: Listing | None = None

    #: Would any other request fail as well? A time-out is not fatal: one slow listing must not stop the others.
    fatal: ClassVar[bool] = False


class BudgetExhausted(SourceError):
    """No request may be sent within the time given. Raised by a `Budget`."""

    fatal = True


class SourceUnavailable(SourceError):
    """Try again later."""


class SourceThrottled(SourceUnavailable):
    """The account's requests are used up; `retry_after` in seconds."""

    fatal = True

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class SourceGarbled(SourceUnavailable):
    """The answer cannot be used."""


class SourceRefused(SourceError):
    """A person must mend key or address."""

    fatal = True


class SourceForbidden(SourceRefused):
    """The key may not read or do this; it may read other things."""

    fatal = False


class SourceNotFound(SourceError):
    """It does not exist, or the key may not see it; the source does not tell which."""


class SourceDeclined(SourceError):
    """The source does not do what it was asked to, as things stand; nothing was changed."""
