"""Greeks and dollar exposures: what is held, and what open orders may make of it on each side."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from .book import ZERO
from .facts import Greeks

if TYPE_CHECKING:
    from .book import Book, OpenOrder
    from .facts import Instrument, LimitKey, World

ONE_PERCENT = Decimal("0.01")


def greeks_of(world: World, instrument: Instrument) -> Greeks | None:
    """Per unit of price; None where they are unknown."""
    if instrument.expiry is not None and instrument.expiry < world.trading_date:
        return Greeks()
    if instrument.kind != "option":
        return Greeks(delta=Decimal(1))
    mark = world.marks.get(instrument.symbol)
    return mark.greeks if mark else None


def unit_exposures(world: World, instrument: Instrument) -> dict[str, Decimal] | None:
    """What one unit of a position adds to each limit on Greeks; None where it is unknown."""
    greeks = greeks_of(world, instrument)
    spot = world.marks.get(instrument.underlying)
    if greeks is None or instrument.symbol not in world.marks or spot is None:
        return None
    m, s, f = instrument.multiplier, spot.price, world.rate(instrument.currency)
    return {
        "delta": greeks.delta * m,
        "gamma": greeks.gamma * m,
        "net_exposure": greeks.delta * s * m * f,
        "dollar_gamma": greeks.gamma * s * s * ONE_PERCENT * m * f,
        "vega": greeks.vega * m * f,
        "theta": greeks.theta * m * f,
    }


class Exposures:
    """The exposures of a book; what is unknown adds nothing and is told by `unknown`."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.units = {
            symbol: unit_exposures(book.world, instrument)
            for symbol, instrument in book.world.instruments.items()
        }

    def unit(self, symbol: str, measure: str) -> Decimal:
        unit = self.units[symbol]
        return ZERO if unit is None else unit[measure]

    def net(self, key: LimitKey, measure: str) -> Decimal:
        """Of the positions alone."""
        pairs = self.book.pairs(key, self.book.accounts(key.scope))
        return sum((self.book.position[pair] * self.unit(pair[1], measure) for pair in pairs), ZERO)

    def of_order(self, working: OpenOrder, key: LimitKey, measure: str) -> Decimal:
        """What an order still adds if all of it fills, netted over its legs."""
        return sum(
            (
                leg.sign * working.open_quantity[leg.symbol] * self.unit(leg.symbol, measure)
                for leg in working.order.legs
                if key.matches(self.book.instrument(leg.symbol))
            ),
            ZERO,
        )

    def sides(self, key: LimitKey, measure: str) -> tuple[Decimal, Decimal]:
        """(up, -down): with all orders filled that raise it, and with all that lower it."""
        accounts = self.book.accounts(key.scope)
        effects = [
            self.of_order(working, key, measure)
            for working in self.book.open_orders
            if working.order.account in accounts
        ]
        net = self.net(key, measure)
        up = net + sum((max(ZERO, effect) for effect in effects), ZERO)
        down = net - sum((max(ZERO, -effect) for effect in effects), ZERO)
        return up, -down

    def gross(self, key: LimitKey) -> Decimal:
        """Dollar deltas of the worst cases, none netted."""
        pairs = self.book.pairs(key, self.book.accounts(key.scope))
        return sum(
            (
                self.book.worst_case(*pair) * abs(self.unit(pair[1], "net_exposure"))
                for pair in pairs
            ),
            ZERO,
        )

    def unknown(self, key: LimitKey) -> bool:
        """Whether anything held or open there has no Greeks."""
        pairs = self.book.pairs(key, self.book.accounts(key.scope))
        return any(
            self.units[symbol] is None and self.book.worst_case(account, symbol) > 0
            for account, symbol in pairs
        )
