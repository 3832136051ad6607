"""buying_power: what makes a cash-secured put cash-secured."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.orders import Answer, Caller, callers, each_at_once, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """A1 and A2 have 10,000 each, and may not go below zero."""
    with open_firm(db) as caller:
        for account in ("A1", "A2"):
            caller.call("post_cash", account=account, amount=10_000, reason="deposit")
            caller.limit(account, "buying_power", 0)
        yield caller
        assert caller.differences() == []


def free(firm: Caller, scope: str = "A1") -> Decimal:
    """Cash that is left for orders."""
    rows = firm.rows(
        """select worst_case, status from risk.limit_utilization
           where limit_type = 'buying_power' and scope = %s""",
        scope,
    )
    assert rows[0]["status"] == "OK"
    return -Decimal(rows[0]["worst_case"])


def judged(answer: Answer) -> tuple[str, str, int]:
    (violation,) = answer.violations
    assert violation["limit_type"] == "buying_power"
    return violation["current"], violation["projected"], int(answer.allowed_quantity)


def test_a_put_is_secured_by_the_cash_to_take_the_stock(firm: Caller) -> None:
    # Options Industry Council, Cash-secured put: the cash to buy the stock at the strike.
    assert judged(firm.check("A1", "a", "AAPL P100", "sell", 2, 5)) == ("-10000", "10000", 1)
    assert firm.check("A1", "b", "AAPL P100", "sell", 1, 5).is_accepted
    assert free(firm) == 0
    assert not firm.check("A1", "c", "AAPL P90", "buy", 1, 1).is_accepted
    firm.fill("A1", "b", "1", 1, 5)
    assert free(firm) == 500
    assert firm.check("A1", "d", "AAPL P90", "buy", 1, 5).is_accepted
    firm.fill("A1", "d", "2", 1, 5)
    # Now it is a spread: exercising the 90 put pays for all but 10 a share.
    assert free(firm) == 9_000


def test_an_assignment_turns_the_cash_into_stock(firm: Caller) -> None:
    firm.check("A1", "a", "AAPL P100", "sell", 1, 5)
    firm.fill("A1", "a", "1", 1, 5)
    trades = [("AAPL P100", "buy", 1, 0, "expiry"), ("AAPL", "buy", 100, 100, "assignment")]
    for symbol, side, quantity, price, kind in trades:
        firm.call(
            "record_trade",
            account="A1",
            symbol=symbol,
            side=side,
            quantity=quantity,
            price=price,
            exec_id=kind,
            kind=kind,
        )
    assert free(firm) == 500
    assert firm.check("A1", "sell", "AAPL", "sell", 100, 90).is_accepted
    assert free(firm) == 500


def test_open_buys_take_their_cost_and_sales_bring_nothing_yet(firm: Caller) -> None:
    assert firm.check("A1", "a", "AAPL", "buy", 60, 100).is_accepted
    assert free(firm) == 4_000
    assert judged(firm.check("A1", "b", "MSFT", "buy", 100, 50)) == ("-4000", "1000", 80)
    assert firm.check("A1", "c", "MSFT", "buy", 80, 50).is_accepted
    firm.call("release_order", account="A1", client_order_id="c", reason="cancelled")
    firm.fill("A1", "a", "1", 60, 90)
    assert free(firm) == 4_600
    assert firm.check("A1", "d", "AAPL", "sell", 60, 100).is_accepted
    assert free(firm) == 4_600
    assert firm.check("A1", "e", "MSFT", "sell", 1000, 50).is_accepted
    assert free(firm) == 4_600


def test_a_combo_takes_its_net_cost_and_its_width(firm: Caller) -> None:
    put_spread = "sell 1 AAPL P100, buy 1 AAPL P90"
    assert judged(firm.combo("A1", "a", put_spread, 11, -2)) == ("-10000", "1000", 10)
    call_spread = "buy 1 AAPL C100, sell 1 AAPL C110"
    assert firm.combo("A1", "b", call_spread, 25, 4).is_accepted
    assert free(firm) == 0
    assert firm.combo("A2", "c", "sell 1 AAPL C100, buy 1 AAPL C110", 500, -4).is_accepted
    assert free(firm, "A2") == 10_000


def test_parents_have_the_cash_of_all_and_a_limit_above_zero_is_credit(firm: Caller) -> None:
    firm.limit("A1", "buying_power", 5_000)
    firm.limit("D1", "buying_power", 0, warn_pct=80)
    assert judged(firm.check("A1", "a", "MSFT", "buy", 400, 50)) == ("-10000", "10000", 300)
    assert firm.check("A1", "b", "MSFT", "buy", 300, 50).is_accepted
    assert judged(firm.check("A2", "c", "MSFT", "buy", 200, 50)) == ("-5000", "5000", 100)
    assert firm.check("A2", "d", "MSFT", "buy", 100, 50).is_accepted
    firm.call("post_cash", account="A2", amount=100, reason="deposit")
    assert firm.check("A2", "e", "MSFT", "buy", 2, 50).is_accepted


def test_overdrawn_an_account_may_still_reduce(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", -5, 5)
    firm.call("post_cash", account="A1", amount=-20_000, reason="withdrawal")
    refused = firm.check("A1", "a", "AAPL C100", "buy", 6, 5)
    assert refused.allowed_quantity == 5
    assert firm.check("A1", "b", "AAPL C100", "buy", 5, 5).is_accepted
    assert not firm.check("A1", "c", "MSFT", "buy", 1, 50).is_accepted


def test_cash_without_a_rate_cannot_be_counted_on(firm: Caller) -> None:
    stock = {"symbol": "SAP", "kind": "stock", "currency": "EUR"}
    firm.call("upsert_instruments", instruments=Jsonb([stock]))
    firm.hold("A1", "MSFT", 10, 50)
    firm.hold("A1", "SAP", 10, 100)
    refused = firm.check("A1", "a", "MSFT", "buy", 1, 50)
    assert (refused.reason, refused.failed) == ("STALE_DATA", {("buying_power", "A1", "all")})
    assert firm.check("A1", "b", "MSFT", "sell", 10, 50).is_accepted
    assert firm.check("A2", "c", "MSFT", "buy", 1, 50).is_accepted
    firm.call("set_fx", currency="EUR", rate=2)
    assert free(firm) == 10_000
    assert firm.check("A1", "d", "MSFT", "buy", 1, 50).is_accepted


def test_it_is_measured_for_a_scope_as_a_whole(firm: Caller) -> None:
    for key in ({"symbol": "AAPL"}, {"underlying": "AAPL"}, {"sector": "Tech"}):
        with pytest.raises(psycopg.Error, match="scope as a whole") as caught:
            firm.limit("A1", "buying_power", 1, **key)
        assert caught.value.sqlstate == "RK400"


def test_a_future_is_margined_and_not_paid_for(firm: Caller) -> None:
    firm.call("upsert_instruments", instruments=Jsonb([{"symbol": "OIL", "kind": "future"}]))
    firm.mark({"OIL": 80})
    assert firm.check("A1", "a", "OIL", "buy", 1000, 80).is_accepted
    assert free(firm) == 10_000


def test_the_last_of_the_cash_is_spent_once(db: Database, firm: Caller) -> None:
    firm.limit("D1", "buying_power", 0)

    def run(caller: Caller) -> int:
        return sum(
            caller.check(account, caller.new_name(), "MSFT", "buy", 10, 50).is_accepted
            for account in ("A1", "A2") * 5
        )

    with callers(db, 6) as clients:
        assert sum(each_at_once(clients, run)) == 40
    assert free(firm) == free(firm, "A2") == free(firm, "D1") == 0
