"""Plans made while tables were empty stay in use when they are full: none may go through a table
once for each row of another."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from pgrisk.worker.jobs import Context, reconciliation
from pgrisk.worker.log import create_log
from pgrisk.worker.metrics import Metrics
from tests.orders import PLENTY, Caller, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

ORDERS = 200


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(datetime(2098, 1, 6, 15, 0, tzinfo=UTC))
    with open_firm(db) as caller:
        caller.limit("F", "traded_notional", PLENTY)
        caller.rows("vacuum analyze")
        yield caller


def rows_read(node: dict[str, Any]) -> float:
    """Rows of tables that a plan looked at."""
    own = 0
    if "Relation Name" in node:
        per_loop = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        own = per_loop * node["Actual Loops"]
    return own + sum(rows_read(child) for child in node.get("Plans", ()))


@pytest.mark.parametrize(
    "view", ["risk_private.working_legs", "risk_private.used_by_sums", "risk_private.dollar_deltas"]
)
def test_a_plan_made_for_empty_tables_reads_each_once(firm: Caller, view: str) -> None:
    firm.rows(f"prepare plan as select count(*) from (select * from {view}) as v")
    firm.rows("execute plan")
    for batch in range(ORDERS // 100):
        items = [item("A1", f"{batch}-{number}", "buy AAPL", 1, price=100) for number in range(100)]
        assert all(answer.is_accepted for answer in firm.batch(items))
    (row,) = firm.rows("explain (analyze, timing off, summary off, format json) execute plan")
    (plan,) = row["QUERY PLAN"]
    scopes = firm.value("select count(*) from risk_private.scopes")
    assert ORDERS <= rows_read(plan["Plan"]) < 3 * ORDERS * scopes


def test_a_recount_planned_for_empty_tables_reads_each_a_few_times(firm: Caller) -> None:
    epoch = firm.value("select risk_private.take_lease('one', '{}')")
    context = Context(firm.connection, epoch, create_log("one"), Metrics(), print)
    reconciliation(context)
    symbols = [f"S{number}" for number in range(ORDERS)]
    stocks = [{"symbol": symbol, "kind": "stock"} for symbol in symbols]
    firm.call("upsert_instruments", instruments=Jsonb(stocks))
    firm.mark(dict.fromkeys(symbols, 100))
    for symbol in symbols:
        firm.hold("A1", symbol, 1, 100)
    before = fetched(firm)
    reconciliation(context)
    assert ORDERS <= fetched(firm) - before < 50 * ORDERS


def fetched(firm: Caller) -> int:
    """Rows of the engine's tables that were read so far."""
    firm.rows("select pg_stat_force_next_flush()")
    return int(
        firm.value(
            "select sum(t.seq_tup_read + coalesce(t.idx_tup_fetch, 0))"
            " from pg_stat_user_tables as t where t.schemaname = 'risk_private'"
        )
    )
