"""Many callers at the same moment: limits hold exactly, and losers leave nothing."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.orders import (
    LEAVES,
    PLENTY,
    SCOPES,
    Answer,
    Caller,
    Row,
    callers,
    each_at_once,
    is_waiting,
    item,
    open_firm,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg import Connection

    from tests.databases import Database

    Way = Callable[[Caller, str, str], Answer]

CLIENTS = 32
ROOM = 37
ACCEPTED = "select count(*) from risk_private.orders where decision = 'ACCEPTED'"
RIVALS = ("A1", "B1")
# What an accepted order of an account leaves, save the order itself.
TRACES = """
  select to_jsonb(c) as trace from risk_private.counters as c
  join risk_private.scopes as s on s.scope_id = c.scope_id where s.code = any (%(codes)s)
  union all
  select to_jsonb(p) from risk_private.positions as p
  join risk_private.scopes as s on s.scope_id = p.account_id where s.code = any (%(codes)s)
  union all
  select to_jsonb(e) from risk_private.rate_events as e
  join risk_private.counters as c on c.counter_id = e.counter_id
  join risk_private.scopes as s on s.scope_id = c.scope_id where s.code = any (%(codes)s)
  union all
  select to_jsonb(r) from risk_private.recent_orders as r
  join risk_private.scopes as s on s.scope_id = r.account_id where s.code = any (%(codes)s)
  order by 1"""


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


def single(caller: Caller, account: str, name: str) -> Answer:
    return caller.check(account, name, "AAPL", "buy", 1, 100)


def combo(caller: Caller, account: str, name: str) -> Answer:
    return caller.combo(account, name, "buy 1 AAPL, sell 1 AAPL C110", 1)


def batch(caller: Caller, account: str, name: str) -> Answer:
    return caller.batch([item(account, name, "buy AAPL", 1)])[0]


def until_refused(way: Way, *accounts: str) -> Callable[[Caller], list[Answer]]:
    """Ask for one unit after the other, in one account after the other, until the first refusal."""

    def run(caller: Caller) -> list[Answer]:
        answers: list[Answer] = []
        while not answers or answers[-1].is_accepted:
            number = caller.number + len(answers)
            answers.append(way(caller, accounts[number % len(accounts)], caller.new_name()))
        return answers

    return run


@pytest.mark.parametrize(
    ("scope", "limit_type", "amount", "rest"),
    [
        ("A1", "net_position", ROOM, {"symbol": "AAPL"}),
        ("A1", "net_position", ROOM, {"warn_pct": 50}),
        ("F", "long_position", ROOM, {"underlying": "AAPL"}),
        ("D1", "gross_position", ROOM, {"sector": "Tech", "warn_pct": 50}),
        ("F", "gross_notional", 100 * ROOM, {}),
        ("D1", "traded_notional", 100 * ROOM, {"symbol": "AAPL", "warn_pct": 50}),
        ("F", "open_orders", ROOM, {}),
        ("A1", "order_rate_minute", ROOM, {}),
        ("D1", "order_rate_minute", ROOM, {"sector": "Tech", "warn_pct": 50}),
    ],
)
def test_exactly_the_capacity_is_accepted(
    db: Database, firm: Caller, scope: str, limit_type: str, amount: int, rest: dict[str, Any]
) -> None:
    db.set_clock(datetime.now(UTC))
    firm.limit(scope, limit_type, amount, **rest)
    with callers(db, CLIENTS) as clients:
        answers = each_at_once(clients, until_refused(single, "A1"))
    assert firm.value(ACCEPTED) == ROOM
    assert sum(answer.is_accepted for several in answers for answer in several) == ROOM
    assert {failed[0] for several in answers for failed in several[-1].failed} == {limit_type}


@pytest.mark.parametrize("way", [single, combo, batch])
@pytest.mark.parametrize(
    ("limit_type", "key"),
    [
        ("net_position", {"symbol": "AAPL"}),
        ("gross_position", {"symbol": "AAPL"}),
        ("open_orders", {"underlying": "AAPL"}),
        ("order_rate_minute", {"sector": "Tech"}),
    ],
)
def test_exactly_the_capacity_of_the_firm_is_accepted_across_accounts(
    db: Database, firm: Caller, limit_type: str, key: dict[str, str], way: Way
) -> None:
    db.set_clock(datetime.now(UTC))
    firm.limit("F", limit_type, ROOM, **key)
    with callers(db, CLIENTS) as clients:
        each_at_once(clients, until_refused(way, *LEAVES))
    assert firm.value(ACCEPTED) == ROOM


def test_batches_larger_than_the_room_are_accepted_in_part(db: Database, firm: Caller) -> None:
    firm.limit("F", "gross_position", ROOM)

    def ask(caller: Caller) -> int:
        items = [item(account, caller.new_name(), "buy AAPL", 1) for account in LEAVES]
        return sum(answer.is_accepted for answer in caller.batch(items))

    with callers(db, CLIENTS) as clients:
        assert sum(each_at_once(clients, ask)) == ROOM
    assert firm.value(ACCEPTED) == ROOM


def traces(firm: Caller, account: str) -> list[Row]:
    return firm.rows(TRACES, codes=[account, SCOPES[account][1]])


def race(clients: list[Caller], way: Way, name: str) -> dict[str, Answer]:
    """The answers that an account of each desk gets for the same order at the same moment."""

    def ask(client: Caller) -> tuple[str, Answer]:
        account = RIVALS[client.number]
        return account, way(client, account, name)

    return dict(each_at_once(clients, ask))


@pytest.mark.parametrize("way", [single, combo, batch])
def test_two_desks_race_for_the_last_unit_and_the_loser_leaves_nothing(
    db: Database, firm: Caller, way: Way
) -> None:
    firm.limit("F", "net_position", 1, symbol="AAPL")
    firm.limit("F", "order_rate_minute", 1000)
    firm.limit("F", "duplicate_window", "0.000001")
    with callers(db, 2) as clients:
        for number in range(20):
            before = {account: traces(firm, account) for account in RIVALS}
            answers = race(clients, way, f"race {number}")
            winner, loser = sorted(RIVALS, key=lambda account: answers[account].decision)
            assert answers[winner].is_accepted
            assert answers[loser].failed == {("net_position", "F", "instrument:AAPL")}
            assert traces(firm, loser) == before[loser]
            assert traces(firm, winner) != before[winner]
            release = {"client_order_id": f"race {number}", "reason": "expired"}
            firm.call("release_order", account=winner, **release)
            clients.reverse()


def test_an_account_that_is_locked_holds_up_no_other(db: Database, firm: Caller) -> None:
    """More wait for it than there are places in line."""
    lock = """
      select from risk_private.counters as c
      join risk_private.scopes as s on s.counter_id = c.counter_id where s.code = 'A1'
      for no key update of c"""
    with (
        ThreadPoolExecutor(8) as pool,
        callers(db, 8) as stuck,
        callers(db, 8) as others,
        db.connect(autocommit=False) as holder,
    ):
        holder.execute(lock)
        waiting = [pool.submit(single, each, "A1", f"stuck-{n}") for n, each in enumerate(stuck)]
        wait_until(lambda: all(is_waiting(firm, each) for each in stuck))
        for number, other in enumerate(others):
            other.rows("select set_config('lock_timeout', '20s', false)")
            assert single(other, "A2", f"free-{number}").decision == "ACCEPTED"
        holder.rollback()
        assert [each.result().decision for each in waiting] == ["ACCEPTED"] * 8


def new_stocks(firm: Caller) -> list[str]:
    symbols = [f"NEW{number}" for number in range(12)]
    stocks = [{"symbol": symbol, "kind": "stock", "sector": "New"} for symbol in symbols]
    firm.call("upsert_instruments", instruments=Jsonb(stocks))
    firm.mark(dict.fromkeys(symbols, 10))
    return symbols


def waits_for(firm: Caller, caller: Caller, *holders: Connection) -> bool:
    """Whether what a caller waits for is a lock of one of these."""
    query = "select pg_blocking_pids(%s) && %s::integer[]"
    pids = [holder.info.backend_pid for holder in holders]
    return firm.value(query, caller.connection.info.backend_pid, pids) is True


def test_a_revaluation_and_a_batch_that_finds_no_room_do_not_deadlock(
    db: Database, firm: Caller
) -> None:
    """Without room at the firm, the batch waits for its other counters only, to give them back."""
    symbols = new_stocks(firm)
    for symbol in symbols:
        firm.hold("B1", symbol, 10)
    firm.limit("F", "gross_notional", PLENTY, underlying="NEW0")
    firm.limit("F", "gross_position", 121)
    lock = """
      select from risk_private.counters where counter_id in (
        select c.counter_id from risk_private.counters as c
        join risk_private.scopes as s using (scope_id) where s.code = 'F' and c.dimension = 2
        order by c.counter_id offset {} limit {}) for no key update"""
    with (
        ThreadPoolExecutor(2) as pool,
        callers(db, 2) as (feed, trader),
        db.connect(autocommit=False) as second,
        db.connect(autocommit=False) as others,
    ):
        second.execute(lock.format(1, 1))
        others.execute(lock.format(2, 10))
        items = [item("A1", trader.new_name(), f"buy {symbol}", 1) for symbol in symbols]
        asked = pool.submit(trader.batch, items)
        wait_until(lambda: waits_for(firm, trader, second))
        marked = pool.submit(feed.mark, dict.fromkeys(symbols, 20))
        wait_until(lambda: is_waiting(firm, feed))
        others.rollback()
        wait_until(lambda: waits_for(firm, feed, second, trader.connection))
        second.rollback()
        assert [answer.is_accepted for answer in asked.result()] == [True] + [False] * 11
        marked.result()


def test_many_trade_new_instruments_at_once(db: Database, firm: Caller) -> None:
    symbols = new_stocks(firm)
    for scope, key in itertools.product(
        ("F", "D1", "D2", "B2"), ({"sector": "New"}, {"symbol": "NEW0"})
    ):
        firm.limit(scope, "gross_position", PLENTY, **key)
    firm.limit("F", "open_orders", PLENTY, underlying="NEW1")

    def first_trades(client: Caller) -> None:
        mine = symbols[client.number % 2 :: 2][:: 1 if client.number % 4 < 2 else -1]
        account = LEAVES[client.number % len(LEAVES)]
        for one, other in itertools.pairwise(mine):
            assert client.check(account, client.new_name(), one, "buy", 1).is_accepted
            legs = f"buy 1 {one}, sell 1 {other}"
            assert client.combo(account, client.new_name(), legs, 1).is_accepted
            items = [
                item(LEAVES[-number], client.new_name(), f"buy {symbol}", 1)
                for number, symbol in enumerate((other, one))
            ]
            assert all(answer.is_accepted for answer in client.batch(items))

    with callers(db, 16) as clients:
        each_at_once(clients, first_trades)
    assert firm.value(ACCEPTED) == 16 * 5 * 4
