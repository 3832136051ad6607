"""Daily closes, returns and correlations, recomputed in Python."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise, permutations
from statistics import correlation
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.orders import Caller, callers, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.databases import Database

    Closes = Mapping[date, float]

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
FIRST = date(2025, 9, 1)


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        yield caller


def load(firm: Caller, history: Mapping[str, Closes]) -> None:
    rows = [(s, day, str(close)) for s, closes in history.items() for day, close in closes.items()]
    columns = [list(column) for column in zip(*rows, strict=True)]
    row = firm.rows("call risk.load_closes(%s::text[], %s::date[], %s::numeric[])", *columns)[0]
    assert row["loaded"] == len(rows)


def wave(days: int, pace: float, skip: frozenset[int] = frozenset()) -> dict[date, float]:
    """Closes that go up and down, on consecutive days."""
    return {
        FIRST + timedelta(days=n): round(100 + 10 * math.sin(pace * n) + n / 7, 4)
        for n in range(days)
        if n not in skip
    }


def returns(closes: Closes) -> dict[tuple[date, date], float]:
    """Log returns by the days that they span."""
    days = sorted(closes)
    return {(a, b): math.log(closes[b] / closes[a]) for a, b in pairwise(days)}


def matrix(firm: Caller) -> dict[tuple[str, str], float]:
    firm.call("refresh_views")
    return {
        (row["underlying"], row["other"]): row["correlation"]
        for row in firm.rows("select * from risk.correlation_matrix")
    }


def pearson(one: Closes, other: Closes, window: int = 60) -> float:
    a, b = returns(one), returns(other)
    days = sorted({day for closes in (one, other) for day in closes})[-window - 1 :]
    common = [span for span in a.keys() & b.keys() if span[0] >= days[0]]
    return correlation([a[span] for span in common], [b[span] for span in common])


def test_correlations_of_held_underlyings_are_pearsons(firm: Caller) -> None:
    history = {"AAPL": wave(90, 0.7), "MSFT": wave(90, 1.1), "XOM": wave(90, 0.4)}
    load(firm, history)
    firm.hold("A1", "AAPL C100", 3)  # through an option
    firm.hold("S1", "MSFT", -5)
    firm.hold("A2", "XOM", 5)
    found = matrix(firm)
    assert set(found) == set(permutations(history, 2))
    for (one, other), value in found.items():
        assert value == pytest.approx(pearson(history[one], history[other]), rel=1e-9)
    (row,) = firm.rows(
        "select * from risk.correlation_matrix where underlying = 'AAPL' and other = 'XOM'"
    )
    assert (row["days"], row["last_day"], row["as_of"]) == (60, max(history["XOM"]), NOW)
    assert row["first_day"] == row["last_day"] - timedelta(days=59)


def test_what_is_not_held_has_no_correlation(firm: Caller) -> None:
    load(firm, {"AAPL": wave(60, 0.7), "MSFT": wave(60, 1.1), "XOM": wave(60, 0.4)})
    firm.hold("A1", "AAPL", 3)
    firm.check("A1", "1", "MSFT", "buy", 5, 50)
    firm.hold("A1", "XOM", 3)
    firm.hold("A1", "XOM", -3)
    assert matrix(firm) == {}


@pytest.mark.parametrize(
    ("other", "is_pair"),
    [
        (wave(21, 0.4), True),
        (wave(20, 0.4), False),  # 19 returns
        (dict.fromkeys(wave(60, 0.4), 50.0), False),
        ({day: 50 * 1.001**n for n, day in enumerate(wave(60, 0.4))}, False),
    ],
    ids=["twenty days", "too few", "no change", "no variance"],
)
def test_a_pair_needs_twenty_common_days_and_variance(
    firm: Caller, other: Closes, is_pair: bool
) -> None:
    load(firm, {"AAPL": wave(60, 0.7), "XOM": other})
    firm.hold("A1", "AAPL", 1)
    firm.hold("A1", "XOM", 1)
    assert bool(matrix(firm)) == is_pair


def test_a_return_over_a_gap_is_compared_with_none_that_is_shorter(firm: Caller) -> None:
    history = {"AAPL": wave(61, 0.7), "XOM": wave(61, 0.4, skip=frozenset({10, 30, 31}))}
    load(firm, history)
    firm.hold("A1", "AAPL", 1)
    firm.hold("A1", "XOM", 1)
    found = matrix(firm)
    assert found["AAPL", "XOM"] == pytest.approx(pearson(history["AAPL"], history["XOM"]), rel=1e-9)
    days = firm.value("select days from risk.correlation_matrix where underlying = 'XOM'")
    assert days == 60 - 2 - 3  # each gap takes its days and the longer return after it


def test_return_history_has_every_return_of_a_year(firm: Caller) -> None:
    closes = {date(2024, 1, 2): 10.0} | wave(5, 0.7)
    load(firm, {"AAPL": closes})
    firm.call("refresh_views")
    rows = firm.rows("select * from risk.return_history order by day")
    assert [row["day"] for row in rows] == sorted(wave(5, 0.7))
    for row in rows:
        assert (row["underlying"], float(row["close"])) == ("AAPL", closes[row["day"]])
        expected = returns(closes)[row["previous_day"], row["day"]]
        assert row["log_return"] == pytest.approx(expected, rel=1e-12)


def test_the_roll_of_the_day_keeps_the_closes_of_what_was_marked(
    db: Database, firm: Caller
) -> None:
    db.set_clock(NOW + timedelta(minutes=1))
    firm.call("open_day", day="2026-03-02")  # nothing closes before the first day
    db.set_clock(NOW + timedelta(hours=1))
    firm.mark({"AAPL": 101, "AAPL C100": 6})
    firm.call("open_day", day="2026-03-02")
    firm.mark({"AAPL": 104, "MSFT": 52})
    db.set_clock(NOW + timedelta(days=1))
    firm.call("open_day", day="2026-03-03")
    db.set_clock(NOW + timedelta(days=2))  # only AAPL is marked on this day
    firm.mark({"AAPL": 99})
    firm.call("open_day", day="2026-03-04")
    firm.call("refresh_views")
    rows = firm.rows("select * from risk.return_history order by underlying, day")
    monday, tuesday = date(2026, 3, 2), date(2026, 3, 3)
    assert [(r["underlying"], r["day"], r["close"]) for r in rows] == [
        ("AAPL", monday, 104),
        ("AAPL", tuesday, 99),
        ("MSFT", monday, 52),
    ]
    assert rows[1]["log_return"] == pytest.approx(math.log(99 / 104), rel=1e-12)


def test_a_split_leaves_returns_as_they_were(firm: Caller) -> None:
    load(firm, {"AAPL": wave(40, 0.7), "XOM": wave(40, 0.4)})
    firm.hold("A1", "AAPL", 1)
    firm.hold("A1", "XOM", 1)
    before = matrix(firm)
    firm.rows(
        """select risk_private.adjust_closes(i.instrument_id, 4)
           from risk_private.instruments as i where i.symbol = 'AAPL'"""
    )
    assert matrix(firm) == pytest.approx(before, rel=1e-9)
    close = firm.value(
        "select close from risk.return_history where underlying = 'AAPL' and day = %s", FIRST
    )
    assert close == 25


@pytest.mark.parametrize(
    ("rows", "code", "told"),
    [
        ([("AAPL", "2026-01-02", 1), ("NOPE", "2026-01-02", 1)], "RK404", "row 2"),
        ([("AAPL C100", "2026-01-02", 1)], "RK400", "option"),
        ([("AAPL", "2026-01-02", 0)], "RK400", "close"),
        ([("AAPL", "2026-01-02", "NaN")], "RK400", "close"),
        ([("AAPL", "2026-03-03", 1)], "RK400", "day"),
        ([("AAPL", None, 1)], "RK400", "day"),
        ([("AAPL", "2026-01-02", 1), ("AAPL", "2026-01-02", 2)], "RK400", "twice"),
        ([], "RK400", "same length"),
    ],
)
def test_bad_history_is_refused_as_a_whole(
    firm: Caller, rows: list[tuple[str, str | None, object]], code: str, told: str
) -> None:
    columns = [list(map(str, column)) for column in zip(*rows, strict=True)] or [[], [], []]
    columns[1] = [day if day != "None" else None for day in columns[1]]  # type: ignore[misc]
    with pytest.raises(psycopg.Error, match=told) as caught:
        firm.rows("call risk.load_closes(%s::text[], %s::date[], %s::numeric[])", *columns)
    assert caught.value.sqlstate == code
    assert firm.rows("select * from risk_private.closes") == []


def test_readers_go_on_while_views_are_refreshed(db: Database, firm: Caller) -> None:
    load(firm, {"AAPL": wave(30, 0.7)})
    with callers(db, 1) as (reader,), reader.connection.transaction():
        reader.rows("select * from risk.return_history")  # holds its lock to the end
        firm.rows("set lock_timeout = '2s'")
        firm.call("refresh_views")
    assert firm.value("select count(*) from risk.return_history") == 30


def test_only_materialized_views_of_risk_can_be_refreshed(firm: Caller) -> None:
    with pytest.raises(psycopg.Error) as caught:
        firm.rows("select risk_private.refresh_materialized('positions')")
    assert caught.value.sqlstate == "RK404"
