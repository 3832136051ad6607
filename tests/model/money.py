"""Cash, average cost, profit and equity, replayed from all executions and postings."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .book import Book
    from .facts import World

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
    """What has changed the books of an account since it began, in base currency of the time."""

    realized: Decimal = ZERO
    fees: Decimal = ZERO
    flows: Decimal = ZERO
    income: Decimal = ZERO

    def __add__(self, other: Totals) -> Totals:
        names = [f.name for f in fields(self)]
        return Totals(*(getattr(self, name) + getattr(other, name) for name in names))

    def __neg__(self) -> Totals:
        return Totals(*(-getattr(self, f.name) for f in fields(self)))

    @property
    def balance(self) -> Decimal:
        """What cash and positions at cost would be, had no rate changed."""
        return self.realized - self.fees + self.income + self.flows


@dataclass(frozen=True)
class DayStart:
    """Of an account, when the trading day was opened."""

    equity: Decimal = ZERO
    totals: Totals = field(default_factory=Totals)
    currency_pnl: Decimal = ZERO
    unrealized: Decimal = ZERO
    results: dict[str, Decimal] = field(default_factory=dict)


@dataclass
class Ledger:
    """The books of one account: cash by currency, each holding in its own.

    `results` has what was realized in each symbol less fees, in base currency.
    """

    totals: Totals = field(default_factory=Totals)
    cash: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))
    holdings: dict[str, Holding] = field(default_factory=dict)
    results: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))


def ledger(world: World, account: str) -> Ledger:
    """Replays what happened in an account; flows of cash and in kind alike."""
    books = Ledger()
    totals = books.totals
    for execution in world.executions:
        if execution.account != account:
            continue
        instrument, rate = world.instruments[execution.symbol], execution.rate
        amount = execution.price * instrument.multiplier
        holding = books.holdings.setdefault(execution.symbol, Holding())
        realized = holding.trade(execution.signed, amount) * rate
        totals.realized += realized
        totals.fees += execution.fee * rate
        books.results[execution.symbol] += realized - execution.fee * rate
        books.cash[instrument.currency] -= execution.fee
        if execution.kind in IN_KIND:
            totals.flows += execution.signed * amount * rate
        else:
            books.cash[instrument.currency] -= execution.signed * amount
    for posting in world.postings:
        if posting.account == account:
            books.cash[posting.currency] += posting.amount
            if posting.reason in FLOWS:
                totals.flows += posting.amount * posting.rate
            else:
                totals.income += posting.amount * posting.rate
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

    def cost_of(self, account: str, symbol: str) -> Decimal:
        """What a position has cost, at the rate of today."""
        holding = self.ledger(account).holdings.get(symbol, Holding())
        return holding.cost * self.world.rate(self.book.instrument(symbol).currency)

    def currencies(self, scope: str) -> set[str]:
        """Those in which an account at or below a scope has cash, or positions at some cost."""
        held = set()
        for books in map(self.ledger, self._leaves(scope)):
            costs: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
            for symbol, holding in books.holdings.items():
                costs[self.book.instrument(symbol).currency] += holding.cost
            held |= {
                currency for table in (books.cash, costs) for currency, x in table.items() if x
            }
        return held

    def _leaves(self, scope: str) -> list[str]:
        parents = {s.parent for s in self.world.scopes.values()}
        return [code for code in self.book.accounts(scope) if code not in parents]

    def totals(self, scope: str) -> Totals:
        return sum((self.ledger(a).totals for a in self._leaves(scope)), Totals())

    def today(self, scope: str) -> Totals:
        """What came to the totals since the day was opened."""
        return self.totals(scope) + -sum((start.totals for start in self.starts(scope)), Totals())

    def value(self, scope: str) -> Decimal:
        """Of the positions, as they are carried."""
        leaves = self._leaves(scope)
        return sum(
            (
                q * self._price(*pair) * self.world.unit(pair[1])
                for pair, q in list(self.book.position.items())
                if pair[0] in leaves and q != 0
            ),
            ZERO,
        )

    def _price(self, account: str, symbol: str) -> Decimal:
        price = self.book.carried_price(account, symbol)
        assert price is not None, f"{symbol} was traded at some price"
        return price

    def cash(self, scope: str) -> Decimal:
        cash = [item for a in self._leaves(scope) for item in self.ledger(a).cash.items()]
        return sum((amount * self.world.rate(currency) for currency, amount in cash), ZERO)

    def book_value(self, scope: str) -> Decimal:
        """Cash, and positions at cost."""
        accounts = self._leaves(scope)
        costs = [self.cost_of(a, symbol) for a in accounts for symbol in self.ledger(a).holdings]
        return self.cash(scope) + sum(costs, ZERO)

    def equity(self, scope: str) -> Decimal:
        return self.cash(scope) + self.value(scope)

    def currency_pnl(self, scope: str) -> Decimal:
        """What changes of rates have made of cash and cost."""
        return self.book_value(scope) - self.totals(scope).balance

    def day_start(self, account: str) -> DayStart:
        """What the trading day of an account starts with, were it opened now."""
        equity = self.equity(account)
        return DayStart(
            equity,
            self.totals(account),
            self.currency_pnl(account),
            equity - self.book_value(account),
            dict(self.ledger(account).results),
        )

    def start(self, account: str) -> DayStart:
        """An account that was made since the day was opened started with nothing."""
        return self.world.day_starts.get(account, DayStart())

    def starts(self, scope: str) -> list[DayStart]:
        return [self.start(account) for account in self._leaves(scope)]

    def start_equity(self, scope: str) -> Decimal:
        return sum((start.equity for start in self.starts(scope)), ZERO)

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
