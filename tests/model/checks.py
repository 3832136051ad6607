"""The limits that hold for an order, each compared without it and with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from .book import ZERO, Book, OpenOrder
from .facts import CONCENTRATION, SWITCHES, Leg, LimitKey, LimitVersion, Order
from .lookup import Lookup
from .measures import is_unknown, sides
from .money import Money
from .payoff import INFINITE

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_BINDING_REDUCING = ("traded_notional", "open_orders", "open_positions")
COSTS = ("max_loss", "buying_power")
LOSSES = ("daily_loss", "drawdown_pct")
UNKNOWN = ((Decimal("-Infinity"), Decimal("Infinity")),)


@dataclass(frozen=True)
class Check:
    """One limit compared: the amounts of each side it binds, without and with the order."""

    limit: LimitVersion
    sides: tuple[tuple[Decimal, Decimal], ...]
    reason: str = "RISK_LIMIT_EXCEEDED"
    binds: bool = True

    @property
    def amount(self) -> Decimal:
        assert self.limit.amount is not None
        return self.limit.amount

    @property
    def fails(self) -> bool:
        return self.binds and any(
            projected > self.amount and projected > current for current, projected in self.sides
        )

    @property
    def warns(self) -> bool:
        if self.limit.key.limit_type in SWITCHES or self.fails:
            return False
        highest = max(projected for _, projected in self.sides)
        return highest > 0 and highest * 100 >= self.limit.warn_pct * self.amount


class Checks(Lookup):
    """Compares an order with every limit in force on its chain."""

    def _checks(
        self, order: Order, before: Book, after: Book, reducing: bool, asked: Order
    ) -> Iterator[Check]:
        yield from self._order_size(order)
        for limit, key in self.applied(order):
            if key.limit_type == "gross_notional" and not self._can_value(limit, order, after):
                continue  # refused as STALE_DATA
            if is_unknown(after, key) or self._counts_on_a_stale_rate(order.account, key, before):
                if not reducing:
                    yield Check(limit, UNKNOWN, "STALE_DATA")
                continue
            rate = key.limit_type.startswith("order_rate")
            reason = "RATE_LIMIT_EXCEEDED" if rate else "RISK_LIMIT_EXCEEDED"
            binds = not (reducing and key.limit_type in NOT_BINDING_REDUCING)
            compared = list(zip(sides(before, key), sides(after, key), strict=True))
            assert limit.amount is not None
            if key.limit_type == CONCENTRATION and Money(after).equity(key.scope) <= 0:
                compared = [(-INFINITE, INFINITE)]
            if key.limit_type in COSTS and reducing:
                binds = compared[0][0] <= limit.amount
            elif key.limit_type in LOSSES or compared[0][1] == INFINITE:
                # Whatever it was before: only what is reducing passes.
                compared = [(-INFINITE, projected) for _, projected in compared]
                binds = not reducing
            yield Check(limit, tuple(compared), reason, binds)
        yield from self._duplicates(asked)
        yield from self._crosses(order, before)

    def _counts_on_a_stale_rate(self, account: str, key: LimitKey, book: Book) -> bool:
        """Whether the equity that is limited depends on a rate too old for the account."""
        return key.limit_type in (*LOSSES, CONCENTRATION) and any(
            not self.has_fresh_rate(account, currency)
            for currency in Money(book).currencies(key.scope)
        )

    def _can_value(self, limit: LimitVersion, order: Order, after: Book) -> bool:
        """Whether every leg that the limit holds has a mark, or is carried at a price."""
        return all(
            after.unit_value(order.account, leg.symbol) is not None
            for leg in order.legs
            if limit.key.matches(self.instrument(leg))
        )

    def _order_size(self, order: Order) -> Iterator[Check]:
        notional = sum(
            (
                order.quantity
                * leg.ratio
                * self.instrument(leg).multiplier
                * order.notional_prices[leg.symbol]
                for leg in order.legs
            ),
            ZERO,
        )
        nothing = Decimal(-1)
        for limits in self.most_specific("order_quantity", order).values():
            for leg, limit in limits:
                yield Check(limit, ((nothing, order.quantity * leg.ratio),))
        for limits in self.most_specific("order_notional", order).values():
            for _, limit in limits:
                yield Check(limit, ((nothing, notional),))

    def _duplicates(self, order: Order) -> Iterator[Check]:
        if order.replaces is not None:
            return
        for limit in self.matching("duplicate_window", order):
            assert limit.amount is not None
            since = self.world.now - timedelta(seconds=float(limit.amount))
            repeated = any(
                earlier.was_accepted
                and since < earlier.decided_at <= self.world.now
                and (earlier.account, frozenset(earlier.legs), earlier.quantity, earlier.price)
                == (order.account, frozenset(order.legs), order.quantity, order.price)
                for earlier in self.world.orders
            )
            if repeated:
                yield Check(limit, ((ZERO, limit.amount + 1),), "DUPLICATE_ORDER")

    def _crosses(self, order: Order, before: Book) -> Iterator[Check]:
        for limit in self.matching("self_cross", order):
            accounts = before.accounts(limit.key.scope)
            crosses = any(
                working.order.account in accounts
                and working.order.agent != order.agent
                and any(
                    self._could_trade(leg, order, other, version, working)
                    for leg in order.legs
                    for version in working.versions
                    for other in version.legs
                )
                for working in before.open_orders
            )
            if limit.amount == 1 and crosses:
                yield Check(limit, ((ZERO, Decimal(2)),), "SELF_CROSS")

    @staticmethod
    def _could_trade(
        leg: Leg, order: Order, other: Leg, version: Order, working: OpenOrder
    ) -> bool:
        if leg.symbol != other.symbol or leg.side == other.side:
            return False
        if working.open_quantity[other.symbol] <= 0:
            return False
        if None in (order.price, version.price) or order.is_combo or version.is_combo:
            return True
        assert order.price is not None
        assert version.price is not None
        return (order.price - version.price) * leg.sign >= 0
