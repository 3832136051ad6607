"""What positions and open orders in one underlying can lose at expiry, by trying every price.

A payoff is made of straight lines, so the largest loss stands where one of them bends: at 0, at a
strike, where an order begins to lose, or beyond the last of these, where it is a line for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .facts import Instrument

ZERO = Decimal(0)
INFINITE = Decimal("Infinity")
NO_EXPIRY = date.max


@dataclass(frozen=True)
class Part:
    """A signed quantity of an instrument, what all of it cost, and what a price of 1 makes of one.

    Costs below 0 were received; money is in base currency.
    """

    instrument: Instrument
    quantity: Decimal
    cost: Decimal
    unit: Decimal

    def loss(self, spot: Decimal, horizon: date) -> Decimal:
        """What was paid less what it is worth when the underlying stands at `spot`."""
        instrument = self.instrument
        if instrument.kind != "option":
            worth = spot
        elif instrument.expiry is not None and instrument.expiry < horizon:
            return max(ZERO, self.cost)
        else:
            assert instrument.strike is not None
            difference = spot - instrument.strike
            worth = max(ZERO, difference if instrument.option_right == "call" else -difference)
        return self.cost - self.quantity * worth * self.unit


Parts = list[Part]
Alternatives = list[Parts]  # an order, and the one that may come to replace it


def worst_loss(held: Parts, orders: Sequence[Alternatives]) -> Decimal:
    """The largest loss at any price of the underlying, at any expiry; at least 0."""
    parts = [*held, *(part for order in orders for parts in order for part in parts)]
    expiries = {p.instrument.expiry for p in parts if p.instrument.kind == "option"}
    strikes = {p.instrument.strike for p in parts if p.instrument.kind == "option"}
    prices = sorted({ZERO, *(strike for strike in strikes if strike is not None)})
    horizons = [expiry for expiry in expiries if expiry is not None] or [NO_EXPIRY]
    return max(_worst_at(held, orders, prices, horizon) for horizon in horizons)


def _worst_at(
    held: Parts, orders: Sequence[Alternatives], prices: list[Decimal], horizon: date
) -> Decimal:
    def loss(parts: Iterable[Part], spot: Decimal) -> Decimal:
        return sum((part.loss(spot, horizon) for part in parts), ZERO)

    def total(spot: Decimal) -> Decimal:
        return loss(held, spot) + sum(
            (max(ZERO, *(loss(parts, spot) for parts in order)) for order in orders), ZERO
        )

    bends = set(prices)
    for order in orders:
        for parts in order:
            bends |= _roots(lambda spot, parts=parts: loss(parts, spot), prices)  # type: ignore[misc]
        if len(order) == 2:
            old, new = order
            bends |= _roots(
                lambda spot, old=old, new=new: loss(old, spot) - loss(new, spot),  # type: ignore[misc]
                prices,
            )
    beyond = max(bends) + 1
    if total(beyond + 1) > total(beyond):
        return INFINITE
    return max(ZERO, *(total(spot) for spot in bends))


def _roots(line: Callable[[Decimal], Decimal], prices: list[Decimal]) -> set[Decimal]:
    """Where a line that bends only at `prices` crosses zero."""
    found = set()
    for left, right in zip(prices, [*prices[1:], prices[-1] + 1], strict=True):
        at_left, slope = line(left), (line(right) - line(left)) / (right - left)
        if slope != 0:
            root = left - at_left / slope
            if root > left and (root < right or right > prices[-1]):
                found.add(root)
    return found
