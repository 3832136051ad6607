"""Agents that make random calls of every kind, side by side on the same few accounts."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from tests.orders import LEAVES, PLENTY, STOCKS, Caller, item

if TYPE_CHECKING:
    from collections.abc import Callable


ORDERLY = ("A1", "A2")  # nothing but what the engine accepted moves these: their limit must hold
UNRULY = ("B1", "S1", "S2")
LEGS = (
    "sell 1 AAPL C100, buy 1 AAPL C110",
    "buy 1 AAPL P90, sell 2 AAPL P100",
    "sell 1 AAPL P90, buy 1 AAPL P100, sell 1 AAPL C100, buy 1 AAPL C110",
    "buy 1 MSFT, sell 1 XOM",
)
SUMS = ("gross_position", "gross_notional", "traded_notional", "open_orders", "open_positions")
OTHERS = ("net_position", "long_position", "order_rate", "order_rate_minute", "duplicate_window")
KEYS: tuple[dict[str, str], ...] = (
    {},
    {"sector": "Tech"},
    {"sector": "Energy"},
    {"underlying": "AAPL"},
    {"underlying": "XOM"},
    {"symbol": "MSFT"},
    {"symbol": "AAPL C100"},
)

NOT_REPLACEABLE = ("RK400", "RK404", "RK409")  # closed, replaced or filled by others meanwhile


@dataclass
class Order:
    """An accepted order that its agent still works on."""

    account: str
    client_order_id: str
    quantity: int
    filled: int = 0
    has_legs: bool = False


class Agent:
    """One connection making random calls, the same ones for the same number."""

    def __init__(self, caller: Caller, number: int, agents: int) -> None:
        self.caller = caller
        self.number = number
        self.agents = agents
        self.random = random.Random(number)
        self.names = 1
        self.made = 0
        self.live: list[Order] = []
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self.actions: dict[Callable[[], None], float] = {
            self.check: 40,
            self.combo: 10,
            self.batch: 8,
            self.ask_again: 4,
            self.replace: 12,
            self.fill: 20,
            self.release: 10,
            self.send: 12,
            self.meddle: 12,
            self.trade: 2,
            self.set_marks: 2,
            self.set_limit: 3,
            self.halt: 1,
            self.cancel: 0.8,
            self.open_day: 0.2,
        }

    def run(self, calls: int) -> None:
        """Make so many calls; `errors` then holds what went wrong, `done` what came out."""
        weights = list(self.actions.values())
        for action in self.random.choices(list(self.actions), weights=weights, k=calls):
            self.made += 1
            try:
                action()
            except psycopg.Error as error:
                self.errors.append(f"{action.__name__}: {error.sqlstate} {error}")

    def attempt(self, call: Callable[[], object], *expected: str) -> bool:
        """Make a call that may fail with one of the expected errors."""
        try:
            call()
        except psycopg.Error as error:
            if error.sqlstate not in expected:
                raise
            self.done[str(error.sqlstate)] += 1
            return False
        return True

    def name(self) -> str:
        self.names += 1
        return f"{self.number}-{self.names}"

    def price(self) -> int:
        return self.random.randint(1, 120)

    # -- deciding --------------------------------------------------------------------------

    def check(self) -> None:
        account = self.random.choice(LEAVES)
        order = Order(account, self.name(), self.random.randint(1, 10))
        answer = self.caller.check(
            account,
            order.client_order_id,
            self.random.choice([*STOCKS, "AAPL C100", "AAPL P90"]),
            self.random.choice(["buy", "sell"]),
            order.quantity,
            self.random.choice([None, self.price()]),
            agent=f"agent {self.number % 3}",
            time_in_force=self.time_in_force(account),
        )
        self.note(order, answer.decision)

    def time_in_force(self, account: str) -> str:
        return "GTC" if account in ORDERLY else self.random.choice(["DAY", "GTC"])

    def note(self, order: Order, decision: str) -> None:
        self.done[decision] += 1
        if decision == "ACCEPTED":
            self.live.append(order)

    def combo(self) -> None:
        order = Order(self.random.choice(LEAVES), self.name(), self.random.randint(1, 3))
        order.has_legs = True
        answer = self.caller.combo(
            order.account,
            order.client_order_id,
            self.random.choice(LEGS),
            order.quantity,
            self.random.choice([None, -1, 2]),
            time_in_force=self.time_in_force(order.account),
        )
        self.note(order, answer.decision)

    def batch(self) -> None:
        orders, items = [], []
        for _ in range(self.random.randint(2, 12)):
            order = Order(self.random.choice(LEAVES), self.name(), self.random.randint(1, 5))
            order.has_legs = self.random.random() < 0.1
            side, symbol = self.random.choice(["buy", "sell"]), self.random.choice(list(STOCKS))
            what = self.random.choice(LEGS) if order.has_legs else f"{side} {symbol}"
            orders.append(order)
            items.append(
                item(
                    order.account,
                    order.client_order_id,
                    what,
                    order.quantity,
                    time_in_force=self.time_in_force(order.account),
                )
            )
        for order, answer in zip(orders, self.caller.batch(items), strict=True):
            self.note(order, answer.decision)

    def ask_again(self) -> None:
        """Ask about an order that others ask about too, some of them with other content."""
        account, name = self.random.choice(LEAVES), f"shared {self.random.randrange(99)}"
        quantity = 2 if self.random.random() < 0.1 else 1
        self.attempt(
            lambda: self.caller.check(
                account, name, "XOM", "buy", quantity, time_in_force=self.time_in_force("A1")
            ),
            "RK409",
        )

    # -- what happens to orders ------------------------------------------------------------

    def pick(self) -> Order | None:
        return self.random.choice(self.live) if self.live else None

    def replace(self) -> None:
        order = self.pick()
        if order is None:
            return
        new = Order(order.account, self.name(), self.random.randint(1, 12), order.filled)
        new.has_legs = order.has_legs
        price = self.random.choice([None, self.price()])

        def ask() -> None:
            answer = self.caller.replace(
                order.account, order.client_order_id, new.client_order_id, new.quantity, price
            )
            self.done[f"replace {answer.decision}"] += 1
            if answer.is_accepted:
                confirmed = self.random.random() < 0.6
                self.caller.call(
                    "confirm_replace" if confirmed else "reject_replace",
                    account=order.account,
                    new_client_order_id=new.client_order_id,
                )
                if confirmed:
                    self.live[self.live.index(order)] = new

        self.attempt(ask, *NOT_REPLACEABLE)

    def fill(self) -> None:
        order = self.pick()
        if order is None:
            return
        quantity = self.random.randint(1, order.quantity - order.filled)
        order.filled += quantity
        if order.filled == order.quantity:
            self.live.remove(order)
        symbols = [None]
        if order.has_legs:
            symbols = self.caller.value(
                """select array_agg(symbol order by random()) from risk_private.orders as o
                   join risk_private.scopes as s on s.scope_id = o.account_id
                   join risk_private.instruments as i on i.instrument_id = any (o.instrument_ids)
                   where s.code = %s and o.client_order_id = %s""",
                order.account,
                order.client_order_id,
            )
        for symbol in symbols:
            self.caller.fill(
                order.account,
                order.client_order_id,
                self.name(),
                quantity,
                self.price(),
                symbol=symbol,
            )

    def release(self) -> None:
        order = self.pick()
        if order is not None:
            self.live.remove(order)
            self.caller.call(
                "release_order",
                account=order.account,
                client_order_id=order.client_order_id,
                reason=self.random.choice(["cancelled", "expired", "broker_rejected"]),
            )

    def send(self) -> None:
        order = self.pick()
        if order is None:
            return
        names = {"account": order.account, "client_order_id": order.client_order_id}
        if self.caller.call("dispatch_order", **names)["decision"] == "REJECTED":
            self.live.remove(order)
        else:
            self.caller.call("ack_order", **names)

    def meddle(self) -> None:
        """Do something to an order that may be anybody's, in any state, or that never was."""
        account = self.random.choice(UNRULY)
        client_order_id = (
            f"{self.random.randrange(self.agents)}-{self.random.randint(1, self.names)}"
        )
        names = {"account": account, "client_order_id": client_order_id}
        match self.random.randrange(5):
            case 0:  # RK400: the fill of a combo without its symbol
                fill = {"exec_id": f"m{self.name()}", "quantity": 1, "price": 9}
                self.attempt(
                    lambda: self.caller.call("record_fill", **names, **fill), "RK400", "RK404"
                )
            case 1:
                self.attempt(
                    lambda: self.caller.call("release_order", **names, reason="expired"), "RK404"
                )
            case 2:
                self.attempt(lambda: self.caller.call("ack_order", **names), "RK404")
            case 3:
                new = {"new_client_order_id": self.name(), "quantity": 3}
                self.attempt(
                    lambda: self.caller.call("replace_order", **names, **new), *NOT_REPLACEABLE
                )
            case 4:
                end = self.random.choice(["confirm_replace", "reject_replace"])
                new = {"account": account, "new_client_order_id": client_order_id}
                self.attempt(lambda: self.caller.call(end, **new), "RK404", "RK409")

    def trade(self) -> None:
        self.caller.call(
            "record_trade",
            account=self.random.choice(UNRULY),
            symbol=self.random.choice(list(STOCKS)),
            side=self.random.choice(["buy", "sell"]),
            quantity=self.random.randint(1, 5),
            price=self.price(),
            exec_id=self.name(),
        )

    # -- administration --------------------------------------------------------------------

    def set_marks(self) -> None:
        marks = {symbol: self.price() for symbol in self.random.sample(list(STOCKS), 2)}
        # Of two feeds at once, the one that comes later may bring the older marks.
        self.attempt(lambda: self.caller.mark(marks), "RK400")

    def set_limit(self) -> None:
        limit_type = self.random.choice(SUMS + OTHERS)
        scope = self.random.choice(["F", "D2", "A2", "B1", "B2", "S1"])
        key: dict[str, str] = self.random.choice(KEYS)
        amount = PLENTY if limit_type == "net_position" else 1
        self.caller.limit(scope, limit_type, amount, warn_pct=50, **key)
        self.check()
        what = {"scope": scope, "limit_type": limit_type, "reason": "storm"}
        self.attempt(lambda: self.caller.call("remove_limit", **what, **key), "RK404")

    def halt(self) -> None:
        scope = self.random.choice(["F", "D2", "A2", "S1"])
        what = {"scope": scope, "reason": "storm", "underlying": self.random.choice([None, "AAPL"])}
        state = self.random.choice(["HALTED", "REDUCE_ONLY"])
        self.caller.call("set_trading_state", state=state, **what)
        self.check()
        self.caller.call("set_trading_state", state="ACTIVE", **what)

    def cancel(self) -> None:
        scope = self.random.choice(["F", "D1", "S2"])
        self.caller.call("cancel_orders", scope=scope, reason="storm")

    def open_day(self) -> None:
        """A day that is behind where another agent is ahead."""
        day = f"2020-01-{1 + self.made // 50:02}"
        self.attempt(lambda: self.caller.call("open_day", day=day), "RK400")
