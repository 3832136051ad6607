"""What each limit that something uses up is compared with, per side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .book import ZERO
from .exposures import Exposures
from .facts import CONCENTRATION, GREEKS, PER_INSTRUMENT, Dimension
from .money import Money
from .obligations import Obligations
from .payoff import INFINITE

if TYPE_CHECKING:
    from decimal import Decimal

    from .book import Book
    from .facts import Instrument, LimitKey


def narrowed(key: LimitKey, instrument: Instrument) -> LimitKey:
    """A limit that is a default for each instrument or underlying, applied to one of them."""
    if key.limit_type in PER_INSTRUMENT:
        return replace(key, dimension=Dimension.INSTRUMENT, value=instrument.symbol)
    if key.is_default:
        return replace(key, dimension=Dimension.UNDERLYING, value=instrument.underlying)
    return key


def sides(book: Book, key: LimitKey) -> tuple[Decimal, ...]:
    """The amounts of a narrowed limit that must not exceed it."""
    if key.limit_type in PER_INSTRUMENT:
        assert key.value is not None
        long, short = book.sides(key.scope, key.value)
        return {
            "net_position": (long, short),
            "long_position": (long,),
            "short_position": (short,),
        }[key.limit_type]
    if key.limit_type in GREEKS:
        return Exposures(book).sides(key, key.limit_type)
    match key.limit_type:
        case "concentration_pct":
            equity = Money(book).equity(key.scope)
            exposures = Exposures(book).sides(key, "net_exposure")
            return tuple(share_of(equity, exposure) for exposure in exposures)
        case "gross_exposure":
            return (Exposures(book).gross(key),)
        case "same_side":
            return Obligations(book).same_side(key)
        case "max_loss":
            return (Obligations(book).max_loss(key),)
        case "buying_power":
            return (Obligations(book).cash_need(key) - Money(book).cash(key.scope),)
        case "daily_loss":
            return (Money(book).daily_loss(key.scope),)
        case "drawdown_pct":
            return (Money(book).drawdown_pct(key.scope),)
    return (book.measure(key),)


def share_of(equity: Decimal, exposure: Decimal) -> Decimal:
    """In percent; of no equity, any exposure is infinite."""
    if equity > 0:
        return exposure * 100 / equity
    return INFINITE if exposure > 0 else ZERO


def is_unknown(book: Book, key: LimitKey) -> bool:
    """Whether something is missing without which the limit cannot be judged."""
    if key.limit_type in (*GREEKS, "gross_exposure", CONCENTRATION):
        return Exposures(book).unknown(key)
    return False
