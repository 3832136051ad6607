"""What the engine's views must show."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from .book import ZERO, Book, OpenOrder
from .exposures import Exposures
from .facts import CONCENTRATION, Dimension, LimitKey, Order
from .lookup import NOT_MEASURED
from .measures import is_unknown, narrowed, sides
from .money import Money
from .records import Records

QUOTIENTS = (CONCENTRATION, "drawdown_pct")
OF_ORDERS = ("open_orders", "order_rate", "order_rate_minute")
GREEK_COLUMNS = ("delta", "gamma", "vega", "theta", "net_exposure")


class PnlRow(NamedTuple):
    """The columns of risk.pnl, in base currency."""

    start_equity: Decimal
    equity: Decimal
    realized: Decimal
    unrealized: Decimal
    fees: Decimal
    flows: Decimal
    income: Decimal
    daily_pnl: Decimal
    peak_equity: Decimal
    drawdown_pct: Decimal
    cash: Decimal
    currency_pnl: Decimal
    start_unrealized: Decimal


class Views(Records):
    """Rows recomputed from the world."""

    def order_rows(self) -> dict[tuple[str, str, str], tuple[Decimal, Decimal, str]]:
        """(account, id, symbol) -> (filled, remaining, state), one row per leg."""
        book = self.book()
        working: dict[Order, OpenOrder] = {w.order: w for w in book.open_orders}
        rows = {}
        for order in self.world.orders:
            for leg in order.legs:
                key = order.account, order.client_order_id, leg.symbol
                left = book.unfilled(order, leg.symbol) if order in working else ZERO
                rows[key] = book.filled[order, leg.symbol], left, order.state
        return rows

    def position_rows(self) -> dict[tuple[str, str], tuple[Decimal, Decimal, Decimal]]:
        """(account, symbol) -> (position, open buys, open sells)."""
        book = self.book()
        return {
            key: (book.position[key], book.open_buy[key], book.open_sell[key])
            for key in {*book.position, *book.open_buy, *book.open_sell}
        }

    def cancel_requests(self) -> set[tuple[str, str]]:
        """(account, id) of live orders whose cancel was requested."""
        return {
            (order.account, order.client_order_id)
            for order in self.world.orders
            if order.is_live and order.cancel_requested
        }

    def utilization(self) -> dict[LimitKey, tuple[Decimal, Decimal, Decimal | None]]:
        """Per limit that something uses up: itself, its worst case, and what is filled of that.

        What is not known is not shown, nor what is filled of the worst part of a default.
        """
        book, held = self.book(), Book(self.world, [])
        used = {}
        for limit in self.world.limits_in_force():
            if limit.key.limit_type not in NOT_MEASURED:
                assert limit.amount is not None
                parts = self._parts(limit.key)
                if any(is_unknown(book, key) for key in parts):
                    continue
                filled = None
                if not limit.key.is_default:
                    counted = book if limit.key.limit_type in OF_ORDERS else held
                    filled = _highest(counted, parts)
                used[limit.key] = limit.amount, _highest(book, parts), filled
        return used

    def _parts(self, key: LimitKey) -> set[LimitKey]:
        """What a limit is a default for, unless a more specific one of its scope holds there."""
        if not key.is_default:
            return {key}
        rivals = [
            limit.key
            for limit in self.world.limits_in_force()
            if (limit.key.scope, limit.key.limit_type) == (key.scope, key.limit_type)
            and limit.key.dimension.value > key.dimension.value
            and limit.key.is_default
        ]
        return {
            narrowed(key, instrument)
            for instrument in self.world.instruments.values()
            if key.matches(instrument) and not any(rival.matches(instrument) for rival in rivals)
        }

    def pnl_rows(self) -> dict[str, PnlRow]:
        """Per scope what risk.pnl shows."""
        money = Money(self.book())
        rows = {}
        for scope in self.world.scopes:
            today, equity = money.today(scope), money.equity(scope)
            start, starts = money.start_equity(scope), money.starts(scope)
            rows[scope] = PnlRow(
                start,
                equity,
                today.realized,
                equity - money.book_value(scope),
                today.fees,
                today.flows,
                today.income,
                equity - start - today.flows,
                self.world.peaks.get(scope, ZERO),
                money.drawdown_pct(scope),
                money.cash(scope),
                money.currency_pnl(scope) - sum((s.currency_pnl for s in starts), ZERO),
                sum((s.unrealized for s in starts), ZERO),
            )
        return rows

    def greek_rows(self) -> dict[tuple[str, str], dict[str, Decimal]]:
        """(scope, underlying) -> delta, gamma, vega, theta and net exposure held."""
        exposures = Exposures(self.book())
        rows = {}
        for scope in self.world.scopes:
            for underlying in {i.underlying for i in self.world.instruments.values()}:
                key = LimitKey(scope, "delta", Dimension.UNDERLYING, underlying)
                rows[scope, underlying] = {name: exposures.net(key, name) for name in GREEK_COLUMNS}
        return rows


def _highest(book: Book, parts: set[LimitKey]) -> Decimal:
    """The largest side of all; below 0 only where it is cash that is free."""
    amounts = [amount for key in parts for amount in sides(book, key)]
    limit_types = {key.limit_type for key in parts}
    if limit_types != {"buying_power"}:
        amounts.append(ZERO)
    highest = max(amounts)
    if limit_types & set(QUOTIENTS) and highest.is_finite():
        return highest.quantize(Decimal("1e-6"), ROUND_HALF_UP)
    return highest
