"""What the demo can replay: two market breaks, and what people do while they happen."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib.resources import files
from itertools import pairwise

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


@dataclass(frozen=True)
class Closes:
    """What a trading day ended with."""

    day: date
    spx: float
    vix: float
    stocks: dict[str, Decimal]


@dataclass(frozen=True)
class Session:
    """One trading day: it opens at the closes of the day before, and ends at its own."""

    close: Closes
    previous: Closes

    @property
    def day(self) -> date:
        """Its date."""
        return self.close.day

    def change(self, stock: str) -> float:
        """The day's return, 0.01 for 1 %."""
        return float(self.close.stocks[stock] / self.previous.stocks[stock]) - 1


@dataclass(frozen=True)
class Act:
    """What an admin does of his own accord, in one round of a day: a procedure and arguments."""

    day: date
    round: int
    procedure: str
    arguments: dict[str, str]


@dataclass(frozen=True)
class Scenario:
    """Some weeks of closes, when options expire in them, and who acts."""

    name: str
    expiries: tuple[date, ...]
    acts: tuple[Act, ...]

    def sessions(self) -> list[Session]:
        """Its trading days."""
        name = f"prices_{self.name.replace('-', '_')}.csv"
        with files("pgrisk.cli").joinpath(name).open(encoding="utf-8") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        closes = [
            Closes(
                date.fromisoformat(row["date"]),
                float(row["SPX"]),
                float(row["VIX"]),
                {stock: Decimal(row[stock]) for stock in STOCKS},
            )
            for row in rows
        ]
        return [Session(now, before) for before, now in pairwise(closes)]


def _state(day: date, number: int, scope: str, state: str, reason: str) -> Act:
    arguments = {"scope": scope, "state": state, "reason": reason}
    return Act(day, number, "set_trading_state", arguments)


def _status(day: date, number: int, symbol: str, status: str, reason: str) -> Act:
    arguments = {"symbol": symbol, "status": status, "reason": reason}
    return Act(day, number, "set_instrument_status", arguments)


AUGUST_2015 = Scenario(
    "2015-08",
    (date(2015, 8, 21), date(2015, 9, 18)),
    (
        _status(date(2015, 8, 12), 1, "MRK", "RESTRICTED", "on the restricted list"),
        _state(date(2015, 8, 14), 2, "PAIRS", "HALTED", "its model is in doubt: kill switch"),
        _state(date(2015, 8, 14), 4, "PAIRS", "ACTIVE", "the model was right"),
        _status(date(2015, 8, 18), 1, "RRC", "NO_NEW_SHORTS", "no shares to borrow"),
        _status(date(2015, 8, 25), 1, "BBY", "BLOCKED", "results before the open"),
        _status(date(2015, 8, 26), 1, "BBY", "ACTIVE", "results are out"),
    ),
)
FEBRUARY_2018 = Scenario(
    "2018-02",
    (date(2018, 2, 2), date(2018, 3, 16)),
    (
        _status(date(2018, 1, 30), 1, "MRK", "RESTRICTED", "on the restricted list"),
        _state(date(2018, 1, 31), 2, "PAIRS", "HALTED", "its model is in doubt: kill switch"),
        _state(date(2018, 1, 31), 4, "PAIRS", "ACTIVE", "the model was right"),
        _status(date(2018, 2, 1), 1, "RRC", "NO_NEW_SHORTS", "no shares to borrow"),
    ),
)
SCENARIOS = {scenario.name: scenario for scenario in (AUGUST_2015, FEBRUARY_2018)}
