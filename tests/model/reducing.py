"""When an order is reducing: it shrinks every leg without crossing zero and uncovers no short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .book import ZERO, Book, OpenOrder

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal

    from .facts import Order


def is_reducing(order: Order, before: Book, after: Book) -> bool:
    """Every leg shrinks its position without crossing zero, and no short is uncovered."""
    account, world = order.account, before.world
    for leg in order.legs:
        key = account, leg.symbol
        if leg.side == "buy" and after.open_buy[key] > -before.position[key]:
            return False
        if leg.side == "sell" and after.open_sell[key] > before.position[key]:
            return False
    (own,) = [working for working in after.open_orders if order in working.versions]
    filled = as_if_filled(after, own)
    return all(
        now <= then
        for underlying in {world.instruments[leg.symbol].underlying for leg in order.legs}
        for now, then in zip(
            uncovered(filled, account, underlying),
            uncovered(before, account, underlying),
            strict=True,
        )
    )


def as_if_filled(after: Book, own: OpenOrder) -> Book:
    filled = Book(after.world, after.orders)
    for leg in own.order.legs:
        key = own.order.account, leg.symbol
        quantity = own.open_quantity[leg.symbol]
        filled.position[key] += leg.sign * quantity
        side = filled.open_buy if leg.side == "buy" else filled.open_sell
        side[key] -= quantity
    return filled


def uncovered(book: Book, account: str, underlying: str) -> tuple[Decimal, Decimal]:
    """Worst-case uncovered (calls, puts) of an account and underlying, in shares."""
    short: dict[str, list[tuple[date, Decimal]]] = {"call": [], "put": []}
    long_stock = short_stock = ZERO
    for symbol, instrument in book.world.instruments.items():
        q = book.position[account, symbol]
        buys, sells = book.open_buy[account, symbol], book.open_sell[account, symbol]
        if instrument.underlying != underlying:
            continue
        if instrument.kind in ("stock", "etf"):
            long_stock += max(ZERO, q - sells) * instrument.multiplier
            short_stock += max(ZERO, -(q + buys)) * instrument.multiplier
        elif instrument.kind == "option":
            assert instrument.option_right is not None
            assert instrument.expiry is not None
            shares = (sells - q) * instrument.multiplier
            if instrument.expiry >= book.world.trading_date:
                short[instrument.option_right].append((instrument.expiry, shares))
    calls = _largest_shortfall(short["call"]) - long_stock
    puts = _largest_shortfall(short["put"]) - short_stock
    return max(ZERO, calls), max(ZERO, puts)


def _largest_shortfall(shorts: list[tuple[date, Decimal]]) -> Decimal:
    dates = {expiry for expiry, _ in shorts}
    return max(
        (sum((s for expiry, s in shorts if expiry >= day), ZERO) for day in dates),
        default=ZERO,
    )
