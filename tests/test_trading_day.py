"""The trading day is the exchange's, also in the nights in which clocks are changed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from pgrisk.worker.jobs import Context
from pgrisk.worker.jobs import day as roll
from pgrisk.worker.log import create_log
from pgrisk.worker.metrics import Metrics
from tests.orders import Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

HOUR = timedelta(hours=1)


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(datetime(2026, 1, 5, 15, tzinfo=UTC))
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


@pytest.mark.parametrize(
    ("moment", "today"),
    [
        # New York goes from 5 to 4 hours behind on 8 March 2026, and back on 1 November.
        (datetime(2026, 3, 8, 4, 59, tzinfo=UTC), date(2026, 3, 7)),
        (datetime(2026, 3, 8, 5, 0, tzinfo=UTC), date(2026, 3, 8)),
        (datetime(2026, 3, 9, 3, 59, tzinfo=UTC), date(2026, 3, 8)),
        (datetime(2026, 3, 9, 4, 0, tzinfo=UTC), date(2026, 3, 9)),
        (datetime(2026, 11, 1, 3, 59, tzinfo=UTC), date(2026, 10, 31)),
        (datetime(2026, 11, 1, 4, 0, tzinfo=UTC), date(2026, 11, 1)),
        (datetime(2026, 11, 2, 4, 59, tzinfo=UTC), date(2026, 11, 1)),
        (datetime(2026, 11, 2, 5, 0, tzinfo=UTC), date(2026, 11, 2)),
    ],
)
def test_midnight_is_the_exchanges(
    db: Database, firm: Caller, moment: datetime, today: date
) -> None:
    """Before the first open_day it decides what has expired, whatever the session's time zone."""
    terms = {"kind": "option", "underlying": "AAPL", "option_right": "call", "strike": 100}
    expiries = {"today": str(today), "yesterday": str(today - timedelta(days=1))}
    options = [terms | {"symbol": name, "expiry": expiry} for name, expiry in expiries.items()]
    firm.call("upsert_instruments", instruments=Jsonb(options))
    db.set_clock(moment)
    firm.mark(dict.fromkeys(expiries, 5))
    for zone in ("UTC", "Asia/Tokyo", "America/Los_Angeles"):
        firm.rows(f"set time zone '{zone}'")
        assert firm.value("select risk_private.trading_date()") == today
        assert firm.check("A1", zone, "today", "buy", 1, 5).is_accepted
        answer = firm.check("A1", f"{zone} late", "yesterday", "buy", 1, 5)
        assert answer.reason == "INSTRUMENT_EXPIRED"


@pytest.mark.parametrize(
    ("zone", "opens_at", "first", "hours"),
    [
        ("America/New_York", "00:00", datetime(2026, 3, 5, 15, tzinfo=UTC), [5, 4, 4, 4, 4]),
        ("America/New_York", "00:00", datetime(2026, 10, 29, 15, tzinfo=UTC), [4, 5, 5, 5, 5]),
        (
            "America/New_York",
            "02:30",  # which 8 March has not
            datetime(2026, 3, 5, 15, 30, tzinfo=UTC),
            [7.5, 6.5, 6.5, 6.5, 6.5],
        ),
        # In Cairo there is no midnight on Friday 24 April 2026: the clock goes from 00:00 to 01:00.
        ("Africa/Cairo", "00:00", datetime(2026, 4, 22, 15, tzinfo=UTC), [22, 22, 21, 21, 21]),
    ],
)
def test_every_weekday_is_opened_once_at_its_hour(
    db: Database,
    firm: Caller,
    zone: str,
    opens_at: str,
    first: datetime,
    hours: list[float],
) -> None:
    """An hour at a time through the change; the hours are those of Greenwich."""
    db.set_clock(first)
    firm.call("set_setting", name="exchange_time_zone", value=zone)
    firm.call("set_setting", name="open_day_at", value=opens_at)
    firm.call("open_day", day=first.date())
    epoch = firm.value("select risk_private.take_lease('one', '{}')")
    context = Context(firm.connection, epoch, create_log("one"), Metrics(), print)
    opened: dict[date, float] = {}
    query = "select trading_date from risk_private.trading_calendar"
    day = first.date()
    for step in range(1, 7 * 24):
        now = first + step * HOUR
        db.set_clock(now)
        roll(context)
        if firm.value(query) != day:
            day = firm.value(query)
            opened[day] = now.hour + now.minute / 60
    weekdays = [first.date() + timedelta(days=n) for n in range(1, 8)]
    assert list(opened) == [day for day in weekdays if day.isoweekday() < 6][: len(opened)]
    assert list(opened.values()) == hours
    closed = firm.rows("select day from risk.daily_summary where scope = 'F' order by day")
    assert [row["day"] for row in closed] == [first.date(), *opened]
