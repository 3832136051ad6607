"""What happens to an order after it was accepted: sent, filled, replaced, released, expired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, Row, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

DAYS = ("2026-03-02", "2026-03-03")
TRADED = """select traded_notional from risk_private.counters as c
  join risk_private.scopes as s on s.scope_id = c.scope_id
  where s.code = %s and c.dimension = 0"""


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """A buy of 10 AAPL at 100 is open in A1."""
    with open_firm(db) as caller:
        caller.call("open_day", day=DAYS[0])
        caller.check("A1", "1", "AAPL", "buy", 10, 100)
        yield caller
        assert caller.differences() == []


def order(firm: Caller, name: str, account: str = "A1") -> Row:
    (row,) = firm.rows(
        """select state, filled_quantity as filled, remaining_quantity as remaining, close_reason
           from risk.orders where account = %s and client_order_id = %s""",
        account,
        name,
    )
    return row


def state(firm: Caller, name: str) -> str:
    return str(order(firm, name)["state"])


def code(firm: Caller, procedure: str, **arguments: Any) -> str | None:
    """The code of the error that a call raises."""
    with pytest.raises(psycopg.Error) as caught:
        firm.call(procedure, **arguments)
    return caught.value.sqlstate


def on(name: str) -> dict[str, str]:
    return {"account": "A1", "client_order_id": name}


def new(name: str) -> dict[str, str]:
    return {"account": "A1", "new_client_order_id": name}


# -- fills -------------------------------------------------------------------------------------


def test_fills_move_what_was_reserved_into_the_position(firm: Caller) -> None:
    detail = firm.fill("A1", "1", "e1", 4, 99)
    assert detail == {
        "exec_id": "e1",
        "flag": None,
        "position": "4",
        "order_state": "PARTIALLY_FILLED",
        "remaining_quantity": "6",
    }
    assert firm.position("A1", "AAPL") == (4, 6, 0)
    assert firm.value(TRADED, "F") == 4 * 99 + 6 * 100
    firm.fill("A1", "1", "e2", 6, 98)
    assert state(firm, "1") == "FILLED"
    assert firm.position("A1", "AAPL") == (10, 0, 0)
    assert firm.alerts("over_fill") == []


def test_an_execution_is_booked_once(firm: Caller) -> None:
    for _ in range(3):
        firm.fill("A1", "1", "e1", 4, 99, fee="0.5")
    assert firm.position("A1", "AAPL") == (4, 6, 0)
    fill = on("1") | {"exec_id": "e1", "quantity": 4, "price": 99, "fee": "0.5"}
    for other in ({"quantity": 5}, {"price": 98}, {"fee": 0}):
        assert code(firm, "record_fill", **(fill | other)) == "RK409"
    firm.check("A2", "1", "AAPL", "buy", 10, 100)
    firm.fill("A2", "1", "e1", 1, 99)
    assert firm.position("A2", "AAPL") == (1, 9, 0)


def test_an_over_fill_is_booked_in_full_flagged_and_alerted(firm: Caller) -> None:
    assert firm.fill("A1", "1", "e1", 13, 99)["flag"] == "over_fill"
    assert firm.position("A1", "AAPL") == (13, 0, 0)
    assert order(firm, "1") == {
        "state": "FILLED",
        "filled": 13,
        "remaining": 0,
        "close_reason": None,
    }
    (alert,) = firm.alerts("over_fill")
    assert alert == {
        "kind": "over_fill",
        "account": "A1",
        "client_order_id": "1",
        "exec_id": "e1",
        "quantity": "13",
        "price": "99",
        "severity": "warning",
    }


def test_a_fill_past_every_limit_is_booked(firm: Caller) -> None:
    firm.limit("F", "gross_position", 0)
    firm.call("set_trading_state", scope="F", state="HALTED", reason="a test", cancel_open=False)
    firm.fill("A1", "1", "e1", 20, 99)
    assert firm.position("A1", "AAPL") == (20, 0, 0)


def test_a_fill_that_comes_late_is_booked_and_alerted(firm: Caller) -> None:
    firm.call("release_order", **on("1"), reason="cancelled")
    assert firm.fill("A1", "1", "e1", 2, 99)["flag"] == "fill_on_closed_order"
    assert firm.position("A1", "AAPL") == (2, 0, 0)
    assert state(firm, "1") == "CANCELLED"
    assert [alert["client_order_id"] for alert in firm.alerts("fill_on_closed_order")] == ["1"]


def test_a_fill_of_a_rejected_order_is_booked_and_critical(firm: Caller) -> None:
    firm.limit("A1", "order_quantity", 1)
    firm.check("A1", "no", "AAPL", "sell", 2, 100)
    assert firm.fill("A1", "no", "e1", 2, 99)["flag"] == "fill_on_rejected_order"
    assert firm.position("A1", "AAPL") == (-2, 10, 0)
    assert [alert["severity"] for alert in firm.alerts("fill_on_rejected_order")] == ["critical"]


def test_a_combo_is_filled_leg_by_leg(firm: Caller) -> None:
    firm.combo("A1", "c", "sell 1 AAPL C100, buy 2 AAPL C110", 3, 1)
    fill = on("c") | {"quantity": 3, "price": 5}
    assert code(firm, "record_fill", **fill, exec_id="e1") == "RK400"
    assert code(firm, "record_fill", **fill, exec_id="e1", symbol="AAPL") == "RK400"
    firm.fill("A1", "c", "e1", 3, 5, symbol="AAPL C100")
    assert firm.position("A1", "AAPL C100") == (-3, 0, 0)
    assert firm.position("A1", "AAPL C110") == (0, 6, 0)
    firm.fill("A1", "c", "e2", 5, 5, symbol="AAPL C110")
    states = {
        row["state"]
        for row in firm.rows(
            "select state from risk.orders where account = 'A1' and client_order_id = 'c'"
        )
    }
    assert states == {"PARTIALLY_FILLED"}
    firm.fill("A1", "c", "e3", 1, 5, symbol="AAPL C110")
    states = {
        row["state"]
        for row in firm.rows(
            "select state from risk.orders where account = 'A1' and client_order_id = 'c'"
        )
    }
    assert states == {"FILLED"}


def test_a_leg_that_is_done_and_has_no_mark_holds_up_no_fill_of_another(firm: Caller) -> None:
    firm.call("upsert_instruments", instruments=Jsonb([{"symbol": "NEW", "kind": "stock"}]))
    for symbol in ("NEW", "XOM"):
        firm.hold("A1", symbol, 5, 10)
    assert firm.combo("A1", "c", "sell 1 NEW, sell 1 XOM", 5, -90).is_accepted
    firm.fill("A1", "c", "e1", 5, 10, symbol="NEW")
    assert firm.position("A1", "NEW") == (0, 0, 0)
    for quantity, exec_id in ((2, "e2"), (3, "e3")):
        firm.fill("A1", "c", exec_id, quantity, 80, symbol="XOM")
    assert firm.position("A1", "XOM") == (0, 0, 0)
    states = firm.rows("select state from risk.orders where client_order_id = 'c'")
    assert [row["state"] for row in states] == ["FILLED", "FILLED"]


def test_trades_that_no_order_explains(firm: Caller) -> None:
    trade = {"account": "A1", "symbol": "XOM", "side": "sell", "quantity": 3, "price": 80}
    firm.call("record_trade", **trade, exec_id="t1", kind="assignment")
    assert firm.alerts("unexplained_trade") == []
    firm.call("record_trade", **trade, exec_id="t2")
    firm.call("record_trade", **trade, exec_id="t2")
    assert firm.position("A1", "XOM") == (-6, 0, 0)
    assert [alert["exec_id"] for alert in firm.alerts("unexplained_trade")] == ["t2"]
    assert code(firm, "record_trade", **trade, exec_id="t3", kind="gift") == "RK400"
    assert code(firm, "record_trade", **trade, exec_id="t2", kind="transfer") == "RK409"
    assert code(firm, "record_trade", **(trade | {"account": "B2"}), exec_id="t4") == "RK400"


def test_average_price_and_realized_profit(firm: Caller) -> None:
    firm.fill("A1", "1", "e1", 4, 99)
    firm.fill("A1", "1", "e2", 6, 104)
    firm.check("A1", "out", "AAPL", "sell", 15, 100)
    firm.fill("A1", "out", "e3", 5, 110, fee=1)
    position = "select average_price, realized_pnl_today from risk.positions where account = 'A1'"
    assert firm.rows(position) == [{"average_price": 102, "realized_pnl_today": 39}]
    firm.fill("A1", "out", "e4", 10, 100)
    assert firm.rows(position) == [{"average_price": 100, "realized_pnl_today": 29}]


# -- release, acknowledgement, dispatch --------------------------------------------------------


@pytest.mark.parametrize("reason", ["cancelled", "expired", "broker_rejected"])
def test_a_release_gives_back_what_is_not_filled(firm: Caller, reason: str) -> None:
    firm.fill("A1", "1", "e1", 4, 99)
    for _ in range(2):
        firm.call("release_order", **on("1"), reason=reason)
    assert firm.position("A1", "AAPL") == (4, 0, 0)
    assert order(firm, "1")["state"] == reason.upper()
    assert firm.value(TRADED, "F") == 4 * 99
    assert code(firm, "release_order", **on("none"), reason=reason) == "RK404"


def test_an_acknowledgement_names_the_brokers_order(firm: Caller) -> None:
    firm.call("ack_order", **on("1"), broker_order_id="B7")
    firm.call("ack_order", **on("1"))
    assert state(firm, "1") == "ACKNOWLEDGED"
    assert code(firm, "ack_order", **on("1"), broker_order_id="B8") == "RK409"
    firm.fill("A1", "1", "e1", 1, 99)
    firm.call("ack_order", **on("1"), broker_order_id="B7")
    assert state(firm, "1") == "PARTIALLY_FILLED"


def test_dispatch_marks_an_order_sent(firm: Caller) -> None:
    for _ in range(2):
        assert firm.call("dispatch_order", **on("1")) == {"decision": "ACCEPTED", "reason": None}
    assert state(firm, "1") == "SENT"


@pytest.mark.parametrize(
    ("trading_state", "reason"), [("HALTED", "TRADING_HALTED"), ("REDUCE_ONLY", "REDUCE_ONLY")]
)
def test_dispatch_takes_a_last_look_and_releases_what_may_not_go(
    firm: Caller, trading_state: str, reason: str
) -> None:
    firm.hold("A1", "XOM", 5)
    firm.check("A1", "out", "XOM", "sell", 5, 80)
    what = {"state": trading_state, "reason": "a test", "cancel_open": False}
    firm.call("set_trading_state", scope="D1", **what)
    refusal = {"decision": "REJECTED", "reason": reason}
    assert firm.call("dispatch_order", **on("1")) == refusal
    assert firm.call("dispatch_order", **on("1")) == refusal
    assert firm.position("A1", "AAPL") == (0, 0, 0)
    out = firm.call("dispatch_order", **on("out"))
    assert out["decision"] == ("REJECTED" if trading_state == "HALTED" else "ACCEPTED")


def test_dispatch_of_what_is_closed_or_rejected_is_refused(firm: Caller) -> None:
    firm.call("release_order", **on("1"), reason="cancelled")
    assert firm.call("dispatch_order", **on("1"))["decision"] == "REJECTED"
    firm.limit("A1", "order_quantity", 1)
    firm.check("A1", "no", "AAPL", "buy", 2, 100)
    assert firm.call("dispatch_order", **on("no")) == {
        "decision": "REJECTED",
        "reason": "RISK_LIMIT_EXCEEDED",
    }


# -- the roll of the day -----------------------------------------------------------------------


def test_a_new_day_expires_day_orders_and_starts_traded_notional_again(firm: Caller) -> None:
    firm.check("A1", "gtc", "AAPL", "buy", 5, 90, time_in_force="GTC")
    firm.fill("A1", "gtc", "e1", 2, 90)
    firm.fill("A1", "1", "e2", 1, 99)
    firm.call("open_day", day=DAYS[1], equities='{"A1": "250000.50"}')
    assert order(firm, "1")["state"] == "EXPIRED"
    assert state(firm, "gtc") == "PARTIALLY_FILLED"
    assert firm.position("A1", "AAPL") == (3, 3, 0)
    assert firm.value(TRADED, "F") == 3 * 90
    firm.fill("A1", "gtc", "e3", 1, 90)
    firm.call("open_day", day=DAYS[1])
    assert firm.value(TRADED, "F") == 3 * 90
    assert code(firm, "open_day", day=DAYS[0]) == "RK400"


def test_an_option_can_be_traded_on_the_day_of_its_expiry_and_not_after(firm: Caller) -> None:
    for day, reason in {"2099-03-20": None, "2099-03-21": "INSTRUMENT_EXPIRED"}.items():
        firm.call("open_day", day=day)
        assert firm.check("A1", day, "AAPL C100", "buy", 1, 5).reason == reason
    assert firm.check("A1", "late", "AAPL C100 LATE", "buy", 1, 5).is_accepted


def test_room_comes_back_with_a_release_and_with_the_day(firm: Caller) -> None:
    firm.limit("F", "traded_notional", 1000)
    assert firm.check("A2", "1", "AAPL", "buy", 1, 100).allowed_quantity == 0
    firm.call("release_order", **on("1"), reason="cancelled")
    assert firm.check("A2", "2", "AAPL", "buy", 10, 100).is_accepted
    firm.fill("A2", "2", "e1", 10, 100)
    assert not firm.check("A2", "3", "AAPL", "buy", 1, 100).is_accepted
    firm.call("open_day", day=DAYS[1])
    assert firm.check("A2", "4", "AAPL", "buy", 10, 100).is_accepted
