"""The demo's market: closes that are facts, and options on them.

A session begins at the closes of the day before. In its second round stocks and the S&P 500 go to
their closes of the day, in its fourth the VIX does. When in the day that happens is made up, and
so are options, their prices and all bids and asks: Black-Scholes without interest or dividends, at
a volatility of 1.3 times the VIX.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from pgrisk.cli.demo_scenarios import SECTOR_OF, STOCKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

    from pgrisk.cli.demo_scenarios import Session

Right = Literal["call", "put"]

CENT = Decimal("0.01")
STOCKS_MOVE, VIX_MOVES = 2, 4
"""The rounds of a day in which they go to their closes."""

_STRIKES_EACH_WAY = 5
_STRIKE_STEPS = (0.5, 1.0, 2.5, 5.0)
_VOLATILITY_PER_VIX = 0.013


@dataclass(frozen=True)
class Option:
    """A listed option on 100 shares."""

    symbol: str
    stock: str
    expiry: date
    strike: float
    right: Right

    def price(self, spot: Decimal, day: date, volatility: float) -> float:
        """The model's price per share on that day."""
        years = max((self.expiry - day).days, 0.5) / 365
        return black_scholes(self.right, float(spot), self.strike, years, volatility)

    def intrinsic(self, spot: Decimal) -> Decimal:
        """What exercising it is worth per share."""
        value = spot - Decimal(str(self.strike))
        return max(Decimal(0), value if self.right == "call" else -value)


@dataclass(frozen=True)
class Quote:
    """Bid, mark and ask of an instrument."""

    bid: Decimal
    price: Decimal
    ask: Decimal


def black_scholes(right: Right, spot: float, strike: float, years: float, vol: float) -> float:
    """The price of a European option without interest or dividends; `vol` is per year."""
    deviation = vol * math.sqrt(years)
    d1 = math.log(spot / strike) / deviation + deviation / 2
    call = spot * _normal(d1) - strike * _normal(d1 - deviation)
    return call if right == "call" else call - spot + strike


def _normal(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def listed(prices: Mapping[str, Decimal], expiries: Iterable[date]) -> list[Option]:
    """The options that are listed at those prices of stocks: some strikes each side."""
    found = []
    for stock, close in prices.items():
        step = min(_STRIKE_STEPS, key=lambda s: abs(s - 0.025 * float(close)))
        nearest = round(float(close) / step)
        for number in range(nearest - _STRIKES_EACH_WAY, nearest + _STRIKES_EACH_WAY + 1):
            if number > 0:
                found += [_option(stock, e, number * step, r) for e in expiries for r in _RIGHTS]
    return found


_RIGHTS: tuple[Right, Right] = ("call", "put")


def _option(stock: str, expiry: date, strike: float, right: Right) -> Option:
    symbol = f"{stock} {expiry:%y%m%d}{right[0].upper()}{round(strike * 1000):08}"
    return Option(symbol, stock, expiry, strike, right)


class Market:
    """What can be traded at the moment, and at which prices."""

    def __init__(self, expiries: tuple[date, ...]) -> None:
        self.options: dict[str, Option] = {}
        self.quotes: dict[str, Quote] = {}
        self.session: Session
        self.prices: dict[str, Decimal]
        self.spx = self.vix = 0.0
        self.last_expiry = expiries[-1]
        self._expiries = expiries
        self._strikes: dict[tuple[str, date, Right], list[Option]] = {}

    @property
    def volatility(self) -> float:
        """At which all options are priced."""
        return self.vix * _VOLATILITY_PER_VIX

    def open(self, session: Session) -> list[Option]:
        """Open a day at the closes before it; returns the options that are listed anew."""
        self.session = session
        before = session.previous
        self.prices, self.spx, self.vix = before.stocks, before.spx, before.vix
        expiries = [e for e in self._expiries if e >= session.day]
        new = [
            option for option in listed(self.prices, expiries) if option.symbol not in self.options
        ]
        self.options.update((option.symbol, option) for option in new)
        for option in new:
            strikes = self._strikes.setdefault((option.stock, option.expiry, option.right), [])
            strikes.append(option)
            strikes.sort(key=lambda o: o.strike)
        self._quote()
        return new

    def move(self, number: int) -> bool:
        """Take the prices of that round of the day; whether there are any new ones."""
        close = self.session.close
        if number == STOCKS_MOVE:
            self.prices, self.spx = close.stocks, close.spx
        elif number == VIX_MOVES:
            self.vix = close.vix
        else:
            return False
        self._quote()
        return True

    def _quote(self) -> None:
        day, volatility = self.session.day, self.volatility
        quotes = {stock: _quote(price, 0.0002) for stock, price in self.prices.items()}
        for option in self.options.values():
            if option.expiry >= day:
                value = option.price(self.prices[option.stock], day, volatility)
                mark = max(CENT, round(Decimal(value), 2))
                quotes[option.symbol] = _quote(mark, 0.015)
        self.quotes = quotes

    def nearest_expiry(self) -> date:
        """The next day on which options expire, today included."""
        return next(expiry for expiry in self._expiries if expiry >= self.session.day)

    def option(self, stock: str, expiry: date, right: Right, steps: int) -> str | None:
        """The option so many strikes above (or below) the money; None where none is listed."""
        strikes = self._strikes[stock, expiry, right]
        spot = float(self.prices[stock])
        number = min(range(len(strikes)), key=lambda n: abs(strikes[n].strike - spot)) + steps
        return strikes[number].symbol if 0 <= number < len(strikes) else None


def _quote(mark: Decimal, half_spread: float) -> Quote:
    half = max(CENT, mark * Decimal(half_spread))
    return Quote(max(CENT, round(mark - half, 2)), mark, round(mark + half, 2))


def stock_terms() -> list[dict[str, Any]]:
    """The stocks as `risk.upsert_instruments` takes them."""
    return [
        {"symbol": stock, "kind": "stock", "sector": SECTOR_OF[stock], "tick": "0.01"}
        for stock in STOCKS
    ]


def option_terms(options: Iterable[Option]) -> list[dict[str, Any]]:
    """Options as `risk.upsert_instruments` takes them."""
    return [
        {
            "symbol": option.symbol,
            "kind": "option",
            "underlying": option.stock,
            "expiry": option.expiry.isoformat(),
            "strike": str(option.strike),
            "option_right": option.right,
            "tick": "0.01",
        }
        for option in options
    ]
