"""risk.concentration and the dollar deltas of risk.exposure, added up again in Python."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests.orders import LEAVES, OPTIONS, STOCKS, Caller, Row, open_firm
from tests.test_greek_views import PATHS
from tests.test_money import post, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
ZERO = Decimal(0)
SPOTS = {"AAPL": Decimal("103.5"), "MSFT": Decimal("52.25"), "XOM": Decimal(80), "SAP": Decimal(40)}
RATES = defaultdict(lambda: Decimal(1), SAP=Decimal("1.25"))
SECTORS = STOCKS | {"SAP": "Tech"}
SIDES = ("net_exposure", "net_exposure_up", "net_exposure_down")


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        caller.call("set_fx", currency="EUR", rate=RATES["SAP"])
        sap = {"symbol": "SAP", "kind": "stock", "currency": "EUR", "sector": "Tech"}
        caller.call("upsert_instruments", instruments=Jsonb([sap]))
        yield caller
        assert caller.differences() == []


def underlying(symbol: str) -> str:
    return symbol.split()[0]


@dataclass
class Shadow:
    """What was held and ordered, told to nobody but this test."""

    deltas: dict[str, Decimal] = field(default_factory=dict)
    held: defaultdict[tuple[str, str], Decimal] = field(
        default_factory=lambda: defaultdict(lambda: ZERO)
    )
    orders: list[tuple[str, dict[str, Decimal]]] = field(default_factory=list)

    def unit(self, symbol: str) -> Decimal:
        base = underlying(symbol)
        multiplier = 100 if symbol in OPTIONS else 1
        return self.deltas.get(symbol, Decimal(1)) * multiplier * SPOTS[base] * RATES[base]

    def matches(self, symbol: str, key: str | None) -> bool:
        """A key is a symbol, an underlying, a sector, or None for all."""
        return key in (None, symbol, underlying(symbol), SECTORS[underlying(symbol)])

    def sides(self, scope: str, key: str | None) -> tuple[Decimal, Decimal, Decimal]:
        net = up = down = ZERO
        for (account, symbol), quantity in self.held.items():
            if scope in PATHS[account] and self.matches(symbol, key):
                net += quantity * self.unit(symbol)
        for account, legs in self.orders:
            if scope in PATHS[account]:
                effect = sum(
                    (
                        q * self.unit(symbol)
                        for symbol, q in legs.items()
                        if self.matches(symbol, key)
                    ),
                    ZERO,
                )
                up, down = up + max(ZERO, effect), down + min(ZERO, effect)
        return net, net + up, net + down

    def gross(self, scope: str, key: str | None) -> Decimal:
        total = ZERO
        for account in LEAVES:
            for symbol in (*SPOTS, *OPTIONS):
                if scope in PATHS[account] and self.matches(symbol, key):
                    mine = [
                        legs.get(symbol, ZERO) for owner, legs in self.orders if owner == account
                    ]
                    long = self.held[account, symbol] + sum(q for q in mine if q > 0)
                    short = self.held[account, symbol] + sum(q for q in mine if q < 0)
                    total += max(abs(long), abs(short)) * abs(self.unit(symbol))
        return total

    def keys(self, scope: str, per: str) -> set[str]:
        """The underlyings or sectors in which a scope holds anything or has an order."""
        symbols = {s for (a, s), q in self.held.items() if q != 0 and scope in PATHS[a]}
        symbols |= {s for a, legs in self.orders if scope in PATHS[a] for s in legs}
        bases = {underlying(symbol) for symbol in symbols}
        return bases if per == "underlying" else {SECTORS[base] for base in bases}


@pytest.fixture
def shadow(firm: Caller) -> Shadow:
    """Random positions, single orders and combos of every account."""
    chance = random.Random(8)
    shadow = Shadow()
    for symbol in OPTIONS:
        shadow.deltas[symbol] = Decimal(chance.randrange(-99, 100)) / 100
    number = len(OPTIONS)
    firm.mark(
        dict.fromkeys(OPTIONS, 5),
        deltas=[float(delta) for delta in shadow.deltas.values()],
        gammas=[0.01] * number,
        vegas=[0.1] * number,
        thetas=[-0.1] * number,
    )
    firm.mark(SPOTS)
    symbols = sorted((*SPOTS, *OPTIONS))
    for account in LEAVES:
        post(firm, account, 10_000, "deposit")
        for symbol in chance.sample(symbols, 4):
            quantity = chance.choice([-7, -2, 3, 11])
            trade(firm, account, symbol, quantity, 5 if symbol in OPTIONS else SPOTS[symbol])
            shadow.held[account, symbol] += quantity
        for _ in range(3):
            symbol, side = chance.choice(symbols), chance.choice(["buy", "sell"])
            name, quantity = firm.new_name(), chance.randrange(2, 9)
            assert firm.check(account, name, symbol, side, quantity).is_accepted
            firm.fill(account, name, firm.new_name(), 1, 5)
            sign = 1 if side == "buy" else -1
            shadow.held[account, symbol] += sign
            shadow.orders.append((account, {symbol: Decimal(sign * (quantity - 1))}))
        for first, second in (("AAPL C100", "AAPL P90"), ("AAPL C110", "MSFT"), ("XOM", "SAP")):
            ratio = chance.randrange(1, 4)
            legs = f"buy 1 {first}, sell {ratio} {second}"
            assert firm.combo(account, firm.new_name(), legs, 5).is_accepted
            shadow.orders.append((account, {first: Decimal(5), second: Decimal(-5 * ratio)}))
    return shadow


def sides(row: Row) -> tuple[Decimal, ...]:
    return tuple(row[side] for side in SIDES)


def test_concentration_is_of_every_scope_underlying_and_sector(
    firm: Caller, shadow: Shadow
) -> None:
    rows = firm.rows("select * from risk.concentration")
    pnl = {row["scope"]: row["equity"] for row in firm.rows("select * from risk.pnl")}
    expected = {
        (scope, per, key)
        for scope in pnl
        for per in ("underlying", "sector")
        for key in shadow.keys(scope, per)
    }
    found = {
        (row["scope"], per, row[per]): row
        for row in rows
        for per in ("underlying", "sector")
        if row[per] is not None
    }
    assert set(found) == expected
    assert len(rows) == len(expected)
    for (scope, per, key), row in found.items():
        net, up, down = shadow.sides(scope, key)
        assert sides(row) == (net, up, down)
        assert (row["equity"], row["unknown"], row["as_of"]) == (pnl[scope], 0, NOW)
        worst = max(abs(up), abs(down))
        assert row["concentration_pct"] == pytest.approx(
            worst * 100 / pnl[scope], abs=Decimal("1e-6")
        )
        larger = [
            other
            for other in shadow.keys(scope, per)
            if max(map(abs, shadow.sides(scope, other)[1:])) > worst
        ]
        assert row["rank"] == len(larger) + 1


def test_a_limit_shows_the_same_percentage(firm: Caller, shadow: Shadow) -> None:
    for scope in ("A1", "D1", "F"):
        firm.limit(scope, "concentration_pct", 10_000, underlying="AAPL")
        firm.limit(scope, "concentration_pct", 10_000, sector="Tech")
    rows = firm.rows(
        """select c.concentration_pct, l.worst_case, l.used, c.net_exposure, c.equity
           from risk.limit_utilization as l
           join risk.concentration as c on c.scope = l.scope
             and (c.underlying = l.underlying or c.sector = l.sector)
           where l.limit_type = 'concentration_pct'"""
    )
    assert len(rows) == 6
    for row in rows:
        assert row["concentration_pct"] == row["worst_case"]
        assert row["used"] == round(abs(row["net_exposure"]) * 100 / row["equity"], 6)


def test_exposure_shows_dollar_deltas_wherever_it_has_a_row(firm: Caller, shadow: Shadow) -> None:
    firm.limit("A1", "gross_position", 10**6, symbol="AAPL")
    firm.limit("D1", "gross_position", 10**6, underlying="AAPL")
    firm.limit("D2", "gross_position", 10**6, sector="Tech")
    rows = firm.rows("select * from risk.exposure")
    assert {(row["scope"], row["sector"]) for row in rows} >= {("D2", "Tech"), ("F", None)}
    for row in rows:
        key = row["underlying"] or row["sector"]
        if row["symbol"] is None:
            assert sides(row) == shadow.sides(row["scope"], key), row
            assert row["gross_exposure"] == shadow.gross(row["scope"], key), row
        assert row["unknown_greeks"] == 0


def test_totals_are_the_sums_of_what_is_held(firm: Caller, shadow: Shadow) -> None:
    """Three views, one number."""
    rows = firm.rows(
        """select x.scope, x.net_exposure, g.dollar_delta,
             (select sum(c.net_exposure) from risk.concentration as c
              where c.scope = x.scope and c.sector is null) as by_underlying
           from risk.exposure as x
           join risk.portfolio_greeks as g on g.scope = x.scope and g.underlying is null
           where num_nonnulls(x.symbol, x.underlying, x.sector) = 0"""
    )
    assert len(rows) == len({scope for path in PATHS.values() for scope in path})
    for row in rows:
        assert row["net_exposure"] == row["by_underlying"]
        assert row["dollar_delta"] == pytest.approx(float(row["net_exposure"]))


def test_they_are_what_decisions_go_by(firm: Caller, shadow: Shadow) -> None:
    for scope in ("A1", "D2", "F"):
        for key in ({}, {"sector": "Tech"}, {"underlying": "AAPL"}, {"symbol": "AAPL C100"}):
            firm.limit(scope, "net_exposure", 10**9, **key)
    firm.mark({"AAPL": 120, "MSFT": 45})
    (counts,) = firm.rows(
        """select count(*) as rows, count(*) filter (where
             (d.net, d.up, d.down, d.gross) is distinct from
             (x.dollar_delta, x.dollar_delta_up, x.dollar_delta_down, x.gross_exposure))
             as differences
           from risk_private.exposures as x
           left join risk_private.dollar_deltas as d on d.scope_id = x.scope_id
             and d.dimension = x.dimension and d.key_id = x.key_id
           where x.gross_exposure <> 0"""
    )
    assert counts["rows"] > 12
    assert counts["differences"] == 0


def test_what_is_unknown_is_counted_and_has_no_percentage(firm: Caller) -> None:
    post(firm, "A1", 1_000, "deposit")
    firm.call(
        "upsert_instruments",
        instruments=Jsonb(
            [
                {"symbol": "NEW", "kind": "stock", "sector": "Tech"},
                {"symbol": "N", "kind": "option", "underlying": "NEW", "expiry": "2026-06-19"}
                | {"strike": 9, "option_right": "put"},
            ]
        ),
    )
    firm.mark({"N": 2})  # NEW has no mark, so there are no Greeks
    firm.hold("A1", "N", 3)
    firm.hold("A1", "MSFT", 4)
    columns = ("net_exposure", "concentration_pct", "rank", "unknown", "as_of")
    rows = {
        row["underlying"] or row["sector"]: tuple(row[column] for column in columns)
        for row in firm.rows("select * from risk.concentration where scope = 'A1'")
    }
    equity = firm.value("select equity from risk.pnl where scope = 'A1'")
    assert rows == {
        "NEW": (None, None, 1, 1, NOW),
        "MSFT": (200, round(Decimal(20_000) / equity, 6), 2, 0, NOW),
        "Tech": (200, None, 1, 1, NOW),
    }
    (row,) = firm.rows(
        "select * from risk.exposure where scope = 'A1' and symbol is null and underlying is null"
    )
    assert (*sides(row), row["gross_exposure"], row["unknown_greeks"]) == (200, 200, 200, 200, 1)


def test_without_equity_any_exposure_is_infinite(firm: Caller) -> None:
    assert firm.check("A1", "a", "AAPL", "buy", 1, 100).is_accepted
    (row,) = firm.rows(
        "select * from risk.concentration where scope = 'A1' and underlying = 'AAPL'"
    )
    assert (*sides(row), row["concentration_pct"]) == (0, 100, 0, Decimal("Infinity"))
    post(firm, "A1", 400, "deposit")
    percent = "select concentration_pct from risk.concentration where scope = 'A1' and sector = %s"
    assert firm.value(percent, "Tech") == 25
    firm.call("upsert_instruments", instruments=Jsonb([{"symbol": "Z", "currency": "GBP"} | STOCK]))
    trade(firm, "A1", "Z", 1, 50)
    assert firm.value(percent, "Tech") is None


STOCK = {"kind": "stock"}


def test_they_follow_the_oldest_mark(db: Database, firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", 1)
    firm.hold("A1", "MSFT", 1)
    db.set_clock(NOW + timedelta(seconds=9))
    firm.mark({"AAPL C100": 6, "MSFT": 51})
    ages = {
        row["underlying"]: row["as_of"]
        for row in firm.rows("select * from risk.concentration where scope = 'F'")
        if row["underlying"]
    }
    assert ages == {"AAPL": NOW, "MSFT": NOW + timedelta(seconds=9)}


def test_an_expired_option_has_no_exposure_left(db: Database, firm: Caller) -> None:
    option = {"symbol": "E", "kind": "option", "underlying": "AAPL", "expiry": "2026-03-02"}
    firm.call(
        "upsert_instruments", instruments=Jsonb([option | {"strike": 90, "option_right": "call"}])
    )
    firm.mark({"E": 10}, deltas=[1], gammas=[0], vegas=[0], thetas=[0])
    firm.hold("A1", "E", 1)
    net = "select net_exposure from risk.concentration where scope = 'F' and underlying = 'AAPL'"
    assert firm.value(net) == 10_000
    db.set_clock(NOW + timedelta(days=1))
    assert firm.value(net) == 0
