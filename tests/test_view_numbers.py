"""Every view is derived anew somewhere: here from what was done, the others where the list says."""

from __future__ import annotations

import importlib
import inspect
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.orders import LEAVES, MARKS, OPTIONS, PLENTY, STOCKS, Caller, open_firm
from tests.test_greek_views import GREEKS, PATHS, mark
from tests.test_money import post, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

D = Decimal
ZERO = D(0)
HERE = ("positions", "cash", "same_side_positions", "exposure", "pnl")
ELSEWHERE = {
    "adjustments": "test_adjustments.test_a_split_is_made_once",
    "breaker_conditions": "test_docs.test_every_condition_is_described_with_its_parameters_defaults"
    "_and_source",
    "breaker_events": "test_breakers.test_it_trips_at_the_threshold_and_remembers_why",
    "breakers": "test_breaker_conditions.test_every_condition_trips_holds_and_resets",
    "concentration": "test_exposure_views.test_concentration_is_of_every_scope_underlying_and"
    "_sector",
    "correlation_matrix": "test_returns.test_correlations_of_held_underlyings_are_pearsons",
    "daily_summary": "test_daily_summary.test_every_number_is_what_executions_and_postings_say",
    "decisions": "test_views.test_decisions_and_violations_tell_what_was_answered",
    "fill_corrections": "test_corrections.test_a_bust_puts_everything_back",
    "fills": "test_views.test_fills_and_trades",
    "health": "test_views.test_health_counts_what_waits",
    "indicators": "test_breakers.test_a_value_that_comes_late_is_judged_and_not_shown",
    "instruments": "test_views.test_reference_data",
    "limit_history": "test_views.test_limits_in_force_and_their_history",
    "limit_utilization": "test_stateful.test_engine_and_oracle_agree",
    "limits": "test_views.test_limits_in_force_and_their_history",
    "marks": "test_marks.test_a_tick_marks_the_options_of_the_underlying_anew",
    "open_orders": "test_views.test_open_orders_tell_how_far_each_has_come",
    "orders": "test_views.test_an_order_is_one_row_per_leg",
    "portfolio_greeks": "test_greek_views.test_they_are_the_sums_over_positions_of_every_scope",
    "position_limits": "test_same_side.test_tiers_are_loaded_and_set_on_a_scope",
    "queue_status": "test_views.test_queues",
    "return_history": "test_returns.test_return_history_has_every_return_of_a_year",
    "scopes": "test_views.test_reference_data",
    "settings": "test_views.test_reference_data",
    "trading_grants": "test_views.test_reference_data",
    "trading_states": "test_states.test_the_view_names_who_set_the_effective_state_and_why",
    "violations": "test_views.test_decisions_and_violations_tell_what_was_answered",
}
PAIRS = [(account, symbol) for account in LEAVES for symbol in MARKS]
GREEK_LIMITS = ("delta", "gamma", "vega", "theta", "dollar_gamma", "net_exposure", "gross_exposure")


def test_the_list_has_every_view_there_is(db: Database) -> None:
    with db.connect() as connection:
        views = connection.execute(
            """select c.relname from pg_class as c
               where c.relnamespace = 'risk'::regnamespace and c.relkind in ('v', 'm')"""
        ).fetchall()
    assert sorted([*HERE, *ELSEWHERE]) == sorted(name for (name,) in views)
    for path in ELSEWHERE.values():
        module, name = path.split(".")
        assert inspect.isfunction(getattr(importlib.import_module(f"tests.{module}"), name))


@dataclass
class Holding:
    """What one account has of one instrument, reckoned by hand."""

    quantity: D = ZERO
    cost: D = ZERO
    realized: D = ZERO
    buys: list[tuple[D, D]] = field(default_factory=list)
    """Quantity and price of each open order."""
    sells: list[tuple[D, D]] = field(default_factory=list)

    def trade(self, quantity: D, price: D, multiplier: int) -> None:
        """Average cost; no trade goes through zero."""
        if self.quantity * quantity < 0:
            closed = self.cost * quantity / self.quantity
            self.realized -= quantity * price * multiplier - closed
            self.cost += closed
        else:
            self.cost += quantity * price * multiplier
        self.quantity += quantity

    @property
    def longest(self) -> D:
        return self.quantity + sum(quantity for quantity, _ in self.buys)

    @property
    def shortest(self) -> D:
        return self.quantity - sum(quantity for quantity, _ in self.sells)

    @property
    def worst(self) -> D:
        return max(abs(self.longest), abs(self.shortest))

    @property
    def is_open(self) -> bool:
        return self.quantity != 0 or bool(self.buys or self.sells)


@dataclass
class Day:
    """What was done, and the marks that everything stands at in the end."""

    holdings: dict[tuple[str, str], Holding]
    cash: dict[str, D]
    flows: dict[str, D]
    traded: dict[tuple[str, str], D]
    prices: dict[str, D]
    greeks: dict[str, tuple[float, ...]]

    def below(self, scope: str) -> list[tuple[str, str, Holding]]:
        return [
            (account, symbol, holding)
            for (account, symbol), holding in self.holdings.items()
            if scope in PATHS[account]
        ]


def shares(symbol: str) -> int:
    return 100 if symbol in OPTIONS else 1


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(datetime(2026, 3, 2, 15, 0, tzinfo=UTC))
    with open_firm(db) as caller:
        for scope in ("F", "D1", "A1"):
            for limit_type in GREEK_LIMITS:
                caller.limit(scope, limit_type, PLENTY)
        caller.limit("F", "gross_notional", PLENTY, sector="Tech")
        caller.limit("D2", "gross_position", PLENTY, underlying="AAPL")
        caller.limit("A1", "same_side", PLENTY)
        yield caller
        assert caller.differences() == []


@pytest.fixture
def day(firm: Caller) -> Day:
    """A random day: cash, trades at round prices (so that costs are exact), orders left open."""
    chance = random.Random(11)
    day = Day(
        {pair: Holding() for pair in PAIRS},
        dict.fromkeys(LEAVES, ZERO),
        dict.fromkeys(LEAVES, ZERO),
        defaultdict(D),
        {symbol: D(chance.randint(4, 400)) / 4 for symbol in MARKS},
        {
            symbol: tuple(round(chance.uniform(-1, 1), 4) for _ in GREEKS)
            if symbol in OPTIONS
            else (1.0, 0.0, 0.0, 0.0, 0.0)
            for symbol in MARKS
        },
    )
    for account in LEAVES:
        for reason, amount in (("deposit", 10**6), ("dividend", 70), ("withdrawal", -500)):
            post(firm, account, amount, reason)
            day.cash[account] += amount
            day.flows[account] += amount if reason != "dividend" else 0
    for account, symbol in chance.sample(PAIRS, 25):
        holding, sign = day.holdings[account, symbol], chance.choice((1, -1))
        for quantity in (8 * sign, 8 * sign, -4 * sign):
            price = D(chance.randint(4, 400)) / 4
            trade(firm, account, symbol, quantity, price)
            holding.trade(D(quantity), price, shares(symbol))
            day.cash[account] -= quantity * price * shares(symbol)
            day.traded[account, symbol] += abs(quantity) * price * shares(symbol)
    for number in range(40):
        account, symbol = chance.choice(PAIRS)
        side, quantity = chance.choice(("buy", "sell")), chance.randint(1, 9)
        price = D(max(MARKS[symbol], chance.randint(1, 9)))
        holding = day.holdings[account, symbol]
        assert firm.check(account, f"o{number}", symbol, side, quantity, price).is_accepted
        (holding.buys if side == "buy" else holding.sells).append((D(quantity), price))
        day.traded[account, symbol] += quantity * price * shares(symbol)
    for symbol, price in day.prices.items():
        mark(firm, symbol, float(price), *(day.greeks[symbol] if symbol in OPTIONS else ()))
    return day


def test_positions(firm: Caller, day: Day) -> None:
    rows = {
        (row["account"], row["symbol"]): row for row in firm.rows("select * from risk.positions")
    }
    assert set(rows) == {pair for pair, holding in day.holdings.items() if holding.is_open}
    for (account, symbol), row in rows.items():
        holding, units = day.holdings[account, symbol], shares(symbol)
        assert row["quantity"] == holding.quantity
        assert row["open_buy"] == holding.longest - holding.quantity
        assert row["open_sell"] == holding.quantity - holding.shortest
        assert row["average_price"] * holding.quantity * units == holding.cost
        assert row["market_value"] == holding.quantity * day.prices[symbol] * units
        assert row["unrealized_pnl"] == row["market_value"] - holding.cost
        assert row["realized_pnl_today"] == holding.realized
        for name, greek in zip(GREEKS, day.greeks[symbol], strict=True):
            if symbol in OPTIONS:
                assert row[name] == pytest.approx(float(holding.quantity) * units * greek), name


def test_cash_and_pnl(firm: Caller, day: Day) -> None:
    cash = {row["account"]: row["amount"] for row in firm.rows("select * from risk.cash")}
    assert cash == day.cash
    for row in firm.rows("select * from risk.pnl"):
        accounts = [account for account in LEAVES if row["scope"] in PATHS[account]]
        held = day.below(row["scope"])
        values = [h.quantity * day.prices[symbol] * shares(symbol) for _, symbol, h in held]
        assert row["cash"] == sum(day.cash[account] for account in accounts)
        assert row["equity"] == row["cash"] + sum(values)
        assert row["unrealized"] == sum(values) - sum(h.cost for *_, h in held)
        assert row["realized"] == sum(h.realized for *_, h in held)
        assert row["flows"] == sum(day.flows[account] for account in accounts)
        assert row["income"] == 70 * len(accounts)
        assert (row["fees"], row["currency_pnl"]) == (0, 0)
        fallen = (row["peak_equity"] - row["equity"]) / row["peak_equity"] * 100
        assert row["drawdown_pct"] == round(fallen, 6)
        assert row["peak_equity"] >= row["equity"]


def test_same_side_positions(firm: Caller, day: Day) -> None:
    rows = {row["scope"]: row for row in firm.rows("select * from risk.same_side_positions")}
    assert set(rows) == set(PATHS) | {"D1", "D2", "B2", "F"}
    for scope, row in rows.items():
        bull = bear = held_bull = held_bear = ZERO
        for _, symbol, holding in day.below(scope):
            if symbol in OPTIONS:
                up, down = max(ZERO, holding.longest), max(ZERO, -holding.shortest)
                held_up, held_down = max(ZERO, holding.quantity), max(ZERO, -holding.quantity)
                if OPTIONS[symbol][0] == "put":
                    up, down, held_up, held_down = down, up, held_down, held_up
                bull, bear = bull + up, bear + down
                held_bull, held_bear = held_bull + held_up, held_bear + held_down
        assert (row["bull"], row["bear"]) == (bull, bear), scope
        assert (row["held_bull"], row["held_bear"]) == (held_bull, held_bear), scope


def test_exposure(firm: Caller, day: Day) -> None:
    rows = firm.rows("select * from risk.exposure")
    assert {row["scope"] for row in rows} == {*LEAVES, "D1", "D2", "B2", "F"}
    for filtered in ("symbol", "underlying", "sector"):
        assert any(row[filtered] for row in rows), filtered
    for row in rows:
        held = [
            (account, symbol, holding)
            for account, symbol, holding in day.below(row["scope"])
            if row["symbol"] in (None, symbol)
            and row["underlying"] in (None, symbol.split()[0])
            and row["sector"] in (None, STOCKS[symbol.split()[0]])
        ]
        if row["gross_position"] is not None:
            assert row["gross_position"] == sum(h.worst for *_, h in held)
            assert row["gross_notional"] == sum(
                h.worst * day.prices[symbol] * shares(symbol) for _, symbol, h in held
            )
            assert row["traded_notional"] == sum(day.traded[a, s] for a, s, _ in held)
            assert row["open_orders"] == sum(len(h.buys) + len(h.sells) for *_, h in held)
            assert row["open_positions"] == sum(h.is_open for *_, h in held)
        units = [
            abs(shares(symbol) * unit_of(day, symbol, "net_exposure")) for _, symbol, _ in held
        ]
        gross = sum(float(h.worst) * unit for (*_, h), unit in zip(held, units, strict=True))
        assert float(row["gross_exposure"]) == pytest.approx(gross, abs=1e-6)
        assert row["unknown_greeks"] == 0
        for name, up, down in sides(day, held):
            if row[f"{name}_up"] is not None:
                assert float(row[f"{name}_up"]) == pytest.approx(up, rel=1e-9, abs=1e-6), name
                assert float(row[f"{name}_down"]) == pytest.approx(down, rel=1e-9, abs=1e-6), name


def sides(day: Day, held: list[tuple[str, str, Holding]]) -> Iterator[tuple[str, float, float]]:
    """Each measure on both sides: what is held plus what open orders add above, and below, 0."""
    for name in ("delta", "gamma", "net_exposure", "dollar_gamma", "vega", "theta"):
        up = down = 0.0
        for _, symbol, holding in held:
            unit = shares(symbol) * unit_of(day, symbol, name)
            up += float(holding.quantity) * unit
            down += float(holding.quantity) * unit
            for sign, orders in ((1, holding.buys), (-1, holding.sells)):
                for quantity, _ in orders:
                    up += max(0.0, sign * float(quantity) * unit)
                    down += min(0.0, sign * float(quantity) * unit)
        yield name, up, down


def unit_of(day: Day, symbol: str, name: str) -> float:
    delta, gamma, vega, theta, _ = day.greeks[symbol]
    spot = float(day.prices[symbol.split()[0]])
    money = {"net_exposure": delta * spot, "dollar_gamma": gamma * spot * spot / 100}
    return ({"delta": delta, "gamma": gamma, "vega": vega, "theta": theta} | money)[name]
