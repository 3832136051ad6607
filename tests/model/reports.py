"""What the engine's views must say of money, Greeks and obligations, row by row."""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

from .book import ZERO, Book
from .exposures import Exposures
from .facts import CONCENTRATION, Dimension, LimitKey
from .measures import sides
from .money import Holding, Money
from .obligations import Obligations
from .views import Views

Rows: TypeAlias = dict[tuple[str, ...], tuple[Decimal, ...]]

SUMS = ("gross_position", "gross_notional", "traded_notional", "open_orders", "open_positions")
UNKNOWN = Decimal(-1)


class Reports(Views):
    """A key and amounts per row; what a view does not show counts as zeros."""

    def reports(self) -> dict[str, Rows]:
        """Every view by its name."""
        return {
            "positions": self._holdings(),
            "cash": self._cash(),
            "exposure": self._exposure(),
            "portfolio_greeks": self._greeks(),
            "concentration": self._concentration(),
            "same_side_positions": self._sides(),
        }

    def _holdings(self) -> Rows:
        """Average price, unrealized where there is a mark, realized today less fees."""
        book = self.book()
        money = Money(book)
        rows: Rows = {}
        for account in self.world.scopes:
            books = money.ledger(account)
            before = money.start(account).results
            for symbol, result in books.results.items():
                instrument, mark = book.instrument(symbol), self.world.marks.get(symbol)
                held = books.holdings.get(symbol, Holding())
                value = held.quantity * instrument.multiplier
                unrealized = value * mark.price - held.cost if mark else ZERO
                rows[account, symbol] = (
                    held.cost / value if value else ZERO,
                    unrealized * self.world.rate(instrument.currency),
                    result - before.get(symbol, ZERO),
                )
        return rows

    def _cash(self) -> Rows:
        money = Money(self.book())
        return {
            (account, currency): (amount,)
            for account in self.world.scopes
            for currency, amount in money.ledger(account).cash.items()
        }

    def _exposure(self) -> Rows:
        """Of everything at a scope."""
        book = self.book()
        exposures = Exposures(book)
        rows: Rows = {}
        for scope in self.world.scopes:
            key = LimitKey(scope, "net_exposure")
            up, minus_down = exposures.sides(key, "net_exposure")
            rows[(scope,)] = (
                *(book.measure(LimitKey(scope, name)) for name in SUMS),
                exposures.gross(key),
                exposures.net(key, "net_exposure"),
                up,
                -minus_down,
            )
        return rows

    def _greeks(self) -> Rows:
        """Of what is held, without open orders; how many positions are not in the sums."""
        book = Book(self.world, [])
        exposures = Exposures(book)
        names = ("delta", "gamma", "vega", "theta", "net_exposure", "dollar_gamma")
        rows: Rows = {}
        for key in self._underlyings("delta"):
            assert key.value is not None
            pairs = book.pairs(key, book.accounts(key.scope))
            unknown = sum(exposures.units[p[1]] is None and book.position[p] != 0 for p in pairs)
            amounts = (exposures.net(key, name) for name in names)
            rows[key.scope, key.value] = (*amounts, Decimal(unknown))
        return rows

    def _concentration(self) -> Rows:
        book = self.book()
        exposures = Exposures(book)
        rows: Rows = {}
        for key in (*self._underlyings(CONCENTRATION), *self._sectors(CONCENTRATION)):
            assert key.value is not None
            up, minus_down = exposures.sides(key, "net_exposure")
            known = not exposures.unknown(key)
            rows[key.scope, key.value] = (
                exposures.net(key, "net_exposure"),
                up,
                -minus_down,
                max(ZERO, *sides(book, key)) if known else UNKNOWN,
            )
        return rows

    def _sides(self) -> Rows:
        """(bull, bear) with open orders, and of what is held alone."""
        every, held = Obligations(self.book()), Obligations(Book(self.world, []))
        return {
            (key.scope, str(key.value)): (*every.same_side(key), *held.same_side(key))
            for key in self._underlyings("same_side")
        }

    def _underlyings(self, limit_type: str) -> list[LimitKey]:
        known = {i.underlying for i in self.world.instruments.values()}
        return self._keys(limit_type, Dimension.UNDERLYING, known)

    def _sectors(self, limit_type: str) -> list[LimitKey]:
        known = {i.sector for i in self.world.instruments.values() if i.sector}
        return self._keys(limit_type, Dimension.SECTOR, known)

    def _keys(self, limit_type: str, dimension: Dimension, values: set[str]) -> list[LimitKey]:
        return [
            LimitKey(scope, limit_type, dimension, value)
            for scope in self.world.scopes
            for value in values
        ]
