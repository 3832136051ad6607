"""The engine's procedures on a plain-Python world: what each of them must change and answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .adjustments import Adjustments
from .corrections import Corrections
from .deciding import Deciding
from .executions import Posting
from .facts import BASE_CURRENCY, Greeks, LimitKey, LimitVersion, Mark, Rate, RiskError
from .money import FLOWS, ZERO, DayStart, Money
from .reports import Reports

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal


class Oracle(Deciding, Corrections, Adjustments, Reports):
    """Everything that the engine can be told; administration and market data stand here."""

    def set_mark(
        self,
        symbol: str,
        price: Decimal,
        bid: Decimal | None = None,
        ask: Decimal | None = None,
        greeks: Greeks | None = None,
    ) -> None:
        self.set_marks({symbol: Mark(price, bid, ask, self.world.now, greeks)})

    def set_marks(self, marks: dict[str, Mark]) -> None:
        """Marks of one moment: every position in them is carried anew before equity is sampled."""
        self.world.marks |= marks
        self.sample_peaks()

    def set_fx(self, currency: str, rate: Decimal) -> None:
        """Like marks: all accounts are carried anew before equity is sampled."""
        self.world.rates[currency] = Rate(rate, self.world.now)
        self.sample_peaks()

    def post_cash(
        self, account: str, amount: Decimal, reason: str, currency: str = BASE_CURRENCY
    ) -> None:
        rate = self.world.rate(currency)
        self.rebase_peaks(account, amount * rate if reason in FLOWS else ZERO)
        self.world.postings.append(Posting(account, amount, reason, currency, rate))
        self.sample_peaks(account)

    def set_limit(self, version: LimitVersion) -> None:
        self.world.limit_versions.append(version)

    def remove_limit(self, key: LimitKey) -> None:
        self.world.limit_versions.append(LimitVersion(key, None, self.world.now))

    def set_trading_state(
        self,
        scope: str,
        state: str,
        underlying: str | None = None,
        cancel_open: bool = True,
    ) -> None:
        self.world.states[scope, underlying] = state
        if state == "HALTED" and cancel_open:
            self.cancel_orders(scope, underlying, again=False)

    def set_instrument_status(self, symbol: str, status: str) -> None:
        self.world.statuses[symbol] = status

    def open_day(self, day: date, equities: dict[str, Decimal] | None = None) -> None:
        """Rolls the trading date: day orders expire, traded_notional and the P&L start again.

        The same day again only corrects the equities.
        """
        if day < self.world.trading_date:
            raise RiskError("RK400", "the trading date moves forward only")
        if day > self.world.trading_date:
            self.world.trading_date = day
            for order in self.world.orders:
                if order.is_live and order.time_in_force == "DAY":
                    order.close("EXPIRED", "expired")
            self.world.first_execution_today = len(self.world.executions)
            money = Money(self.book())
            self.world.day_starts = {scope: money.day_start(scope) for scope in self.world.scopes}
        for account, equity in (equities or {}).items():
            start = self.world.day_starts.get(account, DayStart())
            self.world.day_starts[account] = replace(start, equity=equity)
