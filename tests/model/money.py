"""Cash, average cost, profit and equity, replayed from all executions and postings."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .book import Book
    from .facts import Instrument, World

ZERO = Decimal(0)
IN_KIND = ("opening", "transfer")  # the position itself is brought in or taken out
FLOWS = ("deposit", "withdrawal", "transfer")
DECIMALS = Decimal("1e-12")


def rounded(amount: Decimal) -> Decimal:
    """To 12 decimals, as costs and averages are kept."""
    return amount.quantize(DECIMALS, ROUND_HALF_UP)


@dataclass
class Holding:
    """A position with what it cost, at average cost."""

    quantity: Decimal = ZERO
    cost: Decimal = ZERO

    def trade(self, traded: Decimal, amount: Decimal) -> Decimal:
        """Adds a signed quantity at an amount per unit; the profit that it realizes."""
        closed = ZERO
        if self.quantity * traded < 0:
            closed = min(abs(self.quantity), abs(traded)).copy_sign(self.quantity)
        removed = self.cost
        if closed != self.quantity:
            removed = rounded(self.cost * closed / self.quantity)
        self.quantity += traded
        self.cost += (traded + closed) * amount - removed
        return closed * amount - removed


@dataclass
class Totals:
    """Money of an account since it began, in base currency."""

    cash: Decimal = ZERO
    realized: Decimal = ZERO
    fees: Decimal = ZERO
    flows: Decimal = ZERO
    income: Decimal = ZERO

    def __add__(self, other: Totals) -> Totals:
        names = [f.name for f in fields(self)]
        return Totals(*(getattr(self, name) + getattr(other, name) for name in names))

    def __neg__(self) -> Totals:
        return Totals(*(-getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class DayStart:
    """Of an account: its equity, and its totals, when the trading day was opened."""

    equity: Decimal = ZERO
    totals: Totals = field(default_factory=Totals)


@dataclass
class Ledger:
    """The books of one account."""

    totals: Totals = field(default_factory=Totals)
    holdings: dict[str, Holding] = field(default_factory=dict)


def ledger(world: World, account: str) -> Ledger:
    """Replays what happened in an account; flows of cash and in kind alike."""
    books = Ledger()
    totals = books.totals
    for execution in world.executions:
        if execution.account != account:
            continue
        amount = execution.price * world.instruments[execution.symbol].multiplier
        holding = books.holdings.setdefault(execution.symbol, Holding())
        totals.realized += holding.trade(execution.signed, amount)
        totals.fees += execution.fee
        totals.cash -= execution.fee
        if execution.kind in IN_KIND:
            totals.flows += execution.signed * amount
        else:
            totals.cash -= execution.signed * amount
    for posting in world.postings:
        if posting.account == account:
            totals.cash += posting.amount
            if posting.reason in FLOWS:
                totals.flows += posting.amount
            else:
                totals.income += posting.amount
    return books


class Money:
    """Equity and profit of any scope of a book: parents are the sums of the accounts below."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.world = book.world
        self._ledgers: dict[str, Ledger] = {}

    def ledger(self, account: str) -> Ledger:
        if account not in self._ledgers:
            self._ledgers[account] = ledger(self.world, account)
        return self._ledgers[account]

    def average_price(self, account: str, instrument: Instrument) -> Decimal:
        """What a unit held has cost on average, as prices are quoted."""
        holding = self.ledger(account).holdings.get(instrument.symbol, Holding())
        if holding.quantity == 0:
            return ZERO
        return rounded(holding.cost / (holding.quantity * instrument.multiplier))

    def _leaves(self, scope: str) -> list[str]:
        parents = {s.parent for s in self.world.scopes.values()}
        return [code for code in self.book.accounts(scope) if code not in parents]

    def totals(self, scope: str) -> Totals:
        return sum((self.ledger(a).totals for a in self._leaves(scope)), Totals())

    def today(self, scope: str) -> Totals:
        """What came to the totals since the day was opened."""
        before = [self.world.day_starts.get(a, DayStart()).totals for a in self._leaves(scope)]
        return self.totals(scope) + -sum(before, Totals())

    def value(self, scope: str) -> Decimal:
        """Of the positions, as they are carried."""
        leaves = self._leaves(scope)
        return sum(
            (
                q * self._price(*pair) * self.book.instrument(pair[1]).multiplier
                for pair, q in list(self.book.position.items())
                if pair[0] in leaves and q != 0
            ),
            ZERO,
        )

    def _price(self, account: str, symbol: str) -> Decimal:
        price = self.book.carried_price(account, symbol)
        assert price is not None, f"{symbol} was traded at some price"
        return price

    def cost(self, scope: str) -> Decimal:
        holdings = [h for a in self._leaves(scope) for h in self.ledger(a).holdings.values()]
        return sum((holding.cost for holding in holdings), ZERO)

    def equity(self, scope: str) -> Decimal:
        return self.totals(scope).cash + self.value(scope)

    def start_equity(self, scope: str) -> Decimal:
        """An account that was made since the day was opened started with nothing."""
        starts = [self.world.day_starts.get(a, DayStart()).equity for a in self._leaves(scope)]
        return sum(starts, ZERO)

    def daily_loss(self, scope: str) -> Decimal:
        return self.start_equity(scope) + self.today(scope).flows - self.equity(scope)

    def drawdown_pct(self, scope: str) -> Decimal:
        peak, equity = self.world.peaks.get(scope, ZERO), self.equity(scope)
        if peak <= 0 or equity <= 0:
            return Decimal(100)
        return (peak - equity) / peak * 100

    def rebase_peak(self, scope: str, flow: Decimal) -> None:
        """A flow leaves the drawdown in percent as it is, where that can be; called before it."""
        peak, equity = self.world.peaks.get(scope, ZERO), self.equity(scope)
        if equity > 0 and equity + flow > 0:
            self.world.peaks[scope] = rounded(peak * (equity + flow) / equity)
        else:
            self.world.peaks[scope] = peak + flow

    def sample_peak(self, scope: str) -> None:
        self.world.peaks[scope] = max(self.world.peaks.get(scope, ZERO), self.equity(scope))
