"""risk.portfolio_greeks, added up again in Python from positions and marks."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests.orders import LEAVES, OPTIONS, Caller, Row, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
GREEKS = ("delta", "gamma", "vega", "theta", "rho")
PATHS = {
    "A1": ("A1", "D1", "F"),
    "A2": ("A2", "D1", "F"),
    "B1": ("B1", "D2", "F"),
    "S1": ("S1", "B2", "D2", "F"),
    "S2": ("S2", "B2", "D2", "F"),
}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        yield caller


def mark(firm: Caller, symbol: str, price: float, *greeks: float) -> None:
    arrays = [[value] for value in (greeks or [None] * 5)]
    firm.rows(
        """call risk.set_marks(%s, %s::numeric[], null, null, array[0.2], %s::float8[],
           %s::float8[], %s::float8[], %s::float8[], %s::float8[])""",
        [symbol],
        [str(price)],
        *arrays,
    )


def greeks(firm: Caller, scope: str, underlying: str | None) -> Row:
    (row,) = firm.rows(
        """select * from risk.portfolio_greeks
           where scope = %s and underlying is not distinct from %s""",
        scope,
        underlying,
    )
    return row


def test_they_are_the_sums_over_positions_of_every_scope(firm: Caller) -> None:
    chance = random.Random(4)
    spots = {"AAPL": 103.5, "MSFT": 52.25}
    values: dict[str, tuple[float, ...]] = {}
    for symbol, spot in spots.items():
        mark(firm, symbol, spot)
        values[symbol] = (1.0, 0.0, 0.0, 0.0, 0.0)
    for symbol in OPTIONS:
        values[symbol] = tuple(round(chance.uniform(-1, 1), 4) for _ in GREEKS)
        mark(firm, symbol, 5, *values[symbol])
    sums: dict[tuple[str, str | None], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for account in LEAVES:
        for symbol in chance.sample(sorted(values), 4):
            quantity = chance.choice([-7, -2, 3, 11])
            firm.hold(account, symbol, quantity)
            underlying = symbol.split()[0]
            shares = quantity * (100 if symbol in OPTIONS else 1)
            spot = spots[underlying]
            for scope in PATHS[account]:
                for key in (underlying, None):
                    of = sums[scope, key]
                    for name, value in zip(GREEKS, values[symbol], strict=True):
                        of[name] += shares * value
                    of["dollar_delta"] += shares * values[symbol][0] * spot
                    of["dollar_gamma"] += shares * values[symbol][1] * spot**2 / 100
    firm.check("A1", "1", "AAPL", "buy", 1000, 103)  # open orders are not in it
    rows = firm.rows("select * from risk.portfolio_greeks")
    assert {(row["scope"], row["underlying"]) for row in rows} == set(sums)
    for row in rows:
        expected = dict(sums[row["scope"], row["underlying"]])
        if row["underlying"] is None:
            assert (row["delta"], row["gamma"]) == (None, None)
            del expected["delta"], expected["gamma"]
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-9)
        assert (row["unknown"], row["as_of"]) == (0, NOW)


def test_money_is_in_the_base_currency(firm: Caller) -> None:
    firm.call("set_fx", currency="EUR", rate=Decimal("1.25"))
    sap = {"symbol": "SAP", "kind": "stock", "currency": "EUR"}
    option = {"symbol": "SAP C", "kind": "option", "underlying": "SAP", "currency": "EUR"}
    option |= {"expiry": "2026-06-19", "strike": "200", "option_right": "call"}
    firm.call("upsert_instruments", instruments=Jsonb([sap, option]))
    mark(firm, "SAP", 200)
    mark(firm, "SAP C", 8, 0.5, 0.01, 0.3, -0.1, 0.2)
    firm.hold("A1", "SAP C", 2)
    row = greeks(firm, "F", "SAP")
    expected = {"delta": 100, "gamma": 2, "vega": 75, "theta": -25, "rho": 50}
    expected |= {"dollar_delta": 25_000, "dollar_gamma": 1_000}
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_what_is_unknown_is_counted_and_not_taken_for_nothing(firm: Caller) -> None:
    firm.call("upsert_instruments", instruments=Jsonb([{"symbol": "NEW", "kind": "stock"}]))
    option = {"symbol": "N", "kind": "option", "underlying": "NEW", "expiry": "2026-06-19"}
    firm.call(
        "upsert_instruments", instruments=Jsonb([option | {"strike": 9, "option_right": "put"}])
    )
    mark(firm, "N", 2)  # NEW has no mark, so there are no Greeks
    firm.hold("A1", "N", 3)
    firm.hold("A2", "N", 3)
    firm.hold("A1", "XOM", 5)
    assert greeks(firm, "F", "NEW")["unknown"] == 2
    assert greeks(firm, "F", "NEW")["dollar_delta"] is None
    total = greeks(firm, "F", None)
    assert (total["unknown"], total["dollar_delta"]) == (2, 5 * 80)


def test_the_expired_has_no_greeks(db: Database, firm: Caller) -> None:
    option = {"symbol": "E", "kind": "option", "underlying": "AAPL", "expiry": "2026-03-02"}
    firm.call(
        "upsert_instruments", instruments=Jsonb([option | {"strike": 90, "option_right": "call"}])
    )
    mark(firm, "E", 10, 1, 0, 0, 0, 0)
    firm.hold("A1", "E", 1)
    assert greeks(firm, "A1", "AAPL")["delta"] == 100
    db.set_clock(NOW + timedelta(days=1))
    row = greeks(firm, "A1", "AAPL")
    assert (row["delta"], row["unknown"], row["as_of"]) == (0, 0, NOW)


def test_scopes_without_positions_have_none(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 5)
    firm.hold("A1", "AAPL", -5)
    firm.check("A1", "1", "AAPL", "buy", 5, 100)
    assert firm.rows("select * from risk.portfolio_greeks") == []
