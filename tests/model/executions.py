"""Executions and cash: what they were told as, and how they stand now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from .facts import BASE_CURRENCY

if TYPE_CHECKING:
    from .facts import Order


@dataclass(frozen=True)
class Execution:
    """A fill or a trade.

    `reported_as` is the id of the order that a fill was told for, `told` its quantity, price and
    fee then. `orders` are those that it fills: none for a trade, both while a replace is pending.
    `takes_up` says that the account had neither a position nor open orders in the symbol; `rate`
    is that of its currency when it was booked. Since then splits have made `units` of each unit
    and divided the price by `ratio`.
    """

    account: str
    exec_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    kind: str
    fee: Decimal = Decimal(0)
    reported_as: str | None = None
    orders: tuple[Order, ...] = ()
    told: tuple[Decimal, ...] = ()
    takes_up: bool = False
    rate: Decimal = Decimal(1)
    units: Decimal = Decimal(1)
    ratio: Decimal = Decimal(1)
    is_busted: bool = False

    @property
    def filled(self) -> Decimal:
        """The quantity in the terms of its time."""
        return self.quantity / self.units

    @property
    def as_told(self) -> tuple[Decimal, ...]:
        """Quantity, price and fee in the terms of its time."""
        return self.filled, self.price * self.ratio, self.fee

    def amended(self, quantity: Decimal, price: Decimal) -> Execution:
        """The same at another quantity and price, both in the terms of its time."""
        return replace(self, quantity=quantity * self.units, price=price / self.ratio)

    def is_told_again(self, other: Execution) -> bool:
        """Whether the other is this one, as it was first told or as it stands now."""
        return (
            (self.reported_as, self.symbol, self.side, self.kind)
            == (other.reported_as, other.symbol, other.side, other.kind)
        ) and other.as_told in (self.told, self.as_told)

    @property
    def signed(self) -> Decimal:
        return self.quantity if self.side == "buy" else -self.quantity


@dataclass(frozen=True)
class Posting:
    """Cash paid into an account, or taken out of it."""

    account: str
    amount: Decimal
    reason: str
    currency: str = BASE_CURRENCY
    rate: Decimal = Decimal(1)
