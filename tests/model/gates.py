"""The checks that are no limits: states, instruments, missing limits, stale or missing prices."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from .book import ZERO
from .facts import Violation
from .lookup import Lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .book import Book
    from .facts import Order

SEVERITY = ("ACTIVE", "REDUCE_ONLY", "HALTED")


class Gates(Lookup):
    """Every reason to refuse an order that is no limit reached."""

    def _is_harmless_replace(self, order: Order) -> bool:
        """A replace for no more at no worse a price; only a halt refuses it."""
        old = order.replaces
        if old is None or order.quantity > old.quantity:
            return False
        if order.price is None or old.price is None:
            return order.price is None and old.price is None
        if order.is_combo or order.legs[0].side == "buy":
            return order.price <= old.price
        return order.price >= old.price

    def states(self, order: Order) -> dict[tuple[str, str | None], str]:
        """Trading states on the chain, for all underlyings or one of the order's."""
        chain = self.world.chain(order.account)
        return {
            (scope, underlying): state
            for (scope, underlying), state in self.world.states.items()
            if scope in chain and (underlying is None or underlying in self.underlyings(order))
        }

    def _states(self, order: Order, wanted: str) -> Iterator[Violation]:
        reason = "TRADING_HALTED" if wanted == "HALTED" else wanted
        for (scope, underlying), state in self.states(order).items():
            if state == wanted:
                dimension = "all" if underlying is None else f"underlying:{underlying}"
                yield Violation(reason, None, scope, dimension)

    def _statuses(
        self, order: Order, before: Book, after: Book, reducing: bool
    ) -> Iterator[Violation]:
        for leg in order.legs:
            dimension = f"instrument:{leg.symbol}"
            key = order.account, leg.symbol
            status = self.world.statuses.get(leg.symbol, "ACTIVE")
            sold = after.open_sell[key] > before.open_sell[key]
            new_short = sold and after.open_sell[key] > before.position[key]
            if (
                status == "BLOCKED"
                or (status == "RESTRICTED" and not reducing)
                or (status == "NO_NEW_SHORTS" and new_short)
            ):
                yield Violation("RESTRICTED_INSTRUMENT", dimension=dimension)
            if self.has_expired(self.instrument(leg)):
                yield Violation("INSTRUMENT_EXPIRED", dimension=dimension)

    def _missing_limits(self, order: Order) -> Iterator[Violation]:
        required = {"net_position"}
        for value in self.settings(order.account, "required_limit_types"):
            required |= {name.strip() for name in value.split(",") if name.strip()}
        chain = self.world.chain(order.account)
        for limit_type in required:
            for leg in order.legs:
                if not any(
                    limit.key.limit_type == limit_type
                    and limit.key.scope in chain
                    and limit.key.matches(self.instrument(leg))
                    for limit in self.limits
                ):
                    dimension = f"instrument:{leg.symbol}"
                    yield Violation("CONFIG_NOT_FOUND", limit_type, order.account, dimension)

    def _freshness(self, order: Order, reducing: bool) -> Iterator[Violation]:
        if reducing:
            return
        for leg in order.legs:
            needed = {leg.symbol}
            if self.age_limit(order.account, "max_mark_age") is not None:
                needed.add(self.instrument(leg).underlying)
            for symbol in needed:
                currency = self.world.instruments[symbol].currency
                if not (
                    self.is_fresh(order.account, symbol)
                    and self.has_fresh_rate(order.account, currency)
                ):
                    yield Violation("STALE_DATA", dimension=f"instrument:{symbol}")

    def _references(self, order: Order) -> Iterator[Violation]:
        priced = [
            *self.matching("order_notional", order),
            *self.matching("traded_notional", order),
        ]
        collared = self.matching("price_collar_pct", order)
        for leg in order.legs:
            needed = (
                order.price is None
                or (priced and (order.is_combo or leg.side == "sell"))
                or collared
            )
            if needed and self.reference(order.account, leg) is None:
                dimension = f"instrument:{leg.symbol}"
                yield Violation("REFERENCE_PRICE_UNAVAILABLE", dimension=dimension)

    def _collars(self, order: Order) -> Iterator[Violation]:
        references = [self.reference(order.account, leg) for leg in order.legs]
        if order.price is None or None in references:
            return
        buys = order.is_combo or order.legs[0].side == "buy"
        reference = ZERO
        floor = ZERO
        for leg, price in zip(order.legs, references, strict=True):
            assert price is not None
            reference += (leg.sign if order.is_combo else 1) * leg.ratio * price
            if self.instrument(leg).kind == "option":
                floor += leg.ratio * Decimal(self.settings(order.account, "collar_floor")[0])
        for limits in self.most_specific("price_collar_pct", order).values():
            limit = min((version for _, version in limits), key=lambda v: v.amount or ZERO)
            assert limit.amount is not None
            tolerance = max(limit.amount / 100 * abs(reference), floor)
            beyond = order.price - reference if buys else reference - order.price
            if beyond > tolerance:
                key = limit.key
                yield Violation("PRICE_OUT_OF_BAND", key.limit_type, key.scope, key.dimension_text)
