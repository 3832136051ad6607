"""What an account may come to owe: worst loss at expiry, sides of the market, cash called for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .book import ZERO
from .money import Money
from .payoff import Alternatives, Part, Parts, worst_loss

if TYPE_CHECKING:
    from decimal import Decimal

    from .book import Book, OpenOrder
    from .facts import LimitKey


class Obligations:
    """The obligations of a book, account by account and underlying by underlying."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.world = book.world
        self.money = Money(book)

    def same_side(self, key: LimitKey) -> tuple[Decimal, Decimal]:
        """(bull, bear) in units of 100 shares: the sums of the accounts' own."""
        bull = bear = ZERO
        for account, symbol in self.book.pairs(key, self.book.accounts(key.scope)):
            instrument = self.book.instrument(symbol)
            if instrument.kind != "option":
                continue
            q = self.book.position[account, symbol]
            long = max(ZERO, q + self.book.open_buy[account, symbol])
            short = max(ZERO, self.book.open_sell[account, symbol] - q)
            if instrument.option_right == "put":
                long, short = short, long
            bull += long * instrument.multiplier / 100
            bear += short * instrument.multiplier / 100
        return bull, bear

    def max_loss(self, key: LimitKey) -> Decimal:
        """The sum over accounts and underlyings; Infinity where one of them is."""
        return sum(
            (
                worst_loss(self._held(account, underlying), self._orders(account, underlying))
                for account, underlying in self._businesses(key)
            ),
            ZERO,
        )

    def cash_need(self, key: LimitKey) -> Decimal:
        """What open buys cost and short puts could take."""
        total = ZERO
        for account, underlying in self._businesses(key):
            orders = self._orders(account, underlying)
            puts = [[_puts(parts) for parts in order] for order in orders]
            total += worst_loss(_puts(self._held(account, underlying)), puts)
            total += sum((max(ZERO, *(_cost(parts) for parts in order)) for order in orders), ZERO)
        return total

    def _businesses(self, key: LimitKey) -> set[tuple[str, str]]:
        return {
            (account, self.book.instrument(symbol).underlying)
            for account, symbol in self.book.pairs(key, self.book.accounts(key.scope))
            if self.book.worst_case(account, symbol) > 0
        }

    def _held(self, account: str, underlying: str) -> Parts:
        return [
            Part(instrument, q, self.money.cost_of(account, symbol), self.world.unit(symbol))
            for (owner, symbol), q in list(self.book.position.items())
            if owner == account and q != 0
            for instrument in [self.book.instrument(symbol)]
            if instrument.underlying == underlying
        ]

    def _orders(self, account: str, underlying: str) -> list[Alternatives]:
        orders = [
            self._alternatives(working, underlying)
            for working in self.book.open_orders
            if working.order.account == account
        ]
        return [order for order in orders if any(order)]

    def _alternatives(self, working: OpenOrder, underlying: str) -> Alternatives:
        return [
            [
                Part(instrument, q, q * version.leg_prices[leg.symbol] * unit, unit)
                for leg in version.legs
                for q in [leg.sign * self.book.unfilled(version, leg.symbol)]
                for instrument in [self.book.instrument(leg.symbol)]
                for unit in [self.world.unit(leg.symbol)]
                if q != 0 and instrument.underlying == underlying
            ]
            for version in working.versions
        ]


def _puts(parts: Parts) -> Parts:
    """The puts among them as obligations alone: what they cost is counted apart."""
    return [replace(p, cost=ZERO) for p in parts if p.instrument.option_right == "put"]


def _cost(parts: Parts) -> Decimal:
    return sum((part.cost for part in parts if part.instrument.kind != "future"), ZERO)
