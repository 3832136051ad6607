"""One client_order_id is one decision, however often and with whatever content it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.orders import Answer, Caller, callers, each_at_once, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

    Way = Callable[[Caller, int], Answer]

TIMES = 50


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


@pytest.fixture
def clients(db: Database) -> Iterator[list[Caller]]:
    with callers(db, TIMES) as connections:
        yield connections


def single(client: Caller, quantity: int) -> Answer:
    return client.check("A1", "same", "AAPL", "buy", quantity, 100, agent="a")


def combo(client: Caller, quantity: int) -> Answer:
    return client.combo("A1", "same", "buy 1 AAPL, sell 1 AAPL C110", quantity, 95)


def batch(client: Caller, quantity: int) -> Answer:
    others = [item(account, client.new_name(), "buy XOM", 1) for account in ("A2", "B1")]
    return client.batch([*others, item("A1", "same", "buy AAPL", quantity)])[2]


def replacement(client: Caller, quantity: int) -> Answer:
    return client.replace("A1", "old", "same", quantity, 100)


WAYS = [single, combo, batch, replacement]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("room", "decision"), [(1000, "ACCEPTED"), (10, "REJECTED")])
def test_an_id_sent_fifty_times_at_once_is_one_decision_and_fifty_equal_answers(
    firm: Caller, clients: list[Caller], way: Way, room: int, decision: str
) -> None:
    firm.limit("F", "net_position", room, symbol="AAPL")
    firm.check("A1", "old", "AAPL", "buy", 1, 100, time_in_force="GTC")
    first, *others = each_at_once(clients, lambda client: way(client, 11))
    assert others == [first] * (TIMES - 1)
    assert first.decision == decision
    assert decided(firm) == [{"decision": decision, "quantity": 11}]
    open_buys = firm.position("A1", "AAPL")[1]
    assert open_buys == (1 if decision == "REJECTED" else 11 if way is replacement else 12)


@pytest.mark.parametrize("way", WAYS)
def test_an_id_sent_with_two_contents_at_once_is_one_decision_and_a_conflict(
    firm: Caller, clients: list[Caller], way: Way
) -> None:
    firm.check("A1", "old", "AAPL", "buy", 1, 100, time_in_force="GTC")

    def ask(client: Caller) -> Answer | str:
        try:
            return way(client, 5 if client.number % 2 else 7)
        except psycopg.Error as error:
            return str(error.sqlstate)

    answers = each_at_once(clients, ask)
    (winner,) = {answer.allowed_quantity for answer in answers if isinstance(answer, Answer)}
    assert decided(firm) == [{"decision": "ACCEPTED", "quantity": winner}]
    assert answers.count("RK409") == TIMES / 2
    assert sum(isinstance(answer, Answer) for answer in answers) == TIMES / 2


def test_an_id_asked_as_order_and_as_combo_at_once_is_one_decision(
    firm: Caller, clients: list[Caller]
) -> None:
    def ask(client: Caller) -> str:
        try:
            if client.number % 2:
                return client.check("A1", "same", "AAPL", "buy", 1, 100).decision
            return client.combo("A1", "same", "buy 1 AAPL", 1, 100).decision
        except psycopg.Error as error:
            return str(error.sqlstate)

    answers = each_at_once(clients, ask)
    assert sorted(answers) == ["ACCEPTED"] * (TIMES // 2) + ["RK409"] * (TIMES // 2)
    assert firm.position("A1", "AAPL") == (0, 1, 0)


def test_an_id_in_two_accounts_is_two_orders(firm: Caller) -> None:
    one, other = (firm.check(account, "same", "AAPL", "buy", 1) for account in ("A1", "A2"))
    assert one.order_id != other.order_id


def decided(firm: Caller) -> list[dict[str, object]]:
    return firm.rows(
        "select decision, quantity from risk_private.orders where client_order_id = 'same'"
    )


def test_executions_reported_many_times_at_once_are_booked_once(
    firm: Caller, clients: list[Caller]
) -> None:
    firm.check("A1", "same", "AAPL", "buy", 100, 100)

    def report(client: Caller) -> None:
        client.fill("A1", "same", f"x{client.number % 5}", 10, 99)
        trade = {"symbol": "AAPL", "side": "sell", "quantity": 1, "price": 99, "kind": "transfer"}
        client.call("record_trade", account="A1", exec_id=f"t{client.number % 5}", **trade)

    each_at_once(clients, report)
    assert firm.position("A1", "AAPL") == (45, 50, 0)
