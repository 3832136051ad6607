"""daily_loss and drawdown_pct: while they are exceeded, or unknown, only reducing orders pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, item, open_firm
from tests.test_money import DAYS, code, post, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """A1 starts the day with 10,000, of which 100 AAPL at 50."""
    db.set_clock(NOW)
    with open_firm(db) as caller:
        caller.mark({"AAPL": 50})
        post(caller, "A1", 10_000, "deposit")
        trade(caller, "A1", "AAPL", 100, 50)
        caller.call("open_day", day=DAYS[0])
        yield caller
        assert caller.differences() == []


def utilization(firm: Caller, limit_type: str) -> tuple[object, ...]:
    (row,) = firm.rows(
        """select used, worst_case, utilization_pct, status from risk.limit_utilization
           where limit_type = %s""",
        limit_type,
    )
    return tuple(row.values())


def buy(firm: Caller, account: str = "A1") -> str | None:
    return firm.check(account, firm.new_name(), "MSFT", "buy", 1, 50).reason


def sell(firm: Caller, quantity: int = 1) -> str | None:
    return firm.check("A1", firm.new_name(), "AAPL", "sell", quantity, 40).reason


@pytest.mark.parametrize("scope", ["A1", "D1", "F"])
def test_a_daily_loss_stops_all_but_reductions(firm: Caller, scope: str) -> None:
    firm.limit(scope, "daily_loss", 500)
    firm.mark({"AAPL": 45})
    assert utilization(firm, "daily_loss") == (500, 500, 100, "WARN")
    assert buy(firm) is None
    firm.mark({"AAPL": "44.99"})
    answer = firm.check("A1", "over", "MSFT", "buy", 1, 50)
    assert answer.reason == "RISK_LIMIT_EXCEEDED"
    assert answer.failed == {("daily_loss", scope, "all")}
    (violation,) = answer.violations
    assert (violation["limit"], violation["current"]) == ("500", "501.00")
    assert utilization(firm, "daily_loss") == (501, 501, Decimal("100.2"), "BREACH")
    flip = firm.check("A1", "flip", "AAPL", "sell", 130, 40)
    assert flip.reason == "RISK_LIMIT_EXCEEDED"
    assert flip.allowed_quantity == 100
    assert sell(firm, 100) is None
    assert buy(firm, "B1") == ("RISK_LIMIT_EXCEEDED" if scope == "F" else None)
    assert firm.rows(
        """select status, allowed_quantity from risk.preview_order('A1', 'MSFT', 'buy', 5, 50)
           where limit_type = 'daily_loss'"""
    ) == [{"status": "FAIL", "allowed_quantity": 0}]


def test_flows_and_start_equities_count(firm: Caller) -> None:
    firm.limit("F", "daily_loss", 500)
    post(firm, "A1", -3_000, "withdrawal")
    assert buy(firm) is None
    firm.call("open_day", day=DAYS[0], equities=Jsonb({"A1": "10501"}))
    assert buy(firm) == "RISK_LIMIT_EXCEEDED"
    post(firm, "A1", 1, "dividend")
    assert buy(firm) is None
    post(firm, "A1", -2, "fee")
    assert buy(firm) == "RISK_LIMIT_EXCEEDED"
    firm.call("open_day", day=DAYS[1])
    assert buy(firm) is None


def test_a_loss_warns_before_it_stops(firm: Caller) -> None:
    firm.limit("A1", "daily_loss", 1000, warn_pct=50)
    firm.mark({"AAPL": 45})
    answer = firm.check("A1", "near", "MSFT", "buy", 1, 50)
    assert answer.is_accepted
    assert [(w["limit_type"], w["current"]) for w in answer.warnings] == [("daily_loss", "500")]
    assert utilization(firm, "daily_loss") == (500, 500, 50, "WARN")


def test_a_drawdown_counts_from_the_peak_of_all_days(firm: Caller) -> None:
    firm.limit("A1", "drawdown_pct", 10)
    firm.mark({"AAPL": 100})  # 15,000
    firm.call("open_day", day=DAYS[1])
    firm.mark({"AAPL": 85})  # 13,500
    assert buy(firm) is None
    assert utilization(firm, "drawdown_pct") == (10, 10, 100, "WARN")
    firm.mark({"AAPL": "84.99"})
    assert buy(firm) == "RISK_LIMIT_EXCEEDED"
    post(firm, "A1", 100_000, "deposit")
    assert buy(firm) == "RISK_LIMIT_EXCEEDED"
    assert sell(firm) is None


def test_without_any_equity_the_drawdown_is_complete(firm: Caller) -> None:
    firm.limit("B1", "drawdown_pct", 99)
    assert buy(firm, "B1") == "RISK_LIMIT_EXCEEDED"
    firm.limit("B1", "drawdown_pct", 100)
    assert buy(firm, "B1") is None


def test_what_is_unknown_stops_all_but_reductions(db: Database) -> None:
    with open_firm(db) as firm:
        post(firm, "A1", 1000, "deposit")
        trade(firm, "A1", "AAPL", 2, 100)
        firm.limit("F", "daily_loss", 10**9)
        answer = firm.check("A1", "early", "MSFT", "buy", 1, 50)
        assert answer.reason == "STALE_DATA"  # no day was opened
        assert answer.failed == {("daily_loss", "F", "all")}
        assert utilization(firm, "daily_loss") == (None, None, None, "BREACH")
        assert sell(firm, 2) is None
        firm.call("open_day", day=DAYS[0])
        firm.call("create_scope", code="A3", kind="account", parent="D1")
        assert buy(firm, "A3") is None
        firm.call(
            "upsert_instruments",
            instruments=Jsonb([{"symbol": "SAP", "kind": "stock", "currency": "EUR"}]),
        )
        trade(firm, "B1", "SAP", 1, 50)
        assert buy(firm) == "STALE_DATA"
        firm.call("set_fx", currency="EUR", rate=Decimal("1.1"))
        assert buy(firm) is None
        assert firm.differences() == []


@pytest.mark.parametrize("comes_first", ["limit", "narrow limit", "rate"])
def test_a_stale_rate_stops_its_currency_and_every_loss_limit_on_it(
    db: Database, firm: Caller, comes_first: str
) -> None:
    firm.call(
        "upsert_instruments",
        instruments=Jsonb([{"symbol": "SAP", "kind": "stock", "currency": "EUR"}]),
    )
    firm.call("set_setting", name="max_mark_age", value="60")
    firm.mark({"MSFT": 50})
    if comes_first == "narrow limit":
        firm.limit("A1", "long_position", 10**9, symbol="MSFT")
    if comes_first != "rate":
        firm.limit("D1", "daily_loss", 10**9)
        assert buy(firm) is None
    firm.call("set_fx", currency="EUR", rate=1)
    if comes_first == "rate":
        firm.limit("D1", "daily_loss", 10**9)
    firm.mark({"SAP": 50})
    post(firm, "A1", 100, "deposit", currency="EUR")
    assert firm.check("A1", "sap", "SAP", "buy", 1, 50).is_accepted
    db.set_clock(NOW + timedelta(seconds=61))
    firm.mark({"SAP": 50, "MSFT": 50})
    answer = firm.check("B1", "sap", "SAP", "buy", 1, 50)
    assert (answer.reason, answer.failed) == ("STALE_DATA", {(None, None, "instrument:SAP")})
    assert firm.batch([item("B1", "b", "buy SAP", 1, price=50)])[0].reason == "STALE_DATA"
    assert buy(firm) == "STALE_DATA"
    assert buy(firm, "B1") is None
    firm.call("set_fx", currency="EUR", rate=1)
    assert buy(firm) is None


def test_a_batch_is_judged_like_its_orders(firm: Caller) -> None:
    firm.limit("D1", "daily_loss", 500)
    orders = [item("A1", f"a{n}", "buy MSFT", 1, price=50) for n in range(3)]
    assert [answer.reason for answer in firm.batch(orders)] == [None] * 3
    firm.mark({"AAPL": 40})
    orders = [
        item("A1", "b1", "buy MSFT", 1, price=50),
        item("A1", "b2", "sell AAPL", 1, price=40),
        item("B1", "b3", "buy MSFT", 1, price=50),
    ]
    reasons = [answer.reason for answer in firm.batch(orders)]
    assert reasons == ["RISK_LIMIT_EXCEEDED", None, None]


def test_a_temporary_loss_limit_comes_and_goes(db: Database, firm: Caller) -> None:
    firm.mark({"AAPL": 40})
    firm.limit(
        "A1",
        "daily_loss",
        500,
        valid_from=NOW + timedelta(minutes=1),
        valid_until=NOW + timedelta(minutes=2),
    )
    assert buy(firm) is None
    db.set_clock(NOW + timedelta(seconds=61))
    assert buy(firm) == "RISK_LIMIT_EXCEEDED"
    db.set_clock(NOW + timedelta(seconds=121))
    assert buy(firm) is None


def test_losses_are_limited_for_whole_scopes_only(firm: Caller) -> None:
    for limit_type in ("daily_loss", "drawdown_pct"):
        for key in ({"symbol": "AAPL"}, {"underlying": "AAPL"}, {"sector": "Tech"}):
            arguments = {"scope": "F", "limit_type": limit_type, "amount": 1} | key
            assert code(firm, "set_limit", **arguments) == "RK400"
