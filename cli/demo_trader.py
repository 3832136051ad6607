"""The demo's agents at work: they look at their limits, ask, and send what was accepted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pgrisk.cli.demo_agents import Order, View, next_order
from pgrisk.cli.demo_broker import Working

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgrisk.cli.demo_broker import Broker, Connection
    from pgrisk.cli.demo_firm import Agent
    from pgrisk.client.cache import LimitCache
    from pgrisk.client.limits import HotLimits

_BASKET = 25
_HOLDS_BACK = 0.5
"""How often an agent stands aside that sees a halt; else it asks all the same."""
_CHECK_ORDER = """
call risk.check_order(account => %s, client_order_id => %s, symbol => %s, side => %s,
  quantity => %s, price => %s, agent => %s, time_in_force => %s)"""
_CHECK_COMBO = """
call risk.check_combo(account => %s, client_order_id => %s, legs => %s,
  quantity => %s, price => %s, agent => %s, time_in_force => %s)"""
_REPLACE_ORDER = """
call risk.replace_order(account => %s, client_order_id => %s, new_client_order_id => %s,
  quantity => %s, price => %s)"""


class DemoError(Exception):
    """The demo cannot run, or the engine broke a promise; the message says which."""


class Trader:
    """One agent with its connection."""

    def __init__(
        self,
        agent: Agent,
        connection: Connection,
        broker: Broker,
        view: View,
        cache: LimitCache,
        on_decision: Callable[[int], None],
    ) -> None:
        self.view = view
        self.held_back = 0
        self._agent = agent
        self._connection = connection
        self._broker = broker
        self._cache = cache
        self._on_decision = on_decision
        self._ids = 0

    def trade(self, orders: int, is_open: bool) -> None:
        """Look after the orders of before, then ask for so many new ones."""
        for working in self._broker.working(self._agent.account):
            self._review(working)
        if is_open and self._agent.name == "mean-reversion":
            self._check_basket()
        for _ in range(orders):
            limits = self._cache.get(self._agent.account)
            if limits.state == "HALTED" and self.view.dice.random() < _HOLDS_BACK:
                self.held_back += 1
                continue
            order = next_order(self._agent.name, self.view, closes=self._should_close(limits))
            self._check(order)
            if self.view.dice.random() < 0.02:
                self._check(order)  # the same again under a new id: a loop run wild

    def _should_close(self, limits: HotLimits) -> bool:
        """Whether only what reduces has a chance, as the agent mostly heeds."""
        is_full = any(limit.utilization_pct == 100 for limit in limits.limits)
        return (limits.state == "REDUCE_ONLY" or is_full) and self.view.dice.random() < 0.6

    def _new(self, order: Order) -> Working:
        self._ids += 1
        return Working(self._agent.account, f"{self._agent.name}-{self._ids}", order)

    def _review(self, working: Working) -> None:
        choice = self.view.dice.random()
        if choice < 0.15:
            self._broker.finish(working)
        elif choice < 0.25:
            self._broker.cancel(working)
        elif choice < 0.4:
            self._replace(working)

    def _replace(self, working: Working) -> None:
        old = working.order
        quantity = max(working.filled + 1, round(old.quantity * self.view.dice.uniform(0.5, 1.6)))
        new = self._new(replace(old, quantity=quantity, price=self.view.price(old.legs, 1.0)))
        arguments = [*working.key, new.client_order_id, quantity, new.order.price]
        if self._ask(_REPLACE_ORDER, arguments):
            self._broker.replace(working, new)

    def _check(self, order: Order) -> None:
        new = self._new(order)
        rest = [order.quantity, order.price, self._agent.name, order.time_in_force]
        if len(order.legs) == 1:
            (leg,) = order.legs
            accepted = self._ask(_CHECK_ORDER, [*new.key, leg.symbol, leg.side, *rest])
        else:
            legs = [{"symbol": g.symbol, "side": g.side, "ratio": g.ratio} for g in order.legs]
            accepted = self._ask(_CHECK_COMBO, [*new.key, json.dumps(legs), *rest])
        if accepted:
            self._broker.submit(new)

    def _ask(self, statement: str, arguments: list[Any]) -> bool:
        answer = self._connection.execute(statement.encode(), arguments).fetchone()
        self._on_decision(1)
        if self.view.dice.random() < 0.01:  # as after a time-out
            again = self._connection.execute(statement.encode(), arguments).fetchone()
            if again != answer:
                raise DemoError(f"the same question got {answer} first and {again} then")
        return answer is not None and answer[1] == "ACCEPTED"

    def _check_basket(self) -> None:
        basket = [self._new(next_order(self._agent.name, self.view)) for _ in range(_BASKET)]
        items = [_item(working, self._agent.name) for working in basket]
        row = self._connection.execute(
            "call risk.check_orders(orders => %s)", [json.dumps(items)]
        ).fetchone()
        self._on_decision(_BASKET)
        for working, answer in zip(basket, row[0] if row else [], strict=True):
            if answer["decision"] == "ACCEPTED":
                self._broker.submit(working)


def _item(working: Working, agent: str) -> dict[str, Any]:
    (leg,) = working.order.legs
    return {
        "account": working.account,
        "client_order_id": working.client_order_id,
        "symbol": leg.symbol,
        "side": leg.side,
        "quantity": str(working.order.quantity),
        "price": None if working.order.price is None else str(working.order.price),
        "agent": agent,
        "time_in_force": working.order.time_in_force,
    }
