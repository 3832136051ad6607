"""Replacing a live order: nothing is lost if it is refused, the larger half is reserved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.orders import Caller, Row, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """A buy of 10 AAPL at 100, of agent `a`, is open in A1."""
    with open_firm(db) as caller:
        caller.check("A1", "1", "AAPL", "buy", 10, 100, agent="a", time_in_force="GTC")
        yield caller
        assert caller.differences() == []


def order(firm: Caller, name: str) -> Row:
    (row,) = firm.rows(
        """select state, filled_quantity as filled, remaining_quantity as remaining, close_reason,
             agent, time_in_force as tif
           from risk.orders where account = 'A1' and client_order_id = %s""",
        name,
    )
    return row


def code(firm: Caller, procedure: str, **arguments: Any) -> str | None:
    with pytest.raises(psycopg.Error) as caught:
        firm.call(procedure, **arguments)
    return caught.value.sqlstate


def end(firm: Caller, how: str, name: str) -> None:
    firm.call(f"{how}_replace", account="A1", new_client_order_id=name)


def ask(name: str, quantity: Any, price: Any = 100, old: str = "1") -> dict[str, Any]:
    order = {"account": "A1", "client_order_id": old, "new_client_order_id": name}
    return order | {"quantity": quantity, "price": price}


@pytest.mark.parametrize(("quantity", "reserved"), [(15, 15), (6, 10)])
@pytest.mark.parametrize(("how", "left"), [("confirm", None), ("reject", 10)])
def test_the_larger_of_old_and_new_is_reserved_until_the_broker_has_answered(
    firm: Caller, quantity: int, reserved: int, how: str, left: int | None
) -> None:
    firm.limit("F", "open_orders", 1)
    assert firm.replace("A1", "1", "2", quantity, 100).is_accepted
    assert firm.position("A1", "AAPL") == (0, reserved, 0)
    for _ in range(2):
        end(firm, how, "2")
    assert firm.position("A1", "AAPL") == (0, left or quantity, 0)
    old, new = order(firm, "1"), order(firm, "2")
    if how == "confirm":
        assert (old["state"], old["close_reason"]) == ("CANCELLED", "replaced")
        assert (new["remaining"], new["agent"], new["tif"]) == (quantity, "a", "GTC")
    else:
        assert new["state"] == "BROKER_REJECTED"
        assert old["remaining"] == 10


def test_a_replace_that_is_refused_leaves_the_old_order(firm: Caller) -> None:
    firm.limit("F", "net_position", 12, symbol="AAPL")
    answer = firm.replace("A1", "1", "2", 15, 100)
    assert answer.reason == "RISK_LIMIT_EXCEEDED"
    assert answer.allowed_quantity == 12
    assert firm.position("A1", "AAPL") == (0, 10, 0)
    assert firm.replace("A1", "1", "2", 15, 100) == answer
    assert firm.replace("A1", "1", "3", 12, 100).is_accepted


def test_only_the_increment_is_judged(firm: Caller) -> None:
    firm.limit("F", "gross_notional", 1200)
    firm.limit("F", "traded_notional", 1300)
    firm.limit("F", "open_positions", 1)
    assert firm.replace("A1", "1", "2", 12, 100).is_accepted
    end(firm, "confirm", "2")
    assert firm.replace("A1", "2", "3", 13, 100).failed == {("gross_notional", "F", "all")}
    firm.limit("F", "gross_notional", 5000)
    assert firm.replace("A1", "2", "4", 13, 100).is_accepted


def test_the_new_total_is_judged_by_limits_on_single_orders(firm: Caller) -> None:
    firm.limit("F", "order_quantity", 11)
    assert firm.replace("A1", "1", "2", 12, 100).allowed_quantity == 11
    firm.limit("F", "price_collar_pct", 1)
    assert firm.replace("A1", "1", "3", 11, 102).reason == "PRICE_OUT_OF_BAND"


@pytest.mark.parametrize(
    ("quantity", "price", "passes"),
    [(10, 100, True), (9, 99, True), (9, 101, False), (11, 100, False), (9, None, False)],
)
def test_for_no_more_at_no_worse_a_price_it_passes_unless_halted(
    firm: Caller, quantity: int, price: int | None, passes: bool
) -> None:
    firm.limit("F", "net_position", 1, symbol="AAPL")
    firm.limit("F", "order_quantity", 1)
    state = {"scope": "F", "reason": "a test", "cancel_open": False}
    firm.call("set_trading_state", state="REDUCE_ONLY", **state)
    assert firm.replace("A1", "1", "2", quantity, price).is_accepted is passes
    if passes:
        end(firm, "reject", "2")
    firm.call("set_trading_state", state="HALTED", **state)
    assert firm.replace("A1", "1", "3", quantity, price).reason == "TRADING_HALTED"


def test_fills_under_either_id_reduce_both(firm: Caller) -> None:
    firm.replace("A1", "1", "2", 15, 100)
    firm.fill("A1", "1", "e1", 3, 100)
    firm.fill("A1", "2", "e2", 1, 100)
    assert firm.position("A1", "AAPL") == (4, 11, 0)
    end(firm, "confirm", "2")
    assert firm.position("A1", "AAPL") == (4, 11, 0)
    assert firm.fill("A1", "1", "late", 2, 100)["flag"] is None
    assert firm.position("A1", "AAPL") == (6, 9, 0)
    assert order(firm, "2")["remaining"] == 9


def test_what_the_old_order_filled_beyond_the_new_total_is_booked(firm: Caller) -> None:
    firm.replace("A1", "1", "2", 5, 100)
    firm.fill("A1", "1", "e1", 8, 100)
    assert firm.position("A1", "AAPL") == (8, 2, 0)
    end(firm, "confirm", "2")
    assert firm.position("A1", "AAPL") == (8, 0, 0)
    assert order(firm, "2")["state"] == "FILLED"


def test_a_chain_of_replaces_books_late_fills_on_the_last(firm: Caller) -> None:
    for old, new in (("1", "2"), ("2", "3")):
        assert firm.replace("A1", old, new, 10 + int(new), 100).is_accepted
        end(firm, "confirm", new)
    firm.fill("A1", "1", "e1", 13, 100)
    assert order(firm, "3")["state"] == "FILLED"
    assert firm.position("A1", "AAPL") == (13, 0, 0)


def test_a_cancelled_middle_of_a_chain_stays_what_its_predecessor_was_replaced_by(
    firm: Caller,
) -> None:
    firm.replace("A1", "1", "2", 12, 100)
    end(firm, "confirm", "2")
    firm.replace("A1", "2", "3", 13, 100)
    for name in ("2", "3"):
        firm.call("release_order", account="A1", client_order_id=name, reason="cancelled")
    assert firm.fill("A1", "1", "late", 4, 100)["flag"] == "fill_on_closed_order"
    assert {name: order(firm, name)["filled"] for name in ("1", "2", "3")} == {
        "1": 0,
        "2": 4,
        "3": 0,
    }


def test_a_combo_is_replaced_as_one(firm: Caller) -> None:
    firm.combo("A1", "c", "sell 1 AAPL C100, buy 2 AAPL C110", 2, -1)
    firm.fill("A1", "c", "e1", 1, 5, symbol="AAPL C100")
    assert firm.replace("A1", "c", "d", 3, -2).is_accepted
    end(firm, "confirm", "d")
    assert firm.position("A1", "AAPL C100") == (-1, 0, 2)
    assert firm.position("A1", "AAPL C110") == (0, 6, 0)


def test_what_cannot_be_replaced(firm: Caller) -> None:
    firm.fill("A1", "1", "e1", 4, 100)
    assert code(firm, "replace_order", **ask("2", 4)) == "RK400"
    assert code(firm, "replace_order", **ask("2", "NaN")) == "RK400"
    assert code(firm, "replace_order", **ask("2", 8, old="none")) == "RK404"
    assert firm.replace("A1", "1", "2", 5, 100).is_accepted
    assert code(firm, "replace_order", **ask("3", 8)) == "RK409"  # one is pending
    assert code(firm, "replace_order", **ask("2", 6)) == "RK409"  # the id is taken
    assert code(firm, "replace_order", **ask("1", 8)) == "RK409"
    assert firm.replace("A1", "1", "2", 5, 100).is_accepted
    end(firm, "confirm", "2")
    assert code(firm, "replace_order", **ask("3", 8)) == "RK409"  # no longer live
    for how in ("confirm_replace", "reject_replace"):
        assert code(firm, how, account="A1", new_client_order_id="none") == "RK404"
        assert code(firm, how, account="A1", new_client_order_id="1") == "RK409"


def test_a_release_ends_one_half_of_a_pending_replace(firm: Caller) -> None:
    firm.replace("A1", "1", "2", 15, 100)
    firm.call("release_order", account="A1", client_order_id="1", reason="cancelled")
    assert firm.position("A1", "AAPL") == (0, 15, 0)
    end(firm, "confirm", "2")
    firm.call("release_order", account="A1", client_order_id="2", reason="cancelled")
    assert firm.position("A1", "AAPL") == (0, 0, 0)
