"""Collars, rates, duplicates and self-crosses; limits that come and go with the clock."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.orders import Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2098, 1, 5, 15, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


@pytest.mark.parametrize(
    ("side", "price", "accepted"),
    [
        ("buy", 105, True),
        ("buy", "105.01", False),
        ("buy", 1, True),
        ("sell", 95, True),
        ("sell", "94.99", False),
        ("sell", 500, True),
        ("buy", None, True),
    ],
)
def test_a_collar_binds_the_aggressive_side(
    firm: Caller, side: str, price: int | str | None, accepted: bool
) -> None:
    firm.limit("F", "price_collar_pct", 5)
    firm.limit("A1", "price_collar_pct", 50)
    answer = firm.check("A1", "1", "AAPL", side, 1, price)
    assert answer.is_accepted is accepted
    if not accepted:
        assert answer.reason == "PRICE_OUT_OF_BAND"
        assert answer.failed == {("price_collar_pct", "F", "all")}
        assert answer.allowed_quantity == 0


def test_a_collar_measures_from_the_quote_and_leaves_options_a_floor(firm: Caller) -> None:
    firm.limit("F", "price_collar_pct", 1)
    firm.mark(
        {"AAPL": 100, "AAPL C100": 5},
        bids=[Decimal(90), Decimal("4.5")],
        asks=[Decimal(110), Decimal("5.5")],
    )
    assert firm.check("A1", "1", "AAPL", "buy", 1, "111.1").is_accepted
    assert not firm.check("A1", "2", "AAPL", "buy", 1, "111.11").is_accepted
    assert firm.check("A1", "3", "AAPL", "sell", 1, "89.1").is_accepted
    assert not firm.check("A1", "4", "AAPL", "sell", 1, "89.09").is_accepted
    assert firm.check("A1", "5", "AAPL C100", "buy", 1, "5.6").is_accepted
    assert not firm.check("A1", "6", "AAPL C100", "buy", 1, "5.61").is_accepted
    legs = "buy 1 AAPL C100, sell 1 AAPL C110"  # 5.5 to pay, 5 to get; a floor of 0.1 for each
    assert firm.combo("A1", "7", legs, 1, "0.7").is_accepted
    assert not firm.combo("A1", "8", legs, 1, "0.71").is_accepted


@pytest.mark.parametrize(("limit_type", "window"), [("order_rate", 1), ("order_rate_minute", 60)])
@pytest.mark.parametrize("warn_pct", [100, 50])
def test_a_rate_counts_what_was_accepted_within_the_window(
    db: Database, firm: Caller, limit_type: str, window: int, warn_pct: int
) -> None:
    firm.limit("D1", limit_type, 2, warn_pct=warn_pct)
    firm.limit("F", "order_quantity", 10)
    assert firm.check("A1", "1", "AAPL", "buy", 1, 100).is_accepted
    assert not firm.check("A1", "large", "AAPL", "buy", 11, 100).is_accepted
    db.set_clock(NOW + window * SECOND / 2)
    assert firm.replace("A1", "1", "2", 2, 100).is_accepted
    assert firm.check("A2", "3", "AAPL", "buy", 1).reason == "RATE_LIMIT_EXCEEDED"
    db.set_clock(NOW + window * SECOND - timedelta(microseconds=1))
    assert firm.check("A2", "4", "AAPL", "buy", 1).allowed_quantity == 0
    db.set_clock(NOW + window * SECOND)
    assert firm.check("A2", "5", "AAPL", "buy", 1).is_accepted
    assert firm.check("A2", "6", "AAPL", "buy", 1).failed == {(limit_type, "D1", "all")}


def test_what_no_rate_looks_back_on_is_forgotten(db: Database, firm: Caller) -> None:
    firm.limit("A1", "order_rate_minute", 100000)
    for minute in range(3):
        db.set_clock(NOW + minute * 61 * SECOND)
        orders = [
            {
                "account": "A1",
                "client_order_id": f"{minute}-{number}",
                "symbol": "AAPL",
                "side": "buy",
                "quantity": "1",
                "price": "100",
            }
            for number in range(300)
        ]
        with db.connect() as owner:
            owner.execute("call risk.check_orders(%s::jsonb)", [json.dumps(orders)])
            kept = owner.execute("select count(*) from risk_private.rate_events").fetchone()
        assert kept is not None
        assert 300 <= kept[0] <= 600


def test_the_same_order_is_a_duplicate_until_the_longest_window_has_passed(
    db: Database, firm: Caller
) -> None:
    firm.limit("A1", "duplicate_window", 2)
    firm.limit("F", "duplicate_window", 10)

    def ask(name: str, **other: Any) -> str:
        order = {"symbol": "AAPL", "side": "buy", "quantity": 1, "price": 100, **other}
        answer = firm.check("A1", name, **order)
        return answer.reason or answer.decision

    assert ask("1") == "ACCEPTED"
    others: list[dict[str, Any]] = [{"quantity": 2}, {"price": 99}, {"price": None}]
    others += [{"symbol": "XOM"}, {"side": "sell"}]
    for number, other in enumerate(others):
        assert ask(f"other {number}", **other) == "ACCEPTED"
    assert firm.check("A2", "1", "AAPL", "buy", 1, 100).is_accepted
    firm.call("release_order", account="A1", client_order_id="1", reason="cancelled")
    db.set_clock(NOW + 10 * SECOND - timedelta(microseconds=1))
    assert ask("2", agent="another") == "DUPLICATE_ORDER"
    db.set_clock(NOW + 10 * SECOND)
    assert ask("3") == "ACCEPTED"
    assert ask("4") == "DUPLICATE_ORDER"
    assert ask("5", quantity=Decimal("1.00"), price=Decimal("100.0")) == "DUPLICATE_ORDER"


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (("sell", 100, "b"), "SELF_CROSS"),
        (("sell", "100.01", "b"), None),
        (("sell", None, "b"), "SELF_CROSS"),
        (("sell", 100, None), "SELF_CROSS"),
        (("sell", 100, "a"), None),
        (("buy", 100, "b"), None),
    ],
)
def test_an_order_does_not_trade_against_another_agent_of_the_scope(
    firm: Caller, order: tuple[str, Any, str | None], reason: str | None
) -> None:
    side, price, agent = order
    firm.limit("D1", "self_cross", 1)
    firm.check("A2", "resting", "AAPL", "buy", 1, 100, agent="a")
    assert firm.check("A1", "1", "AAPL", side, 1, price, agent=agent).reason == reason
    assert firm.check("B1", "1", "AAPL", side, 1, price, agent=agent).is_accepted
    firm.limit("D1", "self_cross", 0)
    assert firm.check("A1", "2", "AAPL", side, 1, price, agent=agent).is_accepted


def test_a_temporary_limit_lapses_and_the_earlier_one_returns(db: Database, firm: Caller) -> None:
    firm.limit("A1", "order_quantity", 10)
    firm.limit(
        "A1", "order_quantity", 20, valid_from=NOW + 10 * SECOND, valid_until=NOW + 20 * SECOND
    )
    for second, most in {0: 10, 9: 10, 10: 20, 19: 20, 20: 10, 60: 10}.items():
        db.set_clock(NOW + second * SECOND)
        assert firm.check("A1", f"{second}", "AAPL", "buy", 30).allowed_quantity == most
    firm.call("remove_limit", scope="A1", limit_type="order_quantity")
    assert firm.check("A1", "gone", "AAPL", "buy", 30).is_accepted
