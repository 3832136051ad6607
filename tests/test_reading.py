"""Analysts and traders do not wait for each other: views take no lock that an order needs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.orders import Caller, callers, item, open_firm
from tests.test_money import post

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
LIMIT_TYPES = ("net_exposure", "concentration_pct", "max_loss", "gross_notional", "daily_loss")
VIEWS = """select c.relname as name from pg_class as c
  where c.relnamespace = 'risk'::regnamespace and c.relkind in ('v', 'm')
    and has_table_privilege('risk_analyst', c.oid, 'select') order by 1"""
TABLES = """select c.relname as name from pg_class as c
  where c.relnamespace = 'risk_private'::regnamespace and c.relkind = 'r' order by 1"""
READS = (
    "select * from risk.verify_counters()",
    "select risk.hot_limits('A1', 'AAPL')",
    "select * from risk.preview_order('A1', 'AAPL', 'buy', 1, 100)",
)
IMPATIENT = "set lock_timeout = '2s'"


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """A firm with positions, orders and limits, so that every view has something to look at."""
    db.set_clock(NOW)
    with open_firm(db) as caller:
        post(caller, "A1", 100_000, "deposit")
        caller.call("open_day", day=NOW.date())
        for limit_type in LIMIT_TYPES:
            caller.limit("F", limit_type, 10**6)
        caller.hold("A1", "AAPL", 10, 100)
        caller.check("A1", "open", "AAPL", "buy", 5, 100)
        yield caller


@pytest.fixture
def analyst(db: Database) -> Iterator[Caller]:
    user = db.create_user("anna", "risk_analyst")
    with callers(db, 1, user) as (caller,):
        yield caller


def read_everything(firm: Caller, analyst: Caller) -> None:
    views = [row["name"] for row in firm.rows(VIEWS)]
    assert {"concentration", "exposure", "limit_utilization", "positions", "pnl"} <= set(views)
    for name in views:
        analyst.connection.execute(sql.SQL("select * from risk.{}").format(sql.Identifier(name)))
    for query in READS:
        analyst.rows(query)


def test_reading_waits_for_nobody(db: Database, firm: Caller, analyst: Caller) -> None:
    """One order is being decided, and somebody else has locked every row that there is."""
    analyst.rows(IMPATIENT)
    with db.connect(autocommit=False) as decider:
        decider.execute(
            "select risk_private.accept_order('A1', 'n', 'AAPL', 'buy', 1, 100, null, 'DAY', false)"
        )
        for row in firm.rows(TABLES):
            table = sql.Identifier("risk_private", row["name"])
            decider.execute(sql.SQL("select from {} for update").format(table))
        read_everything(firm, analyst)
        assert analyst.value("select count(*) from risk.open_orders") == 1
        decider.commit()
    assert analyst.value("select count(*) from risk.open_orders") == 2


def test_nobody_waits_for_a_reader(firm: Caller, analyst: Caller) -> None:
    """A transaction that has read everything, and is not over, while all goes on."""
    firm.rows(IMPATIENT)
    analyst.rows("begin")
    read_everything(firm, analyst)
    held = firm.rows(
        "select distinct locktype, mode from pg_locks where pid = %s and granted",
        analyst.connection.info.backend_pid,
    )
    assert {(row["locktype"], row["mode"]) for row in held} == {
        ("relation", "AccessShareLock"),
        ("virtualxid", "ExclusiveLock"),
    }
    assert firm.check("A1", "a", "AAPL", "buy", 1, 100).is_accepted
    assert firm.check("A1", "b", "AAPL", "buy", 10**6, 100).reason == "RISK_LIMIT_EXCEEDED"
    assert firm.combo("A1", "c", "buy 1 AAPL, buy 1 MSFT", 1, 150).is_accepted
    assert firm.batch([item("A1", "d", "buy AAPL", 1, price=100)])[0].is_accepted
    assert firm.replace("A1", "a", "e", 2, 100).is_accepted
    firm.call("confirm_replace", account="A1", new_client_order_id="e")
    firm.fill("A1", "e", "e1", 1, 100)
    firm.call("release_order", account="A1", client_order_id="e", reason="cancelled")
    firm.mark({"AAPL": 101, "MSFT": 49})
    post(firm, "A1", 5, "dividend")
    firm.limit("D1", "concentration_pct", 90, sector="Tech")
    firm.call("set_trading_state", scope="A2", state="HALTED", reason="a test")
    firm.call("open_day", day="2026-03-03", equities=Jsonb({"A1": "100000"}))
    firm.call("refresh_views")
    analyst.rows("commit")
    assert firm.differences() == []
