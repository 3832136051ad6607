"""Limits, marks and days that change while orders flow."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.orders import (
    LEAVES,
    PLENTY,
    Caller,
    Row,
    callers,
    each_at_once,
    is_waiting,
    open_firm,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from tests.databases import Database

ACCEPTED = "select count(*) from risk_private.orders where decision = 'ACCEPTED'"
# Rows that change no sum: closed orders, flat positions, and what nobody trades.
GROWN = (
    """insert into risk_private.orders (account_id, client_order_id, underlying_id, instrument_ids,
         ratios, quantity, price, is_combo, time_in_force, unit_prices, filled, decision,
         allowed_quantity, state, decided_at, closed_at)
       select s.scope_id, 'old-' || n, 1, '{1}', '{1}', 1, 100, false, 'DAY', '{100}', '{0}',
         'ACCEPTED', 1, 'CANCELLED', now(), now()
       from risk_private.scopes as s cross join generate_series(1, 1000) as n where s.is_leaf""",
    """insert into risk_private.positions (account_id, instrument_id, underlying_id)
       select n, i.instrument_id, i.underlying_id
       from risk_private.instruments as i cross join generate_series(1, 1000) as n
       union all
       select s.scope_id, 1000000 + n, 1000000 + n
       from risk_private.scopes as s cross join generate_series(1, 1000) as n where s.is_leaf""",
    """insert into risk_private.counters (counter_id, scope_id, dimension, key_id)
       select n, 0, 0, 0 from generate_series(1, 1000) as n""",
    """insert into risk_private.instruments (symbol, kind, underlying_id, multiplier, lot, currency,
         allow_negative_price)
       select 'I' || n, 'stock', 1, 1, 1, 'USD', false from generate_series(1, 1000) as n""",
    """insert into risk_private.marks (instrument_id, price, as_of)
       select i.instrument_id, 1, now() from risk_private.instruments as i
       where i.symbol like 'I%'""",
    """insert into risk_private.fx_rates (currency, rate, as_of)
       select 'A' || chr(65 + n / 26) || chr(65 + n % 26), 1, now()
       from generate_series(0, 500) as n""",
)
# What is read: rows, and descents of indexes.
READS = """
select (select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_user_tables)
  + (select sum(idx_scan) from pg_stat_user_indexes)"""


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


def trade(caller: Caller) -> None:
    """Orders of every kind in every account, some filled and some released."""
    for number in range(60):
        account, name = LEAVES[(caller.number + number) % len(LEAVES)], caller.new_name()
        symbol = ("AAPL", "XOM", "AAPL C100", "MSFT")[number % 4]
        if number % 5 == 4:
            caller.combo(account, name, "sell 1 AAPL C100, buy 1 AAPL C110, buy 2 XOM", 1)
            continue
        caller.check(account, name, symbol, "sell" if number % 3 else "buy", 2)
        if number % 2:
            caller.fill(account, name, name, 1, 10)
        if number % 7:
            caller.call("release_order", account=account, client_order_id=name, reason="cancelled")


def test_counters_that_limits_begin_to_need_are_exact_while_orders_flow(
    db: Database, firm: Caller
) -> None:
    drift: list[Row] = []

    def limit_everything(admin: Caller) -> None:
        for scope, limit_type, key in itertools.product(
            ("F", "D1", "D2", "A1", "B2", "S1"),
            ("gross_notional", "order_rate", "open_orders"),
            ({"sector": "Tech"}, {"underlying": "AAPL"}, {"symbol": "XOM"}),
        ):
            admin.limit(scope, limit_type, PLENTY, **key)
            drift.extend(admin.differences())

    with callers(db, 8) as clients:
        each_at_once(
            clients, lambda client: trade(client) if client.number else limit_everything(client)
        )
    assert drift == []


def test_a_limit_set_while_orders_flow_binds_from_then_on(db: Database, firm: Caller) -> None:
    enough, most = 500, 2000

    def buy(client: Caller) -> None:
        while (
            client.value(ACCEPTED) < most
            and client.check("A1", client.new_name(), "AAPL", "buy", 1).is_accepted
        ):
            pass

    def limit(admin: Caller) -> None:
        while admin.value(ACCEPTED) < enough / 10:
            pass
        admin.limit("F", "gross_position", enough, sector="Tech")

    with callers(db, 4) as clients:
        each_at_once(clients, lambda client: buy(client) if client.number else limit(client))
    assert firm.value(ACCEPTED) == enough


def test_an_order_in_flight_is_carried_at_the_mark_that_overtook_it(
    db: Database, firm: Caller
) -> None:
    firm.check("A1", "1", "AAPL", "buy", 1, 100)
    with callers(db, 3) as (blocker, trader, feed), ThreadPoolExecutor(2) as pool:
        with blocker.connection.transaction():
            blocker.rows(
                """select from risk_private.counters as c join risk_private.scopes as s
                   on s.scope_id = c.scope_id where s.code = 'F' for update of c"""
            )
            order = pool.submit(trader.check, "B1", "2", "AAPL", "buy", 1, 100)
            wait_until(lambda: is_waiting(firm, trader))
            marks = pool.submit(feed.mark, {"AAPL": 60})
            wait_until(lambda: marks.done() or is_waiting(firm, feed))
        assert order.result().is_accepted
        marks.result()
    assert gross_notional(firm, "F") == 120


def test_a_batch_stays_for_what_was_in_flight_whoever_else_follows_it(
    db: Database, firm: Caller
) -> None:
    firm.check("A1", "1", "AAPL", "buy", 1, 100)
    with callers(db, 1) as (other,):
        with other.connection.transaction():
            other.rows("select pg_current_xact_id()")
            firm.rows(
                """select risk_private.note_moved(array[i.instrument_id])
                   from risk_private.instruments as i where i.symbol = 'AAPL'"""
            )
            passes = [firm.value("select p::text from risk_private.next_pass() as p") for _ in "12"]
            for each in passes:
                firm.rows("select risk_private.end_pass(%s::risk_private.revaluation_pass)", each)
        # The only account that carries it was locked by the first pass.
        left = "select cardinality(p.batches), p.account_ids from risk_private.next_pass() as p"
        assert [tuple(row.values()) for row in firm.rows(left)] == [(1, [])]
    firm.call("revalue")
    assert firm.value("select count(*) from risk_private.moved_marks") == 0


def test_positions_are_carried_at_the_last_marks_however_trades_and_marks_interleave(
    db: Database, firm: Caller
) -> None:
    def come_and_go(client: Caller) -> None:
        account = LEAVES[client.number]
        for _ in range(100):
            name = client.new_name()
            client.check(account, name, "AAPL", "buy", 1)
            if not name.endswith(("1", "5", "9")):
                cancel = {"client_order_id": name, "reason": "cancelled"}
                client.call("release_order", account=account, **cancel)

    def move(feed: Caller) -> None:
        for price in range(50, 150):
            feed.mark({"AAPL": price, "XOM": 200 - price})

    with callers(db, 4) as clients:
        each_at_once(clients, lambda client: come_and_go(client) if client.number else move(client))
    open_buys = firm.value("select sum(open_buy) from risk_private.positions")
    assert gross_notional(firm, "F") == 149 * open_buys


def gross_notional(firm: Caller, scope: str) -> Decimal:
    value: Decimal = firm.value(
        """select gross_notional from risk_private.counters as c
           join risk_private.scopes as s on s.scope_id = c.scope_id
           where s.code = %s and c.dimension = 0""",
        scope,
    )
    return value


def test_days_opened_at_once_roll_every_account_once(db: Database, firm: Caller) -> None:
    days = [f"2026-02-{day:02}" for day in range(1, 28)]

    def trade_and_roll(client: Caller) -> None:
        for day in days:
            account, name = LEAVES[client.number % len(LEAVES)], client.new_name()
            client.check(account, name, "AAPL", "buy", 1, time_in_force="GTC")
            client.fill(account, name, name, 1, 7)
            try:
                client.call("open_day", day=day)
            except psycopg.Error as error:  # another client has opened a later day
                if error.sqlstate != "RK400":
                    raise

    firm.call("open_day", day="2026-01-31")
    with callers(db, 6) as clients:
        each_at_once(clients, trade_and_roll)
    rolled = "select distinct trading_day::text as day from risk_private.scopes where is_leaf"
    assert firm.rows(rolled) == [{"day": days[-1]}]


def test_a_session_that_planned_on_empty_tables_reads_few_rows(db: Database, firm: Caller) -> None:
    """Its plans hold on after the tables have grown, until these are analyzed."""
    firm.connection.execute("vacuum analyze")
    with callers(db, 1) as (early,):
        for name in ("first", "second"):
            assert early.check("A1", name, "AAPL", "buy", 1).is_accepted
        for load in GROWN:
            firm.connection.execute(load.encode())
        for caller in (firm, early):
            caller.rows("select pg_stat_force_next_flush()")
        reads = []
        for number, account in enumerate(("A1", "A2", "A2")):  # a new position is the second
            before = firm.value(READS)
            assert early.check(account, str(number), "AAPL", "buy", 1).is_accepted
            early.rows("select pg_stat_force_next_flush()")
            reads.append(firm.value(READS) - before)
    assert all(0 < rows < 100 for rows in reads)
