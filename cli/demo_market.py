"""The demo's market: closes of August 2015, and options on them.

The closes are facts. The options, their prices and all bids and asks are made up: Black-Scholes
without interest or dividends, at a volatility of 1.3 times the VIX.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Right = Literal["call", "put"]

SECTORS = {
    "Consumer": ("BBY", "HD"),
    "Energy": ("CVX", "RRC", "XOM"),
    "Financials": ("BAC", "JPM"),
    "Health": ("JNJ", "LLY", "MRK", "PFE", "UNH"),
    "Industrials": ("GE",),
    "Staples": ("KO", "PEP", "PG", "WMT"),
    "Technology": ("AAPL", "AMD", "MSFT"),
}
STOCKS = tuple(sorted(stock for stocks in SECTORS.values() for stock in stocks))
SECTOR_OF = {stock: sector for sector, stocks in SECTORS.items() for stock in stocks}
EXPIRIES = (date(2015, 8, 21), date(2015, 9, 18))
LAST_EXPIRY = EXPIRIES[-1]
CENT = Decimal("0.01")

_STRIKES_EACH_WAY = 6
_STRIKE_STEPS = (0.5, 1.0, 2.5, 5.0)
_VOLATILITY_PER_VIX = 0.013


@dataclass(frozen=True)
class Session:
    """One trading day: the closes and the closes before."""

    day: date
    spx: float
    vix: float
    closes: dict[str, Decimal]
    previous: dict[str, Decimal]

    @property
    def volatility(self) -> float:
        """At which all options are priced that day."""
        return self.vix * _VOLATILITY_PER_VIX

    def change(self, stock: str) -> float:
        """The day's return, 0.01 for 1 %."""
        return float(self.closes[stock] / self.previous[stock]) - 1


@dataclass(frozen=True)
class Option:
    """A listed option on 100 shares."""

    symbol: str
    stock: str
    expiry: date
    strike: float
    right: Right

    def price(self, session: Session) -> float:
        """The model's price per share on that day."""
        years = max((self.expiry - session.day).days, 0.5) / 365
        spot = float(session.closes[self.stock])
        return black_scholes(self.right, spot, self.strike, years, session.volatility)

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


def sessions() -> list[Session]:
    """The trading days from 2015-08-10 to 2015-08-28."""
    with files("pgrisk.cli").joinpath("prices_2015_08.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    closes = [{stock: Decimal(row[stock]) for stock in STOCKS} for row in rows]
    days = zip(pairwise(closes), rows[1:], strict=True)
    return [
        Session(date.fromisoformat(row["date"]), float(row["SPX"]), float(row["VIX"]), now, before)
        for (before, now), row in days
    ]


def black_scholes(right: Right, spot: float, strike: float, years: float, vol: float) -> float:
    """The price of a European option without interest or dividends; `vol` is per year."""
    deviation = vol * math.sqrt(years)
    d1 = math.log(spot / strike) / deviation + deviation / 2
    call = spot * _normal(d1) - strike * _normal(d1 - deviation)
    return call if right == "call" else call - spot + strike


def _normal(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def listed(session: Session, expiries: Iterable[date]) -> list[Option]:
    """The options that are listed on that day: some strikes each side of the close."""
    found = []
    for stock, close in session.closes.items():
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
    """What can be traded on a day, and at which prices."""

    def __init__(self) -> None:
        self.options: dict[str, Option] = {}
        self.quotes: dict[str, Quote] = {}
        self.session: Session
        self._strikes: dict[tuple[str, date, Right], list[Option]] = {}

    def open(self, session: Session) -> list[Option]:
        """Take the prices of that day; returns the options that are listed anew."""
        expiries = [e for e in EXPIRIES if e >= session.day]
        new = [option for option in listed(session, expiries) if option.symbol not in self.options]
        self.session = session
        self.options.update((option.symbol, option) for option in new)
        for option in new:
            strikes = self._strikes.setdefault((option.stock, option.expiry, option.right), [])
            strikes.append(option)
            strikes.sort(key=lambda o: o.strike)
        self.quotes = {stock: _quote(close, 0.0002) for stock, close in session.closes.items()}
        for option in self.options.values():
            if option.expiry >= session.day:
                mark = max(CENT, round(Decimal(option.price(session)), 2))
                self.quotes[option.symbol] = _quote(mark, 0.015)
        return new

    def nearest_expiry(self) -> date:
        """The next day on which options expire, today included."""
        return next(expiry for expiry in EXPIRIES if expiry >= self.session.day)

    def option(self, stock: str, expiry: date, right: Right, steps: int) -> str | None:
        """The option so many strikes above (or below) the money; None where none is listed."""
        strikes = self._strikes[stock, expiry, right]
        spot = float(self.session.closes[stock])
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
