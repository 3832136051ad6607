"""What the worker does beside evaluating: the day, lapsed limits, warnings, recounts, refreshes."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import psycopg
import pytest

from pgrisk.worker.background import Background, run
from pgrisk.worker.jobs import Context, Job, day, reconciliation, views
from pgrisk.worker.log import create_log
from pgrisk.worker.metrics import Metrics
from tests.orders import Caller, open_firm, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2098, 1, 6, 10, 0, tzinfo=NEW_YORK)  # a Monday
SECOND = timedelta(seconds=1)


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        yield caller


@pytest.fixture
def job(firm: Caller) -> Callable[[str], int]:
    """Runs one of the jobs that are functions, as the leader."""
    epoch = firm.value("select risk_private.take_lease('one', '{}')")
    return lambda name: int(firm.value(f"select risk_private.{name}(%s)", epoch))


@pytest.fixture
def context(firm: Caller) -> Context:
    epoch = firm.value("select risk_private.take_lease('one', '{}')")
    return Context(firm.connection, epoch, create_log("one"), Metrics(), print)


# -- the trading day -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opens_at", "now", "due"),
    [
        ("00:00", datetime(2098, 1, 6, 23, 59, 59, tzinfo=NEW_YORK), None),
        ("00:00", datetime(2098, 1, 7, 0, 0, 0, tzinfo=NEW_YORK), date(2098, 1, 7)),
        ("00:00", datetime(2098, 1, 9, 8, 0, 0, tzinfo=NEW_YORK), date(2098, 1, 9)),
        ("00:00", datetime(2098, 1, 11, 8, 0, 0, tzinfo=NEW_YORK), None),  # Saturday
        ("07:30", datetime(2098, 1, 7, 7, 29, 59, tzinfo=NEW_YORK), None),
        ("07:30", datetime(2098, 1, 7, 7, 30, 0, tzinfo=NEW_YORK), date(2098, 1, 7)),
        ("07:30", datetime(2098, 1, 11, 3, 0, 0, tzinfo=NEW_YORK), date(2098, 1, 10)),
        ("off", datetime(2098, 1, 7, 8, 0, 0, tzinfo=NEW_YORK), None),
    ],
)
def test_a_day_is_due_at_its_time_on_the_exchanges_clock(
    db: Database, firm: Caller, opens_at: str, now: datetime, due: date | None
) -> None:
    assert NOW.isoweekday() == 1
    firm.call("set_setting", name="open_day_at", value=opens_at)
    assert firm.value("select risk_private.due_day()") is None  # nobody has opened a first day
    firm.call("open_day", day=date(2098, 1, 6))
    assert firm.value("select risk_private.due_day()") is None
    db.set_clock(now)
    assert firm.value("select risk_private.due_day()") == due


@pytest.mark.parametrize(
    ("moment", "due"),
    [
        # Clocks go forward in the night of 9 March 2098 and back in that of 2 November.
        (datetime(2098, 3, 10, 3, 59, 59, tzinfo=UTC), None),
        (datetime(2098, 3, 10, 4, 0, 0, tzinfo=UTC), date(2098, 3, 10)),
        (datetime(2098, 11, 3, 4, 59, 59, tzinfo=UTC), None),
        (datetime(2098, 11, 3, 5, 0, 0, tzinfo=UTC), date(2098, 11, 3)),
    ],
)
def test_midnight_is_the_exchanges_in_summer_and_winter(
    db: Database, firm: Caller, moment: datetime, due: date | None
) -> None:
    before = moment - timedelta(days=2)
    db.set_clock(before)
    firm.call("open_day", day=before.astimezone(NEW_YORK).date())
    db.set_clock(moment)
    assert firm.value("select risk_private.due_day()") == due


def test_a_day_that_somebody_opened_meanwhile_is_left_alone(db: Database, firm: Caller) -> None:
    """Days of the past are replayed like this, and days ahead opened the evening before."""
    firm.call("open_day", day=date(2015, 8, 24))
    assert firm.value("select risk_private.due_day()") is None
    db.set_clock(NOW.replace(hour=20))
    firm.call("open_day", day=date(2098, 1, 7))
    db.set_clock(datetime(2098, 1, 7, 0, 30, tzinfo=NEW_YORK))
    assert firm.value("select risk_private.due_day()") is None


def test_the_worker_opens_the_day_and_finishes_one_that_was_interrupted(
    db: Database, firm: Caller, context: Context
) -> None:
    firm.call("open_day", day=date(2098, 1, 6))
    for account in ("A1", "A2"):
        firm.check(account, "1", "AAPL", "buy", 1, 100)
    db.set_clock(datetime(2098, 1, 7, 0, 0, 1, tzinfo=NEW_YORK))
    context = Context(firm.connection, take(firm), context.log, context.metrics, print)
    begin = "select account_ids from risk_private.begin_due_day(%s)"
    *accounts, _ = firm.value(begin, context.epoch)
    for account in accounts:
        context.value("roll_account_at", account, date(2098, 1, 7))
    assert firm.value("select count(*) from risk.open_orders") == 1  # and there the leader dies
    day(context)
    assert firm.value("select count(*) from risk.open_orders") == 0
    assert firm.value("select risk_private.trading_date()") == date(2098, 1, 7)
    assert firm.value(begin, context.epoch) == []
    assert firm.differences() == []


def take(firm: Caller) -> int:
    return int(firm.value("select risk_private.take_lease('next', '{}')"))


@pytest.mark.parametrize("value", ["24:00", "7:30", "midnight", ""])
def test_times_of_opening_are_checked(firm: Caller, value: str) -> None:
    with pytest.raises(psycopg.Error, match="open_day_at must be a time"):
        firm.call("set_setting", name="open_day_at", value=value)


@pytest.mark.parametrize(
    ("name", "value"), [("open_day_at", "off"), ("exchange_time_zone", "Asia/Tokyo")]
)
def test_settings_of_the_calendar_hold_for_all(firm: Caller, name: str, value: str) -> None:
    with pytest.raises(psycopg.Error, match="cannot be set for a scope"):
        firm.call("set_setting", name=name, value=value, scope="F")


# -- limits ----------------------------------------------------------------------------------


def test_a_limit_that_lapses_is_alerted_once(
    db: Database, firm: Caller, job: Callable[[str], int]
) -> None:
    assert job("tell_lapsed_limits") == 0
    end = NOW + 60 * SECOND
    firm.limit("A1", "order_quantity", 10)
    firm.limit("A1", "order_quantity", 50, valid_until=end)
    firm.limit("D1", "open_orders", 5, valid_until=end)
    firm.limit("A2", "order_quantity", 7, valid_until=end)
    firm.limit("A2", "order_quantity", 8)  # in force instead before the time is over
    assert job("tell_lapsed_limits") == 0
    db.set_clock(end)
    epoch = take(firm)
    tell = "select risk_private.tell_lapsed_limits(%s)"
    assert firm.value(tell, epoch) == 2
    assert firm.value(tell, epoch) == 0
    told = {
        (a["scope"], a["limit_type"], a["limit_value"], a["limit_value_now"])
        for a in firm.alerts("limit_lapsed")
    }
    assert told == {
        ("A1", "order_quantity", "50", "10"),
        ("D1", "open_orders", "5", None),
    }


def warned(firm: Caller) -> list[tuple[str, str, str]]:
    return [
        (alert["scope"], alert["limit_type"], alert["status"])
        for alert in firm.alerts("limit_warning")
    ]


def test_a_warning_is_alerted_once_per_crossing(firm: Caller, job: Callable[[str], int]) -> None:
    firm.limit("A1", "net_position", 100, symbol="AAPL", warn_pct=80)
    firm.hold("A1", "AAPL", 79)
    assert job("tell_warnings") == 0
    firm.hold("A1", "AAPL", 1)
    assert job("tell_warnings") == 1
    assert warned(firm) == [("A1", "net_position", "WARN")]
    (alert,) = firm.alerts("limit_warning")
    assert (alert["symbol"], alert["utilization_pct"]) == ("AAPL", "80.00")
    for change, expected in ((40, 0), (-45, 0), (10, 0), (-11, 0), (6, 1)):
        # 120 (a breach), 75 (not below 75 yet), 85, 74 (armed again), 80
        firm.hold("A1", "AAPL", change)
        assert job("tell_warnings") == expected, change
    assert len(warned(firm)) == 2


def test_a_limit_that_is_breached_at_once_is_alerted_and_one_removed_is_forgotten(
    firm: Caller, job: Callable[[str], int]
) -> None:
    firm.hold("A1", "AAPL", 5)
    firm.limit("A1", "net_position", 0, symbol="AAPL")
    firm.limit("D1", "gross_position", 4)
    assert job("tell_warnings") == 2
    assert sorted(warned(firm)) == [
        ("A1", "net_position", "BREACH"),
        ("D1", "gross_position", "BREACH"),
    ]
    firm.call("remove_limit", scope="D1", limit_type="gross_position", reason="no longer")
    assert job("tell_warnings") == 0
    firm.limit("D1", "gross_position", 4)
    assert job("tell_warnings") == 1


# -- revaluation, recounts and refreshes -----------------------------------------------------


def test_a_revaluation_rests_for_what_it_owes_above_a_third_of_a_second(firm: Caller) -> None:
    owed = "select risk_private.rested(%s, %s, clock_timestamp() - %s * interval '1 second')"
    assert 0.1 <= firm.value(owed, 0.5, 0, 0.1) < 0.3
    assert 0.2 <= firm.value(owed, 0.5, 0.1, 0.1) < 0.3
    assert firm.value(owed, 1, 0, 10) == 0
    before = firm.value("select clock_timestamp()")
    assert firm.value(owed, 0.5, 0.2, 0.2) == 0.3
    assert firm.value("select clock_timestamp()") - before >= timedelta(seconds=0.1)


def test_drift_halts_its_scope_is_told_once_and_stays(
    firm: Caller, context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    firm.check("A1", "1", "AAPL", "buy", 1, 100)
    reconciliation(context)
    assert capsys.readouterr().out == ""
    firm.rows(
        """update risk_private.counters as c set open_orders = c.open_orders + 1
           from risk_private.scopes as s where s.scope_id = c.scope_id and s.code = 'D1'
             and c.dimension = 0"""
    )
    for _ in range(2):
        reconciliation(context)
    assert '"drift"' in capsys.readouterr().out
    (alert,) = firm.alerts("drift")
    assert (alert["scope"], alert["measure"]) == ("D1", "open_orders")
    (trip,) = firm.alerts("scope_tripped")
    assert (trip["scope"], trip["state"]) == ("D1", "HALTED")
    assert len(firm.differences()) == 1
    assert firm.check("A1", "2", "AAPL", "buy", 1, 100).reason == "TRADING_HALTED"
    assert firm.check("B1", "1", "AAPL", "buy", 1, 100).is_accepted


def test_materialized_views_are_refreshed_beside_their_readers(
    db: Database, firm: Caller, context: Context
) -> None:
    firm.rows(
        """set role risk_owner;
           create materialized view risk.trade_count as
             select 1 as id, count(*) as trades from risk_private.fills with no data;
           create unique index on risk.trade_count (id);
           reset role"""
    )
    views(context)
    count = "select trades from risk.trade_count"
    assert firm.value(count) == 0
    firm.hold("A1", "AAPL", 1)
    with db.connect(autocommit=False) as reader:
        assert reader.execute(count).fetchone() == (0,)
        views(context)
        assert reader.execute(count).fetchone() == (1,)
    with pytest.raises(psycopg.Error, match="no materialized view"):
        context.value("refresh_view", "positions")


def test_a_job_that_fails_is_logged_and_counted(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(context: Context) -> None:
        context.connection.execute("select 1 / 0")

    assert run(Job("broken", 1, broken), context) is False
    assert '"division by zero"' in capsys.readouterr().out.replace("22012 ", "")
    assert b'pgrisk_worker_jobs_total{job="broken",outcome="failed"} 1.0' in (
        context.metrics.render()
    )


def test_a_job_that_is_woken_while_it_runs_runs_again_within_its_share_of_the_time(
    db: Database, context: Context
) -> None:
    runs: list[tuple[float, float]] = []

    def busy(context: Context) -> None:
        began = time.monotonic()
        context.connection.execute("select pg_sleep(0.05)")
        if len(runs) < 4:
            background.wake("busy")
        runs.append((began, time.monotonic()))

    jobs = (Job("busy", 3600, busy, share=0.5),)
    background = Background(db.url, context.epoch, jobs, context.metrics, context.log, print)
    background.start()
    try:
        wait_until(lambda: len(runs) == 5)
    finally:
        background.stop()
    for (began, ended), (next_began, _) in pairwise(runs):
        assert next_began - ended >= ended - began
