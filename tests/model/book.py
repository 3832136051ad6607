"""The numbers that limits are compared with, recomputed from all orders and executions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .executions import Execution
    from .facts import Instrument, LimitKey, Order, World

ZERO = Decimal(0)
RATE_WINDOWS = {"order_rate": timedelta(seconds=1), "order_rate_minute": timedelta(seconds=60)}


@dataclass(frozen=True)
class OpenOrder:
    """What one working order holds; an order and its pending replacement are one."""

    order: Order
    replacement: Order | None
    open_quantity: dict[str, Decimal]
    open_money: dict[str, Decimal]

    @property
    def versions(self) -> tuple[Order, ...]:
        return (self.order,) if self.replacement is None else (self.order, self.replacement)


class Book:
    """Positions, open orders and activity of a world, with a given list of orders."""

    def __init__(self, world: World, orders: Iterable[Order]) -> None:
        self.world = world
        self.orders = list(orders)
        self._accounts: dict[str, set[str]] = {}
        self.filled = self._filled()
        self.open_orders = list(self._open_orders())
        self.position: defaultdict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        for execution in world.executions:
            self.position[execution.account, execution.symbol] += execution.signed
        self.open_buy: defaultdict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        self.open_sell: defaultdict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        for working in self.open_orders:
            for leg in working.order.legs:
                side = self.open_buy if leg.side == "buy" else self.open_sell
                side[working.order.account, leg.symbol] += working.open_quantity[leg.symbol]

    def _filled(self) -> dict[tuple[Order, str], Decimal]:
        filled = {
            (order, leg.symbol): order.filled_before.get(leg.symbol, ZERO)
            for order in self.orders
            for leg in order.legs
        }
        for execution in self.world.executions:
            for order in execution.orders:
                if (order, execution.symbol) in filled:
                    filled[order, execution.symbol] += execution.filled
        return filled

    def unfilled(self, order: Order, symbol: str) -> Decimal:
        """What is left of one leg of an order, whatever its state."""
        ratio = next(leg.ratio for leg in order.legs if leg.symbol == symbol)
        return max(ZERO, order.quantity * ratio - self.filled[order, symbol])

    def _open_orders(self) -> Iterator[OpenOrder]:
        pending = {o.replaces: o for o in self.orders if o.replace_pending and o.is_live}
        for order in self.orders:
            if not order.is_live:
                continue
            if order.replace_pending and order.replaces is not None and order.replaces.is_live:
                continue
            replacement = pending.get(order)
            versions = [order] if replacement is None else [order, replacement]
            quantity = {}
            money = {}
            for leg in order.legs:
                symbol = leg.symbol
                quantity[symbol] = max(self.unfilled(version, symbol) for version in versions)
                money[symbol] = self.instrument(symbol).multiplier * max(
                    self.unfilled(version, symbol) * version.notional_prices[symbol]
                    for version in versions
                )
            yield OpenOrder(order, replacement, quantity, money)

    def instrument(self, symbol: str) -> Instrument:
        return self.world.instruments[symbol]

    def accounts(self, scope: str) -> set[str]:
        """Every scope that is `scope` or below it."""
        if scope not in self._accounts:
            self._accounts[scope] = {
                code for code in self.world.scopes if scope in self.world.chain(code)
            }
        return self._accounts[scope]

    def sides(self, scope: str, symbol: str) -> tuple[Decimal, Decimal]:
        """(long, short) of one instrument, netted over the accounts below the scope."""
        accounts = self.accounts(scope)
        q, buys, sells = (
            sum((table[key] for key in list(table) if self._within(key, accounts, symbol)), ZERO)
            for table in (self.position, self.open_buy, self.open_sell)
        )
        return q + buys, sells - q

    @staticmethod
    def _within(key: tuple[str, str], accounts: set[str], symbol: str) -> bool:
        return key[0] in accounts and key[1] == symbol

    def worst_case(self, account: str, symbol: str) -> Decimal:
        """max(|q + OB|, |q - OS|)."""
        key = account, symbol
        q = self.position[key]
        return max(abs(q + self.open_buy[key]), abs(q - self.open_sell[key]))

    def carried_price(self, account: str, symbol: str) -> Decimal | None:
        """What a position is carried at: its mark, else the price at which it was taken up.

        None where there is neither: an order in a symbol that has no mark yet.
        """
        mark = self.world.marks.get(symbol)
        price = None if mark is None else mark.price
        for execution in self.world.executions if mark is None else []:
            own = (execution.account, execution.symbol) == (account, symbol)
            if own and execution.takes_up:
                price = execution.price
        return price

    def unit_value(self, account: str, symbol: str) -> Decimal | None:
        """Money per unit of a position, whatever its sign."""
        price = self.carried_price(account, symbol)
        return None if price is None else abs(price) * self.world.unit(symbol)

    def measure(self, key: LimitKey) -> Decimal:
        """The amount that a summed limit type has reached at a scope, in a dimension."""
        accounts = self.accounts(key.scope)
        match key.limit_type:
            case "gross_position":
                return sum((self.worst_case(*pair) for pair in self.pairs(key, accounts)), ZERO)
            case "gross_notional":
                return sum(
                    (
                        self.worst_case(*pair) * (self.unit_value(*pair) or ZERO)
                        for pair in self.pairs(key, accounts)
                    ),
                    ZERO,
                )
            case "open_positions":
                active = [p for p in self.pairs(key, accounts) if self.worst_case(*p) > 0]
                return Decimal(len(active))
            case "traded_notional":
                return self._traded_notional(key, accounts)
            case "open_orders":
                return Decimal(
                    sum(
                        working.order.account in accounts and self._touches(key, working.order)
                        for working in self.open_orders
                    )
                )
            case "order_rate" | "order_rate_minute":
                since = self.world.now - RATE_WINDOWS[key.limit_type]
                return Decimal(
                    sum(
                        order.was_accepted
                        and order.account in accounts
                        and self._touches(key, order)
                        and since < order.decided_at <= self.world.now
                        for order in self.orders
                    )
                )
        raise AssertionError(f"{key.limit_type} is not a sum")

    def pairs(self, key: LimitKey, accounts: set[str]) -> list[tuple[str, str]]:
        """Every (account, symbol) that a limit is about."""
        return [
            (account, symbol)
            for account in accounts
            for symbol, instrument in self.world.instruments.items()
            if key.matches(instrument)
        ]

    def _touches(self, key: LimitKey, order: Order) -> bool:
        return any(key.matches(self.instrument(leg.symbol)) for leg in order.legs)

    def _traded_notional(self, key: LimitKey, accounts: set[str]) -> Decimal:
        traded = ZERO
        for execution in self.executions_today():
            instrument = self.instrument(execution.symbol)
            if execution.account in accounts and key.matches(instrument):
                amount = execution.quantity * abs(execution.price) * instrument.multiplier
                traded += amount * execution.rate
        for working in self.open_orders:
            if working.order.account in accounts:
                for symbol, money in working.open_money.items():
                    if key.matches(self.instrument(symbol)):
                        traded += money
        return traded

    def executions_today(self) -> list[Execution]:
        """Fills and trades since the trading day was opened."""
        return self.world.executions[self.world.first_execution_today :]
