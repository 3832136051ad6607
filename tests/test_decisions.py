"""Every type of limit at its boundary, at every scope and dimension, as a user reads of it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.orders import PLENTY, Answer, Caller, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

NOW = datetime(2098, 1, 5, 15, 0, tzinfo=UTC)
KEYS: dict[str, dict[str, str]] = {
    "all": {},
    "sector:Tech": {"sector": "Tech"},
    "underlying:AAPL": {"underlying": "AAPL"},
    "instrument:AAPL": {"symbol": "AAPL"},
}
# What a limit must be for an order of 10 AAPL at 100 to fit exactly; how much fits one below.
EXACT = {
    "order_quantity": (10, 9),
    "order_notional": (1000, 9),
    "net_position": (10, 9),
    "long_position": (10, 9),
    "short_position": (10, 9),
    "gross_position": (10, 9),
    "gross_notional": (1000, 9),
    "traded_notional": (1000, 9),
    "open_orders": (1, 0),
    "open_positions": (1, 0),
    "order_rate": (1, 0),
    "order_rate_minute": (1, 0),
    "delta": (10, 9),
    "gross_exposure": (1000, 9),
    "net_exposure": (1000, 9),
    "max_loss": (1000, 9),
}
PER_UNDERLYING = {"delta", "max_loss"}
# Tested below or in a file of their own, each in its own way.
OTHERS = {"price_collar_pct", "duplicate_window", "self_cross", "same_side", "buying_power"}
OTHERS |= {"gamma", "dollar_gamma", "vega", "theta", "daily_loss", "drawdown_pct"}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


def release(firm: Caller, account: str, client_order_id: str) -> None:
    firm.call("release_order", account=account, client_order_id=client_order_id, reason="cancelled")


def test_every_type_of_limit_is_tried(firm: Caller) -> None:
    types = firm.rows("select limit_type from risk_private.limit_types")
    assert {row["limit_type"] for row in types} == set(EXACT) | OTHERS


@pytest.mark.parametrize("limit_type", EXACT)
@pytest.mark.parametrize("way", ["single", "combo", "batch"])
def test_equal_passes_and_one_lot_more_does_not(
    db: Database, firm: Caller, limit_type: str, way: str
) -> None:
    exact, below = EXACT[limit_type]
    side = "sell" if limit_type == "short_position" else "buy"
    ask: dict[str, Callable[[str], Answer]] = {
        "single": lambda name: firm.check("A1", name, "AAPL", side, 10, 100),
        "combo": lambda name: firm.combo("A1", name, f"{side} 1 AAPL", 10, 100),
        "batch": lambda name: firm.batch([item("A1", name, f"{side} AAPL", 10, price="100")])[0],
    }
    keys = [key for key in KEYS if limit_type not in PER_UNDERLYING or key != "instrument:AAPL"]
    for number, (scope, dimension) in enumerate(itertools.product(("A1", "D1", "F"), keys)):
        db.set_clock(NOW + number * timedelta(minutes=2))
        firm.limit(scope, limit_type, exact - 1, **KEYS[dimension])
        refused = ask[way](f"no-{number}")
        assert refused.failed == {(limit_type, scope, dimension)}
        assert refused.allowed_quantity == below
        firm.limit(scope, limit_type, exact, **KEYS[dimension])
        assert ask[way](f"yes-{number}").is_accepted
        release(firm, "A1", f"yes-{number}")
        firm.limit(scope, limit_type, PLENTY, **KEYS[dimension])
    db.set_clock(NOW + timedelta(hours=1))
    assert ask[way]("unlimited").is_accepted


def test_what_lies_outside_the_dimension_does_not_count(firm: Caller) -> None:
    firm.limit("D1", "gross_position", 10, sector="Tech")
    firm.limit("D1", "open_orders", 1, underlying="AAPL")
    assert firm.check("A1", "1", "XOM", "buy", 100).is_accepted
    assert firm.check("B1", "1", "AAPL", "buy", 100).is_accepted
    assert firm.check("A2", "1", "AAPL", "buy", 6).is_accepted
    assert firm.check("A1", "2", "MSFT", "buy", 4).is_accepted
    assert firm.check("A1", "3", "MSFT", "buy", 1).failed == {
        ("gross_position", "D1", "sector:Tech")
    }
    assert firm.check("A1", "4", "AAPL C100", "buy", 1).failed == {
        ("gross_position", "D1", "sector:Tech"),
        ("open_orders", "D1", "underlying:AAPL"),
    }


def test_the_most_specific_dimension_of_a_scope_wins_and_every_scope_counts(firm: Caller) -> None:
    firm.limit("A1", "order_quantity", 5)
    firm.limit("A1", "order_quantity", 7, sector="Tech")
    firm.limit("A1", "order_quantity", 9, underlying="AAPL")
    firm.limit("A1", "order_quantity", 3, symbol="AAPL C100")
    for symbol, most in {"XOM": 5, "MSFT": 7, "AAPL": 9, "AAPL C110": 9, "AAPL C100": 3}.items():
        assert firm.check("A1", f"at-{symbol}", symbol, "buy", most).is_accepted
        assert firm.check("A1", f"over-{symbol}", symbol, "buy", most + 1).allowed_quantity == most
    firm.limit("F", "order_quantity", 4)
    answer = firm.check("A1", "both", "XOM", "buy", 6)
    assert answer.failed == {("order_quantity", "A1", "all"), ("order_quantity", "F", "all")}
    assert answer.allowed_quantity == 4


def test_a_position_limit_of_a_wider_dimension_holds_for_each_instrument(firm: Caller) -> None:
    firm.limit("D1", "net_position", 10, sector="Tech")
    for account, symbol in itertools.product(("A1", "A2"), ("AAPL", "MSFT")):
        assert firm.check(account, symbol, symbol, "buy", 5).is_accepted
    answer = firm.check("A1", "more", "AAPL", "buy", 1)
    assert answer.failed == {("net_position", "D1", "sector:Tech")}


def test_parents_net_positions_and_sum_gross_ones(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 10)
    firm.hold("A2", "AAPL", -10)
    firm.limit("D1", "net_position", 5, symbol="AAPL")
    firm.limit("D1", "gross_position", 22)
    assert firm.check("A1", "1", "AAPL", "buy", 2).is_accepted
    assert firm.check("A1", "2", "AAPL", "buy", 1).failed == {("gross_position", "D1", "all")}


def test_open_orders_never_net(firm: Caller) -> None:
    firm.limit("A1", "net_position", 10)
    assert firm.check("A1", "1", "AAPL", "buy", 10).is_accepted
    assert firm.check("A1", "2", "AAPL", "sell", 10).is_accepted
    assert not firm.check("A1", "3", "AAPL", "buy", 1).is_accepted
    assert not firm.check("A1", "4", "AAPL", "sell", 1).is_accepted


def test_a_passive_breach_never_blocks_a_reduction(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 100)
    for limit_type in ("net_position", "gross_position", "gross_notional", "traded_notional"):
        firm.limit("D1", limit_type, 50)
    for limit_type in ("open_orders", "open_positions"):
        firm.limit("D1", limit_type, 0)
    assert firm.check("A1", "buy", "AAPL", "buy", 1).failed > {("net_position", "D1", "all")}
    assert firm.check("A1", "1", "AAPL", "sell", 60).is_accepted
    assert firm.check("A1", "2", "AAPL", "sell", 40).is_accepted
    assert not firm.check("A1", "3", "AAPL", "sell", 1).is_accepted


def test_an_order_that_crosses_zero_is_judged_on_the_far_side(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 100)
    firm.limit("A1", "net_position", 50)
    assert firm.check("A1", "1", "AAPL", "sell", 151).allowed_quantity == 150
    assert firm.check("A1", "2", "AAPL", "sell", 150).is_accepted


def test_an_exit_that_raises_a_parent_past_its_limit_is_refused(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 100)
    firm.hold("A2", "AAPL", -100)
    firm.limit("D1", "net_position", 10)
    answer = firm.check("A1", "1", "AAPL", "sell", 11)
    assert answer.failed == {("net_position", "D1", "all")}
    assert answer.allowed_quantity == 10


@pytest.mark.parametrize(("warn_pct", "quantity", "warned"), [(80, 7, 0), (80, 8, 1), (100, 10, 1)])
def test_warnings_begin_at_warn_pct(
    firm: Caller, warn_pct: int, quantity: int, warned: int
) -> None:
    firm.limit("D1", "gross_position", 10, warn_pct=warn_pct)
    answer = firm.check("A1", "1", "AAPL", "buy", quantity)
    assert answer.is_accepted
    assert [w["limit_type"] for w in answer.warnings] == ["gross_position"] * warned


def test_a_refusal_tells_every_violation_with_its_numbers(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 5)
    firm.limit("A1", "order_quantity", 3)
    firm.limit("D1", "net_position", 8)
    answer = firm.check("A1", "1", "AAPL", "buy", 4, 100)
    assert [dict(violation) for violation in answer.violations] == [
        {
            "reason": "RISK_LIMIT_EXCEEDED",
            "limit_type": "order_quantity",
            "scope": "A1",
            "dimension": "all",
            "limit": "3",
            "current": answer.violations[0]["current"],
            "projected": "4",
            "allowed_quantity": "3",
        },
        {
            "reason": "RISK_LIMIT_EXCEEDED",
            "limit_type": "net_position",
            "scope": "D1",
            "dimension": "all",
            "limit": "8",
            "current": "5",
            "projected": "9",
            "allowed_quantity": "3",
        },
    ]
