"""When a connector's deliveries are held back, as the configuration has it; `bridge.quiet` reads the clock by it.

Times without a zone are local ones in the configuration's `timezone`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: Days of the week, in the order of `datetime.weekday`.
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_DAY = 24 * 60
_WEEK = 7 * _DAY


def _day(value: Any) -> Any:
    if value not in DAYS:
        raise ValueError(f"{value!r} is no day; days are {', '.join(DAYS)}")
    return value


def _minute(value: Any) -> Any:
    if isinstance(value, time):  # TOML has times of its own
        value = f"{value:%H:%M}"
    found = re.fullmatch(r"([0-9]{2}):([0-9]{2})", value) if isinstance(value, str) else None
    minute = int(found[1]) * 60 + int(found[2]) if found and int(found[2]) < 60 else _DAY + 1
    if minute > _DAY:
        raise ValueError('must be a time such as "07:00", at most "24:00"')
    return minute


Day = Annotated[str, BeforeValidator(_day)]
#: Minutes since midnight, written as "HH:MM"; "24:00" is the end of the day.
Minute = Annotated[int, BeforeValidator(_minute)]


class Window(BaseModel):
    """What quiet hours and maintenance have in common."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    #: Ids of the organizations whose reports wait; empty: everybody's.
    organizations: list[int] = []
    #: Reports of this severity and above go out all the same.
    excepted: Literal["critical", "high", "nothing"] = Field(default="critical", alias="except")


class QuietHours(Window):
    """Hours that come back every week. Where the end is not after the start it lies on the next day."""

    #: The days on which they start.
    days: Annotated[list[Day], Field(min_length=1)] = list(DAYS)
    start: Minute = Field(alias="from")
    end: Minute = Field(alias="to")

    @model_validator(mode="after")
    def _last_a_while(self) -> QuietHours:
        if self.start == self.end or self.start == _DAY:
            raise ValueError('must end at another time than they start; a whole day is from "00:00" to "24:00"')
        return self

    @property
    def length(self) -> int:
        """Minutes by the clock on the wall."""
        return self.end - self.start if self.end > self.start else self.end + _DAY - self.start


class Maintenance(Window):
    """One stretch of time, e.g. while the ticket system is moved."""

    start: datetime = Field(alias="from")
    end: datetime = Field(alias="to")

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Maintenance:
        if (self.start.tzinfo is None) != (self.end.tzinfo is None):
            raise ValueError("must give from and to both with an offset, or both without (local times)")
        if self.end <= self.start:
            raise ValueError(f"would end ({self.end.isoformat()}) before it starts ({self.start.isoformat()})")
        return self


def _leaves_time(windows: list[QuietHours]) -> list[QuietHours]:
    """Refuses quiet hours that never end: what they hold back would be lost."""
    for organization in {None, *(each for window in windows for each in window.organizations)}:
        holding = [window for window in windows if not window.organizations or organization in window.organizations]
        if len(set(_minutes_of_the_week(holding))) == _WEEK:
            whose = "" if organization is None else f" of organization {organization}"
            raise ValueError(f"would never end, so that reports{whose} would wait for ever; leave some time out")
    return windows


def _minutes_of_the_week(windows: Iterable[QuietHours]) -> Iterable[int]:
    for window in windows:
        for day in window.days:
            start = DAYS.index(day) * _DAY + window.start
            yield from (minute % _WEEK for minute in range(start, start + window.length))


#: All quiet hours of a connector.
Quiet = Annotated[list[QuietHours], AfterValidator(_leaves_time)]
