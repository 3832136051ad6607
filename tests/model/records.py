"""A world with the orders told to it, and how they are found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .book import Book
from .facts import Order, RiskError, World
from .money import Money

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Records:
    """A world, and what was alerted."""

    world: World
    alerts: list[tuple[str, str, str | None]] = field(default_factory=list)

    def book(self) -> Book:
        return Book(self.world, self.world.orders)

    def find(self, account: str, client_order_id: str) -> Order | None:
        for order in self.world.orders:
            if (order.account, order.client_order_id) == (account, client_order_id):
                return order
        return None

    def order(self, account: str, client_order_id: str) -> Order:
        found = self.find(account, client_order_id)
        if found is None:
            raise RiskError("RK404", f"no order {client_order_id} in {account}")
        return found

    def pending_replacement(self, order: Order) -> Order | None:
        """The order that waits to take this one's place, even if fills have completed it."""
        for other in self.world.orders:
            working = other.is_live or other.state == "FILLED"
            if other.replaces is order and other.replace_pending and working:
                return other
        return None

    def rebase_peaks(self, account: str, flow: Decimal) -> None:
        """Before a flow."""
        if flow != 0:
            money = Money(self.book())
            for scope in self.world.chain(account):
                money.rebase_peak(scope, flow)

    def sample_peaks(self, account: str | None = None) -> None:
        """After the equity of an account has moved, or that of any."""
        money = Money(self.book())
        for scope in self.world.chain(account) if account else self.world.scopes:
            money.sample_peak(scope)
