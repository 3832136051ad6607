"""Calls that make no sense are refused with the argument named, and leave nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.orders import PLENTY, Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from tests.databases import Database

LOT = {"symbol": "LOT", "kind": "stock", "lot": "5", "tick": "0.05"}
OIL = {"symbol": "OIL", "kind": "future", "tick": "0.5", "allow_negative_price": True}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        caller.call("upsert_instruments", instruments=Jsonb([LOT, OIL]))
        caller.mark({"LOT": 10, "OIL": -3})
        yield caller
        assert caller.differences() == []


@pytest.fixture
def trader(db: Database, firm: Caller) -> Iterator[Caller]:
    """A trader of A1."""
    firm.call("grant_trading", role=db.create_user("ann", "risk_trader"), scope="A1")
    with db.connect("ann") as connection:
        yield Caller(connection)


def refused(caller: Caller, *arguments: Any, **rest: Any) -> tuple[str | None, str]:
    """Code and DETAIL of the error that an order raises; it leaves nothing."""
    before = caller.value("select count(*) from risk.orders")
    with pytest.raises(psycopg.Error) as caught:
        caller.check(*arguments, **rest)
    assert caller.value("select count(*) from risk.orders") == before
    return caught.value.sqlstate, caught.value.diag.message_detail or ""


@pytest.mark.parametrize(
    ("arguments", "code", "argument"),
    [
        (("Z9", "1", "AAPL", "buy", 1), "RK404", "account"),
        (("F", "1", "AAPL", "buy", 1), "RK400", "account"),
        (("B2", "1", "AAPL", "buy", 1), "RK400", "account"),
        (("A1", "1", "NONE", "buy", 1), "RK404", "symbol"),
        (("A1", "1", "aapl", "buy", 1), "RK404", "symbol"),
        (("A1", "1", "AAPL", "BUY", 1), "RK400", "side"),
        (("A1", "1", "AAPL", "short", 1), "RK400", "side"),
        (("A1", "1", "LOT", "buy", 7), "RK400", "quantity"),
        (("A1", "1", "LOT", "buy", "5.5"), "RK400", "quantity"),
        (("A1", "1", "AAPL", "buy", "1e13"), "RK400", "quantity"),
        (("A1", "1", "LOT", "buy", 5, "10.02"), "RK400", "price"),
        (("A1", "1", "LOT", "buy", 5, "-10.05"), "RK400", "price"),
        (("A1", "1", "LOT", "buy", 5, 0), "RK400", "price"),
        (("A1", "1", "OIL", "buy", 1, "-2.75"), "RK400", "price"),
        (("A1", "1", "AAPL", "buy", 1, "1e13"), "RK400", "price"),
        (("A1", " 1", "AAPL", "buy", 1), "RK400", "client_order_id"),
        (("A1", "x" * 65, "AAPL", "buy", 1), "RK400", "client_order_id"),
    ],
)
def test_an_order_that_makes_no_sense(
    firm: Caller, arguments: tuple[Any, ...], code: str, argument: str
) -> None:
    sqlstate, detail = refused(firm, *arguments)
    assert sqlstate == code
    assert f"argument: {argument}" in detail


def test_what_is_just_within_the_rules(firm: Caller) -> None:
    assert firm.check("A1", "x" * 64, "LOT", "buy", 5, "10.05").is_accepted
    assert firm.check("A1", "2", "LOT", "buy", "10.00").is_accepted
    assert firm.check("A1", "3", "OIL", "sell", 1, "-2.5").is_accepted
    assert firm.check("A1", "4", "OIL", "buy", "1.00000000", 0).is_accepted


@pytest.mark.parametrize(
    "legs",
    [
        "buy 1 AAPL, sell 1 AAPL",
        "buy 0 AAPL",
        "buy 1000 AAPL, sell 1 XOM",
        ", ".join(f"buy 1 S{number}" for number in range(9)),
    ],
)
def test_legs_that_make_no_sense(firm: Caller, legs: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        firm.combo("A1", "1", legs, 1)
    assert caught.value.sqlstate == "RK400"
    assert "argument: legs" in (caught.value.diag.message_detail or "")


@pytest.mark.parametrize(
    "other",
    [
        {"quantity": 11},
        {"price": 99},
        {"price": None},
        {"side": "sell"},
        {"symbol": "XOM"},
        {"agent": "b"},
        {"time_in_force": "GTC"},
    ],
)
@pytest.mark.parametrize("room", [PLENTY, 5])
def test_an_id_is_not_used_for_another_order(
    firm: Caller, other: dict[str, Any], room: Decimal
) -> None:
    firm.limit("F", "net_position", room)
    order = {"symbol": "AAPL", "side": "buy", "quantity": 10, "price": 100, "agent": "a"}
    first = firm.check("A1", "1", **order)  # type: ignore[arg-type]
    sqlstate, detail = refused(firm, "A1", "1", **(order | other))
    assert (sqlstate, detail) == ("RK409", "argument: client_order_id")
    assert firm.check("A1", "1", **order) == first  # type: ignore[arg-type]


def test_the_same_order_written_differently_is_the_same(firm: Caller) -> None:
    first = firm.check("A1", "1", "AAPL", "buy", 10, 100)
    assert firm.check("A1", "1", "AAPL", "buy", "10.00", "1e2") == first
    combo = firm.combo("A1", "2", "buy 1 AAPL, sell 2 XOM", 1, 5)
    assert firm.combo("A1", "2", "sell 2 XOM, buy 1 AAPL", 1, "5.0") == combo


def test_a_batch_with_one_bad_order_leaves_nothing(firm: Caller) -> None:
    good = {"account": "A1", "symbol": "AAPL", "side": "buy", "quantity": "1"}
    ids = [{"client_order_id": name} for name in ("1", "2", "1")]
    for bad in (good | {"quantity": "NaN"}, good | {"symbol": "NONE"}, good | {"typo": 1}, good):
        with pytest.raises(psycopg.Error) as caught:
            firm.batch([good | ids[0], good | ids[1], bad | ids[2 if bad == good else 1]])
        assert (caught.value.sqlstate or "").startswith("RK40")
    assert firm.value("select count(*) from risk.orders") == 0


def test_a_call_inside_a_transaction_is_refused_and_undone(firm: Caller, trader: Caller) -> None:
    for caller in (firm, trader):
        with pytest.raises(errors.InvalidTransactionTermination), caller.connection.transaction():
            caller.check("A1", "1", "AAPL", "buy", 1)
    with pytest.raises(errors.InvalidTransactionTermination):
        firm.connection.execute(
            """call risk.check_order('A1', '2', 'AAPL', 'buy', 1);
               call risk.check_order('A1', '3', 'AAPL', 'buy', 1)"""
        )
    assert firm.position("A1", "AAPL") == (0, 0, 0)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_another_isolation_level_is_a_clear_error(trader: Caller, level: str) -> None:
    trader.rows(f"set default_transaction_isolation = '{level}'")
    sqlstate, _ = refused(trader, "A1", "1", "AAPL", "buy", 1)
    assert sqlstate == "25001"
    trader.rows("set default_transaction_isolation = 'read committed'")
    assert trader.check("A1", "1", "AAPL", "buy", 1).is_accepted


def test_a_read_only_session_gets_an_error(trader: Caller) -> None:
    trader.rows("set default_transaction_read_only = on")
    assert refused(trader, "A1", "1", "AAPL", "buy", 1)[0] == "25006"


@pytest.mark.parametrize("amount", ["'NaN'", "'Infinity'", "'-Infinity'", "-1", "1e20"])
def test_an_impossible_limit_cannot_be_stored_even_by_the_owner(firm: Caller, amount: str) -> None:
    firm.limit("A1", "order_quantity", 8)
    for table in ("limits", "limit_periods"):
        with pytest.raises(errors.CheckViolation):
            firm.rows(f"update risk_private.{table} set amount = {amount}")


def test_a_limit_in_force_cannot_be_made_null_even_by_the_owner(firm: Caller) -> None:
    firm.limit("A1", "order_quantity", 8)
    with pytest.raises(errors.NotNullViolation):
        firm.rows("update risk_private.limit_periods set amount = null")


@pytest.mark.parametrize("price", ["'NaN'", "'Infinity'", "null"])
def test_an_impossible_mark_cannot_be_stored_even_by_the_owner(firm: Caller, price: str) -> None:
    with pytest.raises(errors.IntegrityError):
        firm.rows(f"update risk_private.marks set price = {price}")


def test_what_is_missing_refuses(firm: Caller) -> None:
    firm.call("upsert_instruments", instruments=Jsonb([{"symbol": "NEW", "kind": "stock"}]))
    assert firm.check("A1", "1", "NEW", "buy", 1, 10).reason == "STALE_DATA"
    firm.call("remove_limit", scope="F", limit_type="net_position")
    assert firm.check("A1", "2", "AAPL", "buy", 1, 10).reason == "CONFIG_NOT_FOUND"
    assert firm.check("A1", "3", "NEW", "buy", 1).reasons == {
        *("CONFIG_NOT_FOUND", "STALE_DATA", "REFERENCE_PRICE_UNAVAILABLE")
    }
