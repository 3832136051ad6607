"""Every process of the server is killed under load: what was answered holds, nothing is doubled."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from tests.orders import LEAVES, Caller, Row, callers, each_at_once, item, open_firm, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import DurableServer
    from tests.databases import Database

ROUNDS = 10
AGENTS = 8
ANSWERS = 150  # to wait for, in each round, before the server is killed
REPEATABLE = {"check_order", "check_combo", "check_orders", "replace_order"}
EFFECTS = {
    "record_fill": """select exists (select from risk_private.fills as f
      join risk_private.scopes as s on s.scope_id = f.account_id
      where s.code = %(account)s and f.exec_id = %(exec_id)s)""",
    "release_order": "closed_at is not null",
    "dispatch_order": "sent_at is not null",
    "ack_order": "acknowledged_at is not null",
    "set_trading_state": """select t.reason::integer >= %(reason)s::integer
      from risk_private.trading_states as t
      join risk_private.scopes as s on s.scope_id = t.scope_id where s.code = %(scope)s""",
}


@dataclass
class Call:
    """A call that was made, and the row that answered it; None: nobody knows what became of it."""

    procedure: str
    arguments: dict[str, Any]
    answer: Row | None = None


@dataclass
class Agent:
    """One caller; some do not wait for the disk of their own accord, some are cancelled often."""

    caller: Caller
    random: random.Random
    names: str
    calls: list[Call] = field(default_factory=list)
    live: list[tuple[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Call until the connection breaks."""
        while True:
            try:
                self.step()
            except errors.QueryCanceled:
                continue
            except psycopg.OperationalError:
                return
            except psycopg.Error as error:
                self.errors.append(f"{error.sqlstate} {error}")
                return

    def make(self, procedure: str, **arguments: Any) -> Row:
        call = Call(procedure, arguments)
        self.calls.append(call)
        call.answer = self.caller.call(procedure, **arguments)
        return call.answer

    def step(self) -> None:
        name = f"{self.names}-{len(self.calls)}"
        account = self.random.choice(LEAVES)
        order = {
            "account": account,
            "client_order_id": name,
            "price": self.random.choice([90, None]),
        }
        kind = self.random.randrange(10)
        if kind < 4:
            symbol, side = self.random.choice(["AAPL", "XOM"]), self.random.choice(["buy", "sell"])
            made = self.make("check_order", **order, symbol=symbol, side=side, quantity=2)
            self.note(account, name, made["decision"])
        elif kind == 4:
            legs = '[{"symbol": "AAPL", "side": "buy"}, {"symbol": "XOM", "side": "sell"}]'
            self.make("check_combo", **order, legs=legs, quantity=1)
        elif kind == 5:
            items = [item(code, name, "sell AAPL", 1) for code in LEAVES]
            self.make("check_orders", orders=psycopg.types.json.Jsonb(items))
        elif kind == 6:
            scope = {"scope": account, "underlying": "MSFT", "state": "REDUCE_ONLY"}
            if self.names.endswith("-0"):
                self.make("set_trading_state", **scope, reason=str(len(self.calls)))
        elif self.live:
            self.carry_on(name)

    def note(self, account: str, name: str, decision: str) -> None:
        if decision == "ACCEPTED":
            self.live.append((account, name))

    def carry_on(self, name: str) -> None:
        """Something further with an order; it is given up first, for the call may be cancelled."""
        account, client_order_id = self.live.pop(self.random.randrange(len(self.live)))
        order = {"account": account, "client_order_id": client_order_id}
        kind = self.random.randrange(4)
        if kind == 0:
            self.make("record_fill", **order, exec_id=name, quantity=1, price=95)
        elif kind == 1:
            self.make("release_order", **order, reason="cancelled")
        elif kind == 2:
            self.make("dispatch_order", **order)
            self.make("ack_order", **order)
        else:
            made = self.make(
                "replace_order", **order, new_client_order_id=name, quantity=3, price=91
            )
            self.note(account, client_order_id, made["decision"])
            if made["decision"] == "ACCEPTED":
                self.live.pop()
                self.make("confirm_replace", account=account, new_client_order_id=name)


def load(database: Database, round_number: int, kill: Callable[[], None]) -> list[Agent]:
    """Agents calling until the server is killed among them."""
    agents = []
    for number in range(AGENTS):
        options = "-c synchronous_commit=off" if number % 2 else ""
        options += " -c statement_timeout=8ms" if number % 4 == 3 else ""
        caller = Caller(database.connect(options=options))
        seed = random.Random(round_number * AGENTS + number)
        agents.append(Agent(caller, seed, f"{round_number}-{number}"))
    threads = [Thread(target=agent.run) for agent in agents]
    for thread in threads:
        thread.start()
    wait_until(
        lambda: sum(call.answer is not None for agent in agents for call in agent.calls) > ANSWERS
    )
    kill()
    for thread, agent in zip(threads, agents, strict=True):
        thread.join()
        agent.caller.connection.close()
    return agents


def effect(caller: Caller, call: Call) -> bool:
    """Whether what an answered call did is there."""
    condition = EFFECTS[call.procedure]
    if not condition.startswith("select"):
        condition = f"""select {condition} from risk_private.orders as o
          join risk_private.scopes as s on s.scope_id = o.account_id
          where s.code = %(account)s and o.client_order_id = %(client_order_id)s"""
    return caller.rows(condition, **call.arguments)[0].popitem()[1] is True


def test_no_answered_decision_is_lost_and_none_is_doubled_when_the_server_is_killed(
    durable_server: Callable[..., DurableServer],
) -> None:
    server = durable_server(wal_writer_delay="10s", autovacuum="off")
    database = server.create_database()
    with open_firm(database) as firm:
        firm.limit("F", "net_position", 60, symbol="AAPL", warn_pct=50)
    calls: list[Call] = []
    for number in range(ROUNDS):
        agents = load(database, number, server.kill)
        database.server = server.start()
        assert [error for agent in agents for error in agent.errors] == []
        with callers(database, AGENTS) as again:
            assert again[0].differences() == []
            each_at_once(list(zip(again, agents, strict=True)), ask_again)
            assert again[0].differences() == []
            release_all(again[0])
        calls += [call for agent in agents for call in agent.calls]
    assert sum(call.answer is not None for call in calls) > ROUNDS * ANSWERS
    assert sum(call.answer is None for call in calls) > ROUNDS


def ask_again(pair: tuple[Caller, Agent]) -> None:
    """Whatever was answered is so, and what was not is decided once."""
    caller, agent = pair
    for call in agent.calls:
        if call.procedure in REPEATABLE:
            answer = caller.call(call.procedure, **call.arguments)
            assert answer == (call.answer or caller.call(call.procedure, **call.arguments))
        elif call.procedure in EFFECTS and call.answer is not None:
            assert call.answer.get("decision") == "REJECTED" or effect(caller, call), call


def release_all(caller: Caller) -> None:
    """Give back what is open, so that the next round finds room."""
    for order in caller.rows("select distinct account, client_order_id from risk.open_orders"):
        caller.call("release_order", **order, reason="cancelled")
