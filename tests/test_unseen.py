"""Whatever a trader calls, in whatever transaction: no accept is seen that could still vanish."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors

from tests.databases import TEST_MAJOR
from tests.orders import Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import DurableServer
    from tests.databases import Database

SINGLE = """'A1', 'mine', '{AAPL}', '{buy}', '{1}', 5, 100, null, 'DAY', false"""
ITEMS = """risk_private.batch_items('[{"account": "A1", "client_order_id": "mine",
  "symbol": "AAPL", "side": "buy", "quantity": "5", "price": "100"}]')"""
REPLACE = "'A1', 'old', 'mine', 7, 100"
ORDER = "'A1', 'mine', 'AAPL', 'buy', 5, 100"
LEGS = """'[{"symbol": "AAPL", "side": "buy"}]'"""
BATCH = """'[{"account": "A1", "client_order_id": "mine", "symbol": "AAPL", "side": "buy",
  "quantity": 5, "price": 100}]'"""
ACCOUNT = "(risk_private.visible_accounts())[1]"
TERMS = "100, 90, 0.5, 0.03, 0.01"
# What a trader may execute, and how he would to learn of the order "mine".
ARGUMENTS = {
    "risk.check_order": ORDER,
    "risk.check_combo": f"'A1', 'mine', {LEGS}, 5, 100",
    "risk.check_orders": BATCH,
    "risk.replace_order": REPLACE,
    "risk.cancel_orders": "'A1', 'why'",
    "risk.preview_order": "'A1', 'AAPL', 'buy', 5, 100",
    "risk.preview_combo": f"'A1', {LEGS}, 5, 100",
    "risk_private.accept_order": "'A1', 'mine', 'AAPL', 'buy', 5, 100, null, 'DAY', true",
    "risk_private.accepted_batch": f"{ITEMS}, pg_current_xact_id_if_assigned()",
    "risk_private.accepted": f"{ACCOUNT}, 'mine', pg_current_xact_id_if_assigned()",
    "risk_private.answer": SINGLE,
    "risk_private.decide_order": SINGLE,
    "risk_private.batch_items": BATCH,
    "risk_private.accept_batch": ITEMS,
    "risk_private.decide_batch": ITEMS,
    "risk_private.answers": ITEMS,
    "risk_private.decide_replace": REPLACE,
    "risk_private.answer_replace": REPLACE,
    "risk_private.preview": "'A1', '{AAPL}', '{buy}', '{1}', 5, 100, null, false",
    "risk_private.combo_legs": LEGS,
    "risk_private.fail": "'RK400', 'no'",
    "risk_private.cancel_orders": "'A1', 'why', null, null, true",
    "risk_private.accounts_to_cancel": "'A1', 'why', null",
    "risk_private.request_cancels": f"{ACCOUNT}, 'why', null, null, true, true",
    "risk_private.flush": "",
    "risk_private.flush_by_commit": "",
    "risk_private.order_id": "'A1', 'mine'",
    "risk_private.visible_accounts": "",
    "risk_private.is_settled": "",
    "risk_private.present_trading_date": "",
    "risk.hot_limits": "'A1', 'AAPL'",
    "risk_private.hot_limits": "'A1', 'AAPL'",
    "risk.limit_cache": "",
    "risk_private.limit_cache": "",
    "risk.option_greeks": f"'call', {TERMS}, 0.2",
    "risk.implied_volatility": f"'call', 15, {TERMS}",
    "risk_private.option_problem": f"'call', {TERMS}",
    "risk_private.require_option_terms": f"'call', {TERMS}, 0.2",
    "risk_private.implied_volatility": f"'call', 15, {TERMS}",
    "risk_private.find_deviation": "0.1, 0.2, 0.1",
}
SILENT = ("25001", "2D000", "RK409")
DECIDING = ("accept_order", "decide_order", "accept_batch", "decide_batch", "decide_replace")


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        caller.check("A1", "old", "AAPL", "buy", 2, 100, time_in_force="GTC")
        yield caller
        assert caller.differences() == []


@pytest.fixture
def trader(db: Database, firm: Caller) -> Iterator[Caller]:
    firm.call("grant_trading", role=db.create_user("ann", "risk_trader"), scope="A1")
    with db.connect("ann", autocommit=True) as connection:
        yield Caller(connection)


def executable(trader: Caller) -> dict[str, str]:
    """Every routine of ours that the trader may execute, and whether it is a function."""
    rows = trader.rows(
        """select p.oid::regproc::text as name, p.prokind::text as kind from pg_proc as p
           where p.pronamespace in ('risk'::regnamespace, 'risk_private'::regnamespace)
             and has_function_privilege(p.oid, 'execute')"""
    )
    return {row["name"]: row["kind"] for row in rows}


def questions(trader: Caller) -> list[str]:
    """Every way to ask anything: routines, and views."""
    calls = [
        f"call {name}({ARGUMENTS[name]})" if kind == "p" else f"select {name}({ARGUMENTS[name]})"
        for name, kind in executable(trader).items()
    ]
    views = trader.rows(
        """select c.oid::regclass::text as name from pg_class as c
           where c.relnamespace in ('risk'::regnamespace, 'risk_private'::regnamespace)
             and c.relkind in ('r', 'v', 'm') and has_table_privilege(c.oid, 'select')
             and c.relname <> 'fake_clock'"""
    )
    return calls + [f"select to_jsonb(v) from {view['name']} as v order by 1" for view in views]


def ask(trader: Caller, question: str) -> Any:
    """The answer, or the class of the error; what it did is undone."""
    try:
        with trader.connection.transaction(force_rollback=True):
            return trader.rows(question)
    except psycopg.Error as error:
        return error.sqlstate


def test_every_routine_of_a_trader_is_tried(trader: Caller) -> None:
    assert set(executable(trader)) == set(ARGUMENTS)


@pytest.mark.parametrize("decide", DECIDING)
@pytest.mark.parametrize("nested", [False, True])
def test_nothing_tells_a_trader_of_an_accept_of_his_own_transaction(
    firm: Caller, trader: Caller, decide: str, nested: bool
) -> None:
    """He is told what he was told before, or given an error that a refusal would give as well."""
    before = {question: ask(trader, question) for question in questions(trader)}
    with trader.connection.transaction(force_rollback=True):
        with trader.connection.transaction() if nested else nullcontext():
            trader.rows(f"select risk_private.{decide}({ARGUMENTS[f'risk_private.{decide}']})")
        told = {question: ask(trader, question) for question in before}
    news = {q: a for q, a in told.items() if a != before[q] and a not in SILENT}
    assert news == {}
    assert firm.position("A1", "AAPL") == (0, 2, 0)


def test_calls_in_one_string_are_undone_together(firm: Caller, trader: Caller) -> None:
    """Several statements in one string are one transaction, in which nothing can commit."""
    for statement in ("rollback", "select 1/0", "select 1"):
        with pytest.raises((errors.InvalidTransactionTermination, errors.DivisionByZero)):
            trader.connection.execute(
                f"select 1; call risk.check_order({ORDER}); {statement}".encode()
            )
    assert firm.position("A1", "AAPL") == (0, 2, 0)


def test_rolling_back_to_a_savepoint_takes_back_no_answer(firm: Caller, trader: Caller) -> None:
    answer = f"select (risk_private.answer({SINGLE})).decision"
    with trader.connection.transaction(force_rollback=True):
        with trader.connection.transaction(force_rollback=True):
            trader.rows(f"select risk_private.decide_order({SINGLE})")
            assert trader.value(answer) is None
        assert trader.value(answer) is None
        trader.rows(f"select risk_private.decide_order({SINGLE})")
        assert trader.value(answer) is None
    assert trader.check("A1", "mine", "AAPL", "buy", 5, 100).is_accepted
    with trader.connection.transaction(force_rollback=True):
        assert trader.value(answer) == "ACCEPTED"
    assert firm.position("A1", "AAPL") == (0, 7, 0)


@pytest.mark.skipif(TEST_MAJOR < 17, reason="no statement flushes before its transaction ends")
def test_an_answer_is_durable_even_where_the_inner_functions_are_called_one_by_one(
    durable_server: Callable[..., DurableServer],
) -> None:
    server = durable_server(wal_writer_delay="10s")
    database = server.create_database()
    with open_firm(database) as firm:
        firm.call("grant_trading", role=database.create_user("ann", "risk_trader"), scope="A1")
    connection = database.connect("ann")
    trader = Caller(connection)
    trader.rows(f"select risk_private.decide_order({SINGLE})")
    connection.execute("begin")
    seen = trader.value(f"select (risk_private.answer({SINGLE})).decision")
    server.kill()
    connection.close()
    database.server = server.start()
    with database.connect() as again:
        kept = Caller(again).rows("select decision from risk.orders where client_order_id = 'mine'")
    assert [{"decision": seen}] == kept
