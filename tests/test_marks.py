"""Marks: bad rows refused one by one, Greeks computed where the feed sends none, ticks."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import QuantLib
from psycopg.types.json import Jsonb

from tests.orders import Caller, callers, each_at_once, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.databases import Database

    Mark = dict[str, Any]

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)  # 10:00 in New York, six hours before the close
SECOND = timedelta(seconds=1)
GREEKS = ("delta", "gamma", "vega", "theta", "rho")


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        add_option(caller, "C", "2026-03-20", "call", 100)
        add_option(caller, "P", "2026-03-20", "put", 95)
        yield caller
        assert caller.differences() == []


def add_option(
    firm: Caller, symbol: str, expiry: str, right: str, strike: int, underlying: str = "AAPL"
) -> None:
    terms = {"symbol": symbol, "expiry": expiry, "option_right": right, "strike": strike}
    option = terms | {"kind": "option", "underlying": underlying}
    firm.call("upsert_instruments", instruments=Jsonb([option]))


def feed(firm: Caller, marks: dict[str, Sequence[object]], **rest: object) -> list[Mark] | None:
    """Set marks of {symbol: (price, bid, ask, iv, delta, gamma, vega, theta, rho)}; its report."""
    rows = [[*row, *[None] * (9 - len(row))] for row in marks.values()]
    columns = [
        [None if value is None else str(value) for value in column]
        for column in zip(*rows, strict=True)
    ]
    row = firm.rows(
        """call risk.set_marks(%s::text[], %s::numeric[], %s::numeric[], %s::numeric[],
           %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],
           %s::timestamptz)""",
        list(marks),
        *columns,
        rest.get("as_of"),
    )[0]
    report: list[Mark] | None = row["report"]
    return report


def mark(firm: Caller, symbol: str) -> Mark:
    (row,) = firm.rows("select * from risk.marks where symbol = %s", symbol)
    return row


def expected(
    kind: str, strike: float, volatility: float, days: float, spot: float = 100, **terms: float
) -> dict[str, float]:
    """QuantLib's values, by day count and units of the engine."""
    rate, dividend, years = terms.get("rate", 0), terms.get("dividend", 0), days / 365
    right = QuantLib.Option.Call if kind == "call" else QuantLib.Option.Put
    black = QuantLib.BlackCalculator(
        QuantLib.PlainVanillaPayoff(right, strike),
        spot * math.exp((rate - dividend) * years),
        volatility * math.sqrt(years),
        math.exp(-rate * years),
    )
    return {
        "price": black.value(),
        "delta": black.delta(spot),
        "gamma": black.gamma(spot),
        "vega": black.vega(years) / 100,
        "theta": black.theta(spot, years) / 365,
        "rho": black.rho(years) / 100,
    }


def greeks(row: Mark) -> dict[str, float]:
    return {name: row[name] for name in GREEKS}


def approx(values: dict[str, float]) -> Any:
    return pytest.approx({name: values[name] for name in GREEKS}, rel=1e-8)


@pytest.mark.parametrize(
    ("symbol", "row", "problem"),
    [
        ("NOPE", (10,), "unknown symbol"),
        ("AAPL", (None,), "price is missing"),
        ("AAPL", ("NaN",), "finite"),
        ("AAPL", ("Infinity",), "finite"),
        ("AAPL", (0,), "above 0"),
        ("AAPL", (-1,), "above 0"),
        ("AAPL", (10, 0, 11), "above 0"),
        ("AAPL", (10, "NaN", 11), "finite"),
        ("AAPL", (10, 9, "Infinity"), "finite"),
        ("AAPL", (10, 11, 9), "crossed"),
        ("C", (10, None, None, -0.1), "negative"),
        ("C", (10, None, None, "NaN"), "finite"),
        ("C", (10, None, None, 0.2, "NaN"), "finite"),
        ("C", (10, None, None, 0.2, 0.5, "Infinity"), "finite"),
        ("C", (10, None, None, 0.2, 0.5, 0.1, "-Infinity"), "finite"),
        ("C", (10, None, None, 0.2, 0.5, 0.1, 0.1, "NaN"), "finite"),
        ("C", (10, None, None, 0.2, 0.5, 0.1, 0.1, 0.1, "NaN"), "finite"),
    ],
)
def test_a_bad_row_is_refused_with_a_report_and_the_rest_applied(
    firm: Caller, symbol: str, row: tuple[object, ...], problem: str
) -> None:
    before = firm.rows("select * from risk.marks where symbol = %s", symbol)
    report = feed(firm, {"MSFT": (51, 50, 52), symbol: row, "XOM": (81,)}, as_of=NOW + SECOND)
    assert report is not None
    assert [(r["row"], r["symbol"]) for r in report] == [(2, symbol)]
    assert problem in report[0]["problem"]
    assert (mark(firm, "MSFT")["bid"], mark(firm, "XOM")["price"]) == (50, 81)
    assert firm.rows("select * from risk.marks where symbol = %s", symbol) == before


def test_nothing_to_report_where_all_rows_are_good(firm: Caller) -> None:
    assert feed(firm, {"MSFT": (51,), "XOM": (81,)}) is None


def test_a_batch_without_a_good_row_is_an_error_that_names_them(firm: Caller) -> None:
    with pytest.raises(psycopg.Error, match="no mark could be set") as caught:
        feed(firm, {"NOPE": (1,), "AAPL": (-1,)})
    assert caught.value.sqlstate == "RK400"
    assert "NOPE" in (caught.value.diag.message_detail or "")
    assert mark(firm, "AAPL")["price"] == 100


def test_a_symbol_that_stands_twice_is_refused_in_both_rows(firm: Caller) -> None:
    row = firm.call(
        "set_marks", symbols=["AAPL", "XOM", "AAPL"], prices=[Decimal(n) for n in (101, 81, 102)]
    )
    assert [r["row"] for r in row["report"]] == [1, 3]
    assert (mark(firm, "AAPL")["price"], mark(firm, "XOM")["price"]) == (100, 81)


def test_time_does_not_go_backwards(firm: Caller) -> None:
    feed(firm, {"AAPL": (101,)}, as_of=NOW + 2 * SECOND)
    report = feed(firm, {"NOPE": (1,), "AAPL": (99,), "XOM": (79,)}, as_of=NOW + SECOND)
    assert report is not None
    assert [(r["row"], r["problem"]) for r in report] == [
        (1, "unknown symbol"),
        (2, "older than the stored mark"),
    ]
    assert (mark(firm, "AAPL")["price"], mark(firm, "XOM")["price"]) == (101, 79)
    assert feed(firm, {"AAPL": (103,)}, as_of=NOW + 2 * SECOND) is None  # as old: the later word


def test_a_mark_from_the_future_would_keep_out_all_others(firm: Caller) -> None:
    for call in (
        lambda at: feed(firm, {"AAPL": (101,)}, as_of=at),
        lambda at: firm.call("remark_underlying", symbol="AAPL", price=101, as_of=at),
    ):
        with pytest.raises(psycopg.Error, match="future") as caught:
            call(NOW + timedelta(minutes=2))
        assert caught.value.sqlstate == "RK400"
        call(NOW + timedelta(minutes=1))


def test_a_price_may_be_negative_where_the_instrument_allows_it(firm: Caller) -> None:
    oil = {"symbol": "CL", "kind": "future", "allow_negative_price": True}
    firm.call("upsert_instruments", instruments=Jsonb([oil]))
    assert feed(firm, {"CL": ("-37.63", "-40", "-37")}) is None
    assert mark(firm, "CL")["price"] == Decimal("-37.63")


def test_missing_greeks_are_computed_from_the_volatility(firm: Caller) -> None:
    """Eighteen days and six hours to the close on expiry day, at the mark of the same batch."""
    feed(firm, {"C": (2, None, None, 0.25), "P": (1, None, None, 0.3), "AAPL": (98,)})
    days = 18 + 6 / 24
    assert greeks(mark(firm, "C")) == approx(expected("call", 100, 0.25, days, spot=98))
    assert greeks(mark(firm, "P")) == approx(expected("put", 95, 0.3, days, spot=98))
    assert mark(firm, "C")["price"] == 2  # the feed's, not the model's
    assert mark(firm, "C")["volatility_as_of"] == NOW


def test_a_missing_volatility_is_read_out_of_the_price(firm: Caller) -> None:
    values = expected("call", 100, 0.4, 18.25)
    feed(firm, {"C": (Decimal(str(values["price"])),)})
    row = mark(firm, "C")
    assert row["implied_volatility"] == pytest.approx(0.4, rel=1e-9)
    assert greeks(row) == approx(values)


def test_greeks_of_the_feed_are_kept_and_only_what_lacks_is_computed(firm: Caller) -> None:
    feed(firm, {"C": (3, None, None, 0.2, 0.5, 0.01, 0.1, -0.05, 0.02)})
    assert greeks(mark(firm, "C")) == dict(zip(GREEKS, (0.5, 0.01, 0.1, -0.05, 0.02), strict=True))
    feed(firm, {"C": (3, None, None, 0.2, 0.6)})
    values = expected("call", 100, 0.2, 18.25) | {"delta": 0.6}
    assert greeks(mark(firm, "C")) == approx(values)


def test_greeks_stay_unknown_where_nothing_tells_them(firm: Caller) -> None:
    firm.call("upsert_instruments", instruments=Jsonb([{"symbol": "NEW", "kind": "stock"}]))
    add_option(firm, "N", "2026-03-20", "call", 100, underlying="NEW")
    feed(firm, {"N": (3, None, None, 0.2), "C": (100,)})  # no spot; worth as much as the share
    for symbol in ("N", "C"):
        assert greeks(mark(firm, symbol)) == dict.fromkeys(GREEKS)
    feed(firm, {"C": (Decimal("0.01"),), "AAPL": (120,)})  # below what exercise would bring
    assert mark(firm, "C")["implied_volatility"] == 0
    assert mark(firm, "C")["delta"] == 1


@pytest.mark.parametrize(
    ("trading_date", "at", "days"),
    [
        ("2026-03-02", NOW, 18.25),
        ("2026-03-02", NOW + timedelta(hours=7), 18),  # after the close
        ("2026-03-06", datetime(2026, 3, 6, 20, 0, tzinfo=UTC), 14 + 1 / 24),
        ("2026-03-09", datetime(2026, 3, 9, 19, 0, tzinfo=UTC), 11 + 1 / 24),  # summer time
        ("2026-03-04", NOW, 16),  # the clock shows another date: from the close
    ],
)
def test_time_runs_to_the_close_on_expiry_day_from_the_trading_date(
    db: Database, firm: Caller, trading_date: str, at: datetime, days: float
) -> None:
    firm.call("open_day", day=trading_date)
    db.set_clock(at)
    feed(firm, {"C": (3, None, None, 0.25)})
    assert greeks(mark(firm, "C")) == approx(expected("call", 100, 0.25, days))


def test_expiry_day_and_after(db: Database, firm: Caller) -> None:
    """At the close there is only intrinsic value; on the next trading date, nothing."""
    firm.call("open_day", day="2026-03-20")
    db.set_clock(datetime(2026, 3, 20, 20, 0, tzinfo=UTC))
    feed(firm, {"AAPL": (110,), "C": (10,), "P": (Decimal("0.01"), None, None, 0.3)})
    assert greeks(mark(firm, "C")) == {"delta": 1} | dict.fromkeys(GREEKS[1:], 0)
    assert greeks(mark(firm, "P")) == dict.fromkeys(GREEKS, 0)
    firm.call("open_day", day="2026-03-23")
    feed(firm, {"C": (10, None, None, 0.3)})
    assert greeks(mark(firm, "C")) == dict.fromkeys(GREEKS, 0)


def test_rate_and_dividends_are_settings_and_a_yield_may_be_the_underlyings(firm: Caller) -> None:
    firm.call("set_setting", name="risk_free_rate", value="0.05")
    firm.call("set_setting", name="dividend_yield", value="0.02")
    feed(firm, {"C": (3, None, None, 0.25)})
    values = expected("call", 100, 0.25, 18.25, rate=0.05, dividend=0.02)
    assert greeks(mark(firm, "C")) == approx(values)
    aapl = {"symbol": "AAPL", "kind": "stock", "sector": "Tech", "dividend_yield": 0.1}
    firm.call("upsert_instruments", instruments=Jsonb([aapl]))
    feed(firm, {"C": (3, None, None, 0.25)})
    values = expected("call", 100, 0.25, 18.25, rate=0.05, dividend=0.1)
    assert greeks(mark(firm, "C")) == approx(values)
    assert firm.value("select dividend_yield from risk.instruments where symbol = 'AAPL'") == 0.1


def test_an_option_on_a_future_costs_no_carry(firm: Caller) -> None:
    firm.call("set_setting", name="risk_free_rate", value="0.05")
    firm.call("upsert_instruments", instruments=Jsonb([{"symbol": "ES", "kind": "future"}]))
    add_option(firm, "E", "2026-03-20", "put", 100, underlying="ES")
    feed(firm, {"ES": (100,), "E": (3, None, None, 0.25)})
    values = expected("put", 100, 0.25, 18.25, rate=0.05, dividend=0.05)
    assert greeks(mark(firm, "E")) == approx(values)


@pytest.mark.parametrize(
    ("name", "value", "scope"),
    [
        ("risk_free_rate", "11", None),
        ("dividend_yield", "NaN", None),
        ("risk_free_rate", "0.05", "F"),
    ],
)
def test_impossible_rates_are_refused(
    firm: Caller, name: str, value: str, scope: str | None
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        firm.call("set_setting", name=name, value=value, scope=scope)
    assert caught.value.sqlstate == "RK400"


def test_a_tick_marks_the_options_of_the_underlying_anew(firm: Caller) -> None:
    feed(firm, {"C": (3, 2, 4, 0.25), "P": (1, 1, 2, 0.3), "AAPL C100": (5, None, None, 0.2)})
    firm.hold("A1", "C", 10)
    firm.hold("B1", "P", -4)
    firm.check("A1", "1", "P", "buy", 2, 1)
    at = NOW + SECOND
    row = firm.call("remark_underlying", symbol="AAPL", price=103, bid=102, ask=104, as_of=at)
    assert row["instruments_marked"] == 8  # AAPL, and the firm's own five options
    assert (mark(firm, "AAPL")["price"], mark(firm, "AAPL")["bid"]) == (103, 102)
    for symbol, values in {
        "C": expected("call", 100, 0.25, 18.25 - 1 / 86400, spot=103),
        "P": expected("put", 95, 0.3, 18.25 - 1 / 86400, spot=103),
    }.items():
        found = mark(firm, symbol)
        assert float(found["price"]) == pytest.approx(values["price"], abs=1e-8)
        assert greeks(found) == approx(values)
        assert (found["bid"], found["ask"]) == (None, None)
        assert (found["as_of"], found["volatility_as_of"]) == (at, NOW)
    value = {r["symbol"]: r for r in firm.rows("select * from risk.positions")}
    assert value["C"]["market_value"] == 10 * 100 * mark(firm, "C")["price"]


def test_a_tick_leaves_alone_what_is_newer_has_no_volatility_or_has_expired(firm: Caller) -> None:
    add_option(firm, "NEVER", "2026-03-20", "call", 100)
    add_option(firm, "OLD", "2026-02-27", "call", 90)
    feed(firm, {"NEVER": (100,), "OLD": (10, None, None, 0.2), "P": (1, None, None, 0.3)})
    feed(firm, {"C": (3, 2, 4, 0.25)}, as_of=NOW + 2 * SECOND)
    before = {symbol: mark(firm, symbol) for symbol in ("NEVER", "OLD", "C")}
    firm.call("remark_underlying", symbol="AAPL", price=103, as_of=NOW + SECOND)
    assert {symbol: mark(firm, symbol) for symbol in before} == before
    assert mark(firm, "P")["as_of"] == NOW + SECOND


@pytest.mark.parametrize(
    ("tick", "code"),
    [
        ({"symbol": "NOPE", "price": 1}, "RK404"),
        ({"symbol": "C", "price": 1}, "RK400"),
        ({"symbol": "AAPL", "price": -1}, "RK400"),
        ({"symbol": "AAPL", "price": 100, "bid": 101, "ask": 99}, "RK400"),
        ({"symbol": "AAPL", "price": 100, "as_of": NOW - SECOND}, "RK400"),
    ],
)
def test_a_bad_tick_is_an_error_and_changes_nothing(
    firm: Caller, tick: dict[str, object], code: str
) -> None:
    before = firm.rows("select * from risk.marks order by symbol")
    with pytest.raises(psycopg.Error) as caught:
        firm.call("remark_underlying", **tick)
    assert caught.value.sqlstate == code
    assert firm.rows("select * from risk.marks order by symbol") == before


def test_feeds_that_overlap_wait_for_each_other_and_none_deadlocks(
    db: Database, firm: Caller
) -> None:
    symbols = ["AAPL", "C", "P", "MSFT", "XOM"]
    firm.hold("A1", "C", 10)

    def run(caller: Caller) -> None:
        chance = random.Random(caller.number)
        for _ in range(30):
            if chance.random() < 0.3:
                caller.call("remark_underlying", symbol="AAPL", price=chance.randint(90, 110))
            else:
                some = chance.sample(symbols, 4)
                caller.mark({symbol: chance.randint(1, 9) for symbol in some})

    with callers(db, 4) as feeds:
        each_at_once(feeds, run)
    assert firm.value("select count(*) from risk.marks where symbol = any (%s)", symbols) == 5
