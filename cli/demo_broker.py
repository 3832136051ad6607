"""The demo's broker: executes what was accepted, and reports it to the engine."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from pgrisk.cli.demo_agents import Order
    from pgrisk.cli.demo_market import Market

    Connection = psycopg.Connection[tuple[Any, ...]]

_FEE_PER_SHARE, _FEE_PER_CONTRACT = Decimal("0.0035"), Decimal("0.65")
_DISPATCH = "call risk.dispatch_order(account => %s, client_order_id => %s)"
_ACK = "call risk.ack_order(account => %s, client_order_id => %s, broker_order_id => %s)"
_RELEASE = "call risk.release_order(account => %s, client_order_id => %s, reason => %s)"
_CONFIRM = "call risk.confirm_replace(account => %s, new_client_order_id => %s)"
_REJECT = "call risk.reject_replace(account => %s, new_client_order_id => %s)"
_FILL = """
call risk.record_fill(account => %s, client_order_id => %s, exec_id => %s, quantity => %s,
  price => %s, symbol => %s, fee => %s)"""


@dataclass
class Working:
    """An accepted order at the broker."""

    account: str
    client_order_id: str
    order: Order
    filled: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.account, self.client_order_id


@dataclass(frozen=True)
class Fill:
    """What an execution added to an account."""

    account: str
    symbol: str
    quantity: int


class Broker:
    """Executes orders: some at once, some in parts, some later, some never.

    What happens to an order is drawn from its own id, so it does not depend on who comes first.
    Each account has its events on one connection, in their order.
    """

    def __init__(self, connections: list[Connection], accounts: list[str], market: Market) -> None:
        self._market = market
        self._connections = connections
        self._lanes = [ThreadPoolExecutor(1) for _ in connections]
        self._lane_of = {a: number % len(connections) for number, a in enumerate(accounts)}
        self._working: dict[str, dict[str, Working]] = {account: {} for account in accounts}
        self._jobs: list[Future[list[Fill]]] = []
        self.cancel_requests: Counter[str] = Counter()
        """How many the engine sent, by their reason."""

    def submit(self, working: Working) -> None:
        """Send an accepted order."""
        self._run(working, self._execute)

    def finish(self, working: Working) -> None:
        """Fill what is left of an order."""
        self._run(working, self._finish)

    def cancel(self, working: Working) -> None:
        """Cancel an order."""
        self._run(working, self._cancel)

    def replace(self, working: Working, new: Working) -> None:
        """Put an accepted replacement in the place of an order, or refuse to."""
        self._run(working, lambda c, w: self._replace(c, w, new))

    def working(self, account: str) -> list[Working]:
        """The orders of an account that were live when everything was drained last."""
        return list(self._working[account].values())

    def expire(self) -> None:
        """End what ends with the day: day orders, which the engine closes, and dead options'."""
        for orders in self._working.values():
            for working in list(orders.values()):
                if working.order.time_in_force == "DAY":
                    del orders[working.client_order_id]
                elif any(leg.symbol not in self._market.quotes for leg in working.order.legs):
                    self._run(working, self._expire)

    def drain(self) -> list[Fill]:
        """Wait until everything is executed; returns the fills since the last time."""
        jobs, self._jobs = self._jobs, []
        return [fill for job in jobs for fill in job.result()]

    def answer_alerts(self) -> None:
        """Take the engine's messages, and cancel what they ask to cancel."""
        reader = self._connections[0]
        while messages := reader.execute(
            "select msg_id, message from pgmq.read('risk_alerts', 30, 500)"
        ).fetchall():
            for _, message in messages:
                if message["kind"] == "cancel_request":
                    self.cancel_requests[message["reason"]] += 1
                    working = self._working[message["account"]].get(message["client_order_id"])
                    if working:
                        self.cancel(working)
            ids = [message_id for message_id, _ in messages]
            reader.execute("select pgmq.archive('risk_alerts', %s::bigint[])", [ids])

    def close(self) -> None:
        """Take no more orders, and let the running ones end."""
        for lane in self._lanes:
            lane.shutdown(cancel_futures=True)

    def _run(self, working: Working, job: Callable[[Connection, Working], list[Fill]]) -> None:
        lane = self._lane_of[working.account]
        self._jobs.append(self._lanes[lane].submit(job, self._connections[lane], working))

    def _execute(self, connection: Connection, working: Working) -> list[Fill]:
        answer = connection.execute(_DISPATCH, working.key).fetchone()
        if answer is None or answer[0] != "ACCEPTED":
            return []
        self._working[working.account][working.client_order_id] = working
        fate = _fate(working)
        if fate < 0.04:
            self._release(connection, working, "broker_rejected")
            return []
        if fate < 0.4:
            return self._finish(connection, working)
        if fate < 0.6:
            return self._fill(connection, working, (working.order.quantity + 1) // 2)
        connection.execute(_ACK, [*working.key, f"B-{working.client_order_id}"])
        return []

    def _finish(self, connection: Connection, working: Working) -> list[Fill]:
        return self._fill(connection, working, working.order.quantity - working.filled)

    def _fill(self, connection: Connection, working: Working, quantity: int) -> list[Fill]:
        fills = []
        for leg in working.order.legs:
            filled, fee = quantity * leg.ratio, _FEE_PER_SHARE
            if leg.symbol in self._market.options:
                fee = _FEE_PER_CONTRACT
            execution = f"{working.client_order_id}/{working.filled}/{leg.symbol}"
            price = self._price(working.order, leg.symbol, leg.side)
            connection.execute(
                _FILL, [*working.key, execution, filled, price, leg.symbol, filled * fee]
            )
            signed = filled if leg.side == "buy" else -filled
            fills.append(Fill(working.account, leg.symbol, signed))
        working.filled += quantity
        if working.filled >= working.order.quantity:
            self._working[working.account].pop(working.client_order_id, None)
        return fills

    def _price(self, order: Order, symbol: str, side: str) -> Decimal:
        quote = self._market.quotes[symbol]
        if len(order.legs) > 1 or order.price is None:
            return quote.ask if side == "buy" else quote.bid
        return min(quote.ask, order.price) if side == "buy" else max(quote.bid, order.price)

    def _cancel(self, connection: Connection, working: Working) -> list[Fill]:
        self._release(connection, working, "cancelled")
        if _fate(working) > 0.97:  # an execution crossed the cancel on its way
            return self._fill(connection, working, 1)
        return []

    def _expire(self, connection: Connection, working: Working) -> list[Fill]:
        self._release(connection, working, "expired")
        return []

    def _release(self, connection: Connection, working: Working, reason: str) -> None:
        connection.execute(_RELEASE, [*working.key, reason])
        self._working[working.account].pop(working.client_order_id, None)

    def _replace(self, connection: Connection, working: Working, new: Working) -> list[Fill]:
        if _fate(new) < 0.15:
            connection.execute(_REJECT, new.key)
            return []
        connection.execute(_CONFIRM, new.key)
        del self._working[working.account][working.client_order_id]
        new.filled = working.filled
        self._working[new.account][new.client_order_id] = new
        return []


def _fate(working: Working) -> float:
    return random.Random("/".join(working.key)).random()  # noqa: S311
