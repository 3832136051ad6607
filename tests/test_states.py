"""Halts, instrument statuses and cancel requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors

from tests.orders import Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import DurableServer
    from tests.databases import Database

ACCEPT = """select risk_private.accept(array['A1'], array[
  row(1, 'A1', 'slow', 'AAPL', 'buy', 1, 100, null, 'DAY')::risk_private.request])"""


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """The small firm, with the superuser."""
    with open_firm(db) as caller:
        yield caller


def halt(firm: Caller, scope: str, state: str = "HALTED", **rest: object) -> None:
    firm.call("set_trading_state", scope=scope, state=state, reason="a test", **rest)


def buy(firm: Caller, account: str, client_order_id: str, symbol: str = "AAPL") -> str:
    """Decision, or reason of the rejection."""
    answer = firm.check(account, client_order_id, symbol, "buy", 1, 100)
    return answer.reason or answer.decision


def effective(firm: Caller) -> dict[tuple[str, str | None], str]:
    rows = firm.rows("select scope, underlying, effective_state from risk.trading_states")
    return {(row["scope"], row["underlying"]): row["effective_state"] for row in rows}


def requested(firm: Caller) -> list[str]:
    """Ids of the orders whose cancel was requested, message by message."""
    return [alert["client_order_id"] for alert in firm.alerts("cancel_request")]


def refusal(firm: Caller, procedure: str, **arguments: Any) -> tuple[str | None, str]:
    """Code of the error, and the argument that it is about."""
    with pytest.raises(psycopg.Error) as caught:
        firm.call(procedure, **arguments)
    return caught.value.sqlstate, (caught.value.diag.message_detail or "").partition(",")[0]


# -- trading states ----------------------------------------------------------------------------


def test_a_halt_holds_for_everything_below_until_it_is_lifted(firm: Caller) -> None:
    halt(firm, "D1")
    assert buy(firm, "A1", "1") == "TRADING_HALTED"
    assert buy(firm, "A2", "2") == "TRADING_HALTED"
    assert buy(firm, "B1", "3") == "ACCEPTED"
    halt(firm, "D1", "ACTIVE")
    assert buy(firm, "A1", "4") == "ACCEPTED"
    assert buy(firm, "A1", "1") == "TRADING_HALTED", "the first answer stays"


def test_a_halt_of_one_underlying_leaves_the_others(firm: Caller) -> None:
    halt(firm, "F", underlying="AAPL")
    assert buy(firm, "A1", "1", "AAPL C100") == "TRADING_HALTED"
    assert buy(firm, "A1", "2", "MSFT") == "ACCEPTED"
    combo = firm.combo("A1", "3", "buy 1 MSFT, sell 1 AAPL P90", 1)
    assert combo.reason == "TRADING_HALTED"


def test_reduce_only_passes_what_reduces(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 10)
    halt(firm, "D1", "REDUCE_ONLY")
    assert buy(firm, "A1", "1") == "REDUCE_ONLY"
    assert firm.check("A1", "2", "AAPL", "sell", 10, 100).is_accepted
    assert firm.check("A1", "3", "AAPL", "sell", 1, 100).reason == "REDUCE_ONLY"


def test_the_most_severe_state_above_an_account_is_the_effective_one(firm: Caller) -> None:
    halt(firm, "F", "REDUCE_ONLY")
    halt(firm, "A1", "HALTED", underlying="MSFT")
    halt(firm, "D1", "ACTIVE")
    states = effective(firm)
    assert states["F", None] == states["A1", None] == states["S2", None] == "REDUCE_ONLY"
    assert states["A1", "MSFT"] == "HALTED"
    assert ("A2", "MSFT") not in states


def test_the_view_names_who_set_the_effective_state_and_why(db: Database, firm: Caller) -> None:
    with db.connect(db.create_user("boss", "risk_admin")) as connection:
        Caller(connection).call(
            "set_trading_state", scope="F", state="REDUCE_ONLY", reason="far too hot"
        )
    halt(firm, "A1", "ACTIVE")
    (row,) = firm.rows("select * from risk.trading_states where scope = 'A1'")
    assert (row["own_state"], row["effective_state"]) == ("ACTIVE", "REDUCE_ONLY")
    assert (row["changed_by"], row["reason"]) == ("boss", "far too hot")
    assert firm.value("select clock_timestamp() - %s < interval '1 minute'", row["since"])
    halt(firm, "F", "ACTIVE")
    (row,) = firm.rows("select * from risk.trading_states where scope = 'A1'")
    assert (row["effective_state"], row["changed_by"]) == ("ACTIVE", "postgres")


def test_a_state_survives_a_crash_right_after_the_call(
    durable_server: Callable[..., DurableServer],
) -> None:
    """Even for a session whose commits do not wait for the disk."""
    durable = durable_server(wal_writer_delay="10s")
    database = durable.create_database()
    with open_firm(database) as firm:
        firm.connection.execute("set synchronous_commit = off")
        firm.call("set_instrument_status", symbol="AAPL", status="BLOCKED", reason="a test")
        halt(firm, "F")
        durable.kill()
    database.server = durable.start()
    with database.connect() as connection:
        firm = Caller(connection)
        assert set(effective(firm).values()) == {"HALTED"}
        assert firm.value("select status from risk.instruments where symbol = 'AAPL'") == "BLOCKED"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"state": "PAUSED"}, ("RK400", "argument: state")),
        ({"state": None}, ("RK400", "argument: state")),
        ({"reason": " "}, ("RK400", "argument: reason")),
        ({"reason": None}, ("RK400", "argument: reason")),
        ({"reason": "x" * 1001}, ("RK400", "argument: reason")),
        ({"cancel_open": None}, ("RK400", "argument: cancel_open")),
        ({"scope": "nowhere"}, ("RK404", "argument: scope")),
        ({"scope": None}, ("RK404", "argument: scope")),
        ({"underlying": "nothing"}, ("RK404", "argument: symbol")),
        ({"underlying": "AAPL C100"}, ("RK400", "argument: underlying")),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(
    firm: Caller, arguments: dict[str, Any], expected: tuple[str, str]
) -> None:
    sensible = {"scope": "F", "state": "HALTED", "reason": "a test"}
    assert refusal(firm, "set_trading_state", **sensible | arguments) == expected
    assert set(effective(firm).values()) == {"ACTIVE"}


def test_inside_a_transaction_nothing_is_changed(firm: Caller) -> None:
    buy(firm, "A1", "1")
    for procedure, arguments in {
        "set_trading_state": {"scope": "F", "state": "HALTED"},
        "cancel_orders": {"scope": "F"},
        "set_instrument_status": {"symbol": "AAPL", "status": "BLOCKED"},
    }.items():
        with pytest.raises(errors.InvalidTransactionTermination), firm.connection.transaction():
            firm.call(procedure, reason="a test", **arguments)
    assert set(effective(firm).values()) == {"ACTIVE"}
    assert requested(firm) == []


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_other_isolation_levels_get_a_clear_error(firm: Caller, isolation: str) -> None:
    firm.connection.execute(f"set default_transaction_isolation to '{isolation}'".encode())
    with pytest.raises(errors.ActiveSqlTransaction, match="read committed"):
        halt(firm, "F")


# -- cancel requests ---------------------------------------------------------------------------


def test_a_halt_requests_the_cancel_of_every_open_order_below(firm: Caller) -> None:
    for account in ("A1", "A2", "S1"):
        buy(firm, account, f"{account} open")
    buy(firm, "A1", "filled")
    firm.fill("A1", "filled", "e1", 1, 100)
    firm.check("A1", "refused", "AAPL", "buy", 10**10, 100)
    halt(firm, "D1")
    ids = {
        row["account"]: str(row["order_id"])
        for row in firm.rows("select account, order_id from risk.open_orders")
    }
    messages = firm.alerts("cancel_request")
    assert sorted(messages, key=lambda message: message["account"]) == [
        {
            "kind": "cancel_request",
            "account": account,
            "client_order_id": f"{account} open",
            "order_id": ids[account],
            "reason": "a test",
        }
        for account in ("A1", "A2")
    ]
    open_orders = firm.rows("select * from risk.open_orders order by account")
    asked = {row["account"]: row["cancel_requested_at"] is not None for row in open_orders}
    assert asked == {"A1": True, "A2": True, "S1": False}
    assert [row["reserved_quantity"] for row in open_orders] == [1, 1, 1], "nothing is released"


def test_a_halt_of_one_underlying_cancels_what_has_a_leg_in_it(firm: Caller) -> None:
    buy(firm, "A1", "stock", "MSFT")
    buy(firm, "A1", "option", "AAPL C100")
    firm.combo("A1", "combo", "buy 1 MSFT, sell 1 AAPL P90", 1)
    halt(firm, "F", underlying="AAPL")
    assert requested(firm) == ["option", "combo"]


def test_a_halt_can_leave_open_orders_alone(firm: Caller) -> None:
    buy(firm, "A1", "1")
    halt(firm, "F", cancel_open=False)
    halt(firm, "F", "REDUCE_ONLY")
    assert requested(firm) == []
    halt(firm, "F")
    assert requested(firm) == ["1"]


def test_a_halt_asks_once_and_cancel_orders_as_often_as_it_is_called(firm: Caller) -> None:
    buy(firm, "A1", "1")
    halt(firm, "F")
    (first,) = firm.rows("select cancel_requested_at from risk.open_orders")
    halt(firm, "D1")
    assert requested(firm) == ["1"]
    firm.call("cancel_orders", scope="A1", reason="lost it")
    assert requested(firm) == ["1", "1"]
    assert firm.rows("select cancel_requested_at from risk.open_orders") == [first]


def test_cancel_orders_picks_by_scope_underlying_and_agent(firm: Caller) -> None:
    firm.check("A1", "a", "AAPL", "buy", 1, 100, agent="condor")
    firm.check("A1", "b", "MSFT", "buy", 1, 100, agent="condor")
    firm.check("A1", "c", "AAPL", "buy", 1, 100)
    firm.check("B1", "d", "AAPL", "buy", 1, 100, agent="condor")
    picks = {
        "c": {"scope": "D1", "underlying": "AAPL"},
        "b": {"scope": "F", "underlying": "MSFT", "agent": "condor"},
        "d": {"scope": "D2", "agent": "condor"},
        "": {"scope": "F", "agent": "another"},
    }
    expected = [["a", "c"], ["b"], ["d"], []]
    for arguments, ids in zip(picks.values(), expected, strict=True):
        before = len(requested(firm))
        firm.call("cancel_orders", reason="a test", **arguments)
        assert requested(firm)[before:] == ids


def test_both_halves_of_a_pending_replace_are_asked_for(firm: Caller) -> None:
    buy(firm, "A1", "old")
    firm.replace("A1", "old", "new", 2, 100)
    firm.call("cancel_orders", scope="F", reason="a test")
    assert requested(firm) == ["old", "new"]


def test_a_cancelled_order_is_not_asked_for_again(firm: Caller) -> None:
    buy(firm, "A1", "1")
    halt(firm, "F")
    firm.call("release_order", account="A1", client_order_id="1", reason="cancelled")
    firm.call("cancel_orders", scope="F", reason="a test")
    assert requested(firm) == ["1"]


def test_a_trader_cancels_what_he_may_trade(db: Database, firm: Caller) -> None:
    for account in ("A1", "A2", "B1"):
        buy(firm, account, account)
    firm.call("grant_trading", role=db.create_user("ann", "risk_trader"), scope="D1")
    with db.connect("ann") as connection:
        ann = Caller(connection)
        for scope in ("F", "D2", "B1"):
            arguments = {"scope": scope, "reason": "a test"}
            assert refusal(ann, "cancel_orders", **arguments) == ("RK403", "argument: scope")
        ann.call("cancel_orders", scope="A2", reason="a test")
        ann.call("cancel_orders", scope="D1", reason="a test")
        with pytest.raises(errors.InsufficientPrivilege):
            halt(ann, "A1")
        request = "select risk_private.request_cancels(%s, 'x', null, null, true, true)"
        (b1,) = firm.rows("select scope_id from risk_private.scopes where code = 'B1'")
        with pytest.raises(psycopg.DatabaseError) as caught:
            connection.execute(request, [b1["scope_id"]])
        assert caught.value.sqlstate == "RK403"
    assert sorted(requested(firm)) == ["A1", "A2", "A2"]


def test_an_admin_cancels_without_a_trading_grant(db: Database, firm: Caller) -> None:
    buy(firm, "A1", "1")
    with db.connect(db.create_user("boss", "risk_admin")) as connection:
        Caller(connection).call("cancel_orders", scope="F", reason="a test")
    assert requested(firm) == ["1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"reason": ""}, ("RK400", "argument: reason")),
        ({"scope": "nowhere"}, ("RK404", "argument: scope")),
        ({"underlying": "nothing"}, ("RK404", "argument: symbol")),
        ({"underlying": "AAPL P90"}, ("RK400", "argument: underlying")),
    ],
)
def test_a_cancel_that_makes_no_sense_is_refused(
    firm: Caller, arguments: dict[str, Any], expected: tuple[str, str]
) -> None:
    sensible = {"scope": "F", "reason": "a test"}
    assert refusal(firm, "cancel_orders", **sensible | arguments) == expected


# -- halts against traders ---------------------------------------------------------------------


def wait_until(firm: Caller, query: str, *parameters: object) -> None:
    """Until the query says true."""
    deadline = firm.value("select clock_timestamp() + interval '30 seconds'")
    while not firm.value(query, *parameters):
        assert firm.value("select clock_timestamp() < %s", deadline), query


def test_a_halt_waits_for_no_trader_and_misses_no_order(db: Database, firm: Caller) -> None:
    """A trader sits in a transaction that has accepted an order and holds his account's lock. The
    halt is in force all the same, every other account is asked to cancel, and his order too, once
    he commits."""
    for account in ("A2", "B1", "S1"):
        buy(firm, account, account)
    with db.connect() as trader, db.connect() as admin, ThreadPoolExecutor() as pool:
        with trader.transaction():
            trader.execute(ACCEPT.encode())
            call = pool.submit(halt, Caller(admin), "F")
            wait_until(firm, "select bool_and(effective_state = 'HALTED') from risk.trading_states")
            assert buy(firm, "A2", "late") == "TRADING_HALTED"
            wait_until(firm, "select count(*) = 3 from pgmq.q_risk_alerts")
            wait_until(
                firm,
                "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s",
                admin.info.backend_pid,
            )
            assert sorted(requested(firm)) == ["A2", "B1", "S1"]
        call.result(timeout=30)
    assert sorted(requested(firm)) == ["A2", "B1", "S1", "slow"]
    assert firm.differences() == []


# -- instrument statuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "buys", "closes", "shorts"),
    [
        ("ACTIVE", True, True, True),
        ("RESTRICTED", False, True, False),
        ("NO_NEW_SHORTS", True, True, False),
        ("BLOCKED", False, False, False),
    ],
)
def test_what_an_instrument_status_lets_pass(
    firm: Caller, status: str, buys: bool, closes: bool, shorts: bool
) -> None:
    firm.hold("A1", "AAPL", 10)
    firm.call("set_instrument_status", symbol="AAPL", status=status, reason="the list")
    answers = [
        firm.check("A1", "buy", "AAPL", "buy", 1, 100),
        firm.check("A1", "close", "AAPL", "sell", 10, 100),
        firm.check("A1", "short", "AAPL", "sell", 1, 100),
    ]
    assert [answer.is_accepted for answer in answers] == [buys, closes, shorts]
    assert {answer.reason for answer in answers} <= {None, "RESTRICTED_INSTRUMENT"}
    assert buy(firm, "A1", "other", "MSFT") == "ACCEPTED"
    (row,) = firm.rows("select * from risk.instruments where symbol = 'AAPL'")
    assert (row["status"], row["status_reason"]) == (status, "the list")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"status": "HALTED"}, ("RK400", "argument: status")),
        ({"status": None}, ("RK400", "argument: status")),
        ({"reason": "\t"}, ("RK400", "argument: reason")),
        ({"symbol": "nothing"}, ("RK404", "argument: symbol")),
        ({"symbol": None}, ("RK404", "argument: symbol")),
    ],
)
def test_a_status_that_makes_no_sense_is_refused(
    firm: Caller, arguments: dict[str, Any], expected: tuple[str, str]
) -> None:
    sensible = {"symbol": "AAPL", "status": "BLOCKED", "reason": "a test"}
    assert refusal(firm, "set_instrument_status", **sensible | arguments) == expected
    assert firm.value("select status from risk.instruments where symbol = 'AAPL'") == "ACTIVE"
