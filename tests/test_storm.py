"""20,000 calls of every kind from many connections at once: no deadlock, no drift, no breach."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import count
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests.agents import Agent
from tests.orders import Caller, Row, all_at_once, callers, each_at_once, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

AGENTS = 16
CALLS = 20_000
DESK_GROSS = 700
EXPECTED = ("ACCEPTED", "REJECTED", "replace ACCEPTED", "replace REJECTED", "RK409", "RK404")
DESK_USE = """select gross_position from risk_private.counters as c
  join risk_private.scopes as s using (scope_id) where s.code = 'D1' and dimension = 0"""
# what autovacuum, which is off here, would do
ANALYZE = """analyze risk_private.orders, risk_private.fills, risk_private.positions,
  risk_private.counters, risk_private.rate_events"""


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        caller.limit("D1", "gross_position", DESK_GROSS)
        caller.limit("F", "net_position", 300, symbol="XOM")
        caller.limit("D2", "open_orders", 150)
        yield caller


def test_a_storm_of_calls_leaves_every_counter_exact(db: Database, firm: Caller) -> None:
    has_ended = Event()
    highest = Decimal(0)
    drift: list[Row] = []

    def watch() -> None:
        nonlocal highest
        for turn in count():
            if has_ended.wait(0.05):
                break
            highest = max(highest, firm.value(DESK_USE))
            if turn % 20 == 0:
                drift.extend(firm.differences())
                firm.rows(ANALYZE)

    def storm() -> None:
        try:
            each_at_once(agents, lambda agent: agent.run(CALLS // AGENTS))
        finally:
            has_ended.set()

    with callers(db, AGENTS) as connections:
        agents = [Agent(caller, number, AGENTS) for number, caller in enumerate(connections)]
        all_at_once([watch, storm])
    done = sum((agent.done for agent in agents), Counter[str]())
    assert [error for agent in agents for error in agent.errors] == []
    assert drift + firm.differences() == []
    assert firm.value("select deadlocks from pg_stat_database where datname = %s", db.name) == 0
    assert DESK_GROSS * 9 / 10 < highest <= DESK_GROSS
    assert min(done[what] for what in EXPECTED) > CALLS / 1000, done
