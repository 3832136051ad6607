"""risk.verify_counters() notices any change of anything that is summed, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.greeks import mark
from tests.orders import PLENTY, Caller, open_firm
from tests.test_money import post, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

LIMITS = ("vega", "delta", "gross_exposure", "max_loss", "buying_power", "same_side")
# What is no sum: keys, what positions are carried at, running numbers, what others told, and a
# peak, which may be any height above the equity.
NO_SUMS = {
    "positions": "unit_",
    "counters": "accepted_orders",
    "equities": "peak",
    "exposures": "none",
    "obligations": "none",
    "cash_balances": "made_known",
}
# Of accounts these are as they were when the day began; scopes above have the sum.
OF_PARENTS = {"known_start", "unstarted", "start_unrealized", "currency_pnl"}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(datetime(2026, 3, 2, 15, 0, tzinfo=UTC))
    with open_firm(db) as caller:
        mark(caller)
        for limit_type in LIMITS:
            caller.limit("F", limit_type, PLENTY)
        caller.call(
            "upsert_instruments",
            instruments=Jsonb([{"symbol": "SAP", "kind": "stock", "currency": "EUR"}]),
        )
        caller.call("set_fx", currency="EUR", rate=Decimal("1.1"))
        caller.mark({"SAP": 100})
        post(caller, "A1", 10**6, "deposit")
        caller.call("open_day", day="2026-03-02")
        for quantity, price in ((9, 100), (-2, 104), (4, 99), (-5, 98)):
            trade(caller, "A1", "AAPL", quantity, price, fee=1)
            trade(caller, "A1", "AAPL C100", quantity, 5)
            trade(caller, "A1", "SAP", quantity, price)
        assert caller.check("A1", "a", "AAPL C100", "buy", 2, 5).is_accepted
        assert caller.check("A1", "b", "AAPL P90", "sell", 2, 5).is_accepted
        assert caller.differences() == []
        yield caller


def summed(firm: Caller, table: str) -> list[str]:
    rows = firm.rows(
        """select a.attname as name from pg_attribute as a
           where a.attrelid = %s::regclass and a.attnum > 0 and a.attgenerated = ''
             and a.atttypid in ('numeric'::regtype, 'integer'::regtype, 'bigint'::regtype)
             and a.attname !~ '_id$'""",
        f"risk_private.{table}",
    )
    return [row["name"] for row in rows if not row["name"].startswith(NO_SUMS[table])]


@pytest.mark.parametrize("table", NO_SUMS)
def test_it_notices_every_number_that_is_changed(firm: Caller, table: str) -> None:
    names = summed(firm, table)
    assert len(names) >= 3
    places = [row["ctid"] for row in firm.rows(f"select ctid::text from risk_private.{table}")]
    assert places
    missed = set(names)
    for name in names:
        change = sql.SQL("update {} set {} = {} + 1 where ctid = %s::tid").format(
            sql.Identifier("risk_private", table), sql.Identifier(name), sql.Identifier(name)
        )
        for place in places:
            with firm.connection.transaction(force_rollback=True):
                firm.connection.execute(change, [place])
                if firm.differences():
                    missed.discard(name)
                    break
    assert missed == set(), table
    assert firm.differences() == []


def test_it_notices_every_number_of_a_payoff(firm: Caller) -> None:
    (number,) = firm.rows("select cardinality((payoff).prices) as points from risk_private.payoffs")
    assert number["points"] >= 3
    places = [
        f"{name}[{point}]"
        for name in ("prices", "losses", "slopes", "put_losses")
        for point in range(1, number["points"] + 1)
    ]
    for place in ("costs", *places):
        with firm.connection.transaction(force_rollback=True):
            firm.rows(
                f"""update risk_private.payoffs as p
                    set payoff.{place} = (p.payoff).{place} + 0.5"""
            )
            assert {(row["scope"], row["dimension"]) for row in firm.differences()} == {
                ("A1", "underlying:AAPL")
            }, place


@pytest.mark.parametrize("scope", ["A1", "F"])
def test_it_notices_every_part_of_an_equity(firm: Caller, scope: str) -> None:
    for name in summed(firm, "equities"):
        if scope == "A1" and name in OF_PARENTS:
            continue
        with firm.connection.transaction(force_rollback=True):
            firm.rows(
                f"""update risk_private.equities as e set {name} = {name} - 1
                    from risk_private.scopes as s where s.scope_id = e.scope_id and s.code = %s""",
                scope,
            )
            assert scope in {row["scope"] for row in firm.differences()}, name


def test_it_notices_what_was_realized_by_one_execution_of_many(firm: Caller) -> None:
    """The price of a trade in the middle moves the cost of all that follow."""
    with firm.connection.transaction(force_rollback=True):
        firm.rows(
            """update risk_private.fills set price = price + 1 where booking = (
                 select min(f.booking) + 3 from risk_private.fills as f)"""
        )
        measures = {row["measure"] for row in firm.differences()}
    assert {"realized_pnl_today", "amount"} <= measures
    assert firm.differences() == []
