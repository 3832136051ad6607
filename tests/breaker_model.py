"""What circuit breakers measure and how they live, in plain Python, from the definitions alone."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from datetime import date, datetime, timedelta

Series: TypeAlias = "Sequence[tuple[datetime, Fraction]]"


def spike(ticks: Series, at: datetime, window: timedelta) -> Fraction:
    """How far the value at that moment lies above the lowest of the window, in percent."""
    before = [value for when, value in ticks if when <= at - window]
    within = [value for when, value in ticks if at - window < when <= at]
    lowest = min(before[-1:] + within)
    return (within[-1] - lowest) / lowest * 100


def move(ticks: Series, at: datetime, window: timedelta, direction: str) -> Fraction | None:
    """How far the price at that moment lies from the mean of those before, in percent."""
    price = next(value for when, value in reversed(ticks) if when <= at)
    past = [value for when, value in ticks if when < at]
    recent = [value for when, value in ticks if at - window <= when < at] or past[-1:]
    if not recent:
        return None
    reference = sum(recent, Fraction(0)) / len(recent)
    change = (price - reference) / reference * 100
    return {"up": change, "down": -change, "both": abs(change)}[direction]


def order_rate(moments: Sequence[datetime], at: datetime, window: timedelta) -> int:
    """How many orders were decided in the window that ends then."""
    return sum(1 for moment in moments if at - window < moment <= at)


def reject_rate(
    decided: Sequence[tuple[datetime, str | None]], at: datetime, window: timedelta
) -> Fraction:
    """Rejects in percent of what was decided in the window; 0 for fewer than 20 orders."""
    unfair = {"TRADING_HALTED", "CIRCUIT_BREAKER_TRIPPED", "REDUCE_ONLY", "STALE_DATA"}
    counted = [
        reason for when, reason in decided if at - window < when <= at and reason not in unfair
    ]
    if len(counted) < 20:
        return Fraction(0)
    return Fraction(sum(1 for reason in counted if reason) * 100, len(counted))


def longest_losing_run(results: Sequence[Fraction]) -> int:
    """The most losing results in a row."""
    longest = run = 0
    for result in results:
        run = run + 1 if result < 0 else 0
        longest = max(longest, run)
    return longest


def correlation(closes: Mapping[str, Mapping[date, float]], days: int) -> float | None:
    """Mean Pearson correlation of the log returns of all pairs over the last so many returns."""
    calendar = sorted({day for series in closes.values() for day in series})[-days - 1 :]
    returns: dict[str, dict[tuple[date, date], float]] = {}
    for name, series in closes.items():
        own = [day for day in calendar if day in series]
        returns[name] = {
            (one, two): math.log(series[two] / series[one]) for one, two in pairwise(own)
        }
    found = []
    for one, two in combinations(returns.values(), 2):
        common = sorted(one.keys() & two.keys())
        if len(common) >= 20:
            rho = pearson([one[key] for key in common], [two[key] for key in common])
            if rho is not None:
                found.append(rho)
    return sum(found) / len(found) if found else None


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Correlation of two series; None where one of them does not vary."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    xx = sum((x - mean_x) ** 2 for x in xs)
    yy = sum((y - mean_y) ** 2 for y in ys)
    if min(xx, yy) / len(xs) < 1e-18:
        return None
    xy = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return xy / math.sqrt(xx * yy)


def loss(before: int, now: int, unit: str) -> Fraction:
    """What was lost since, in money or in percent of what there was."""
    return Fraction(before - now) if unit == "amount" else Fraction((before - now) * 100, before)


def drawdown(equities: Sequence[int], unit: str) -> Fraction:
    """What the last equity lies below the highest."""
    return loss(max(equities), equities[-1], unit)


def breached(limits: Sequence[tuple[int, int]]) -> int:
    """How many limits (used, amount) are exceeded."""
    return sum(1 for used, amount in limits if used > amount)


def most_repeated(fills: Iterable[Hashable]) -> int:
    """The most fills of one account, agent, symbol and side."""
    return max(Counter(fills).values(), default=0)


EFFECTS = {
    "NOTIFY": "ACTIVE",
    "REDUCE_ONLY": "REDUCE_ONLY",
    "HALT": "HALTED",
    "HALT_AND_CANCEL": "HALTED",
}


@dataclass
class Breaker:
    """The life of one breaker: ARMED, TRIPPED, COOLDOWN, ARMED."""

    threshold: int
    action: str
    policy: str
    cooldown: timedelta | None
    state: str = "ARMED"
    is_manual: bool = False
    day: date | None = None
    cooling_since: datetime | None = None

    @property
    def effect(self) -> str:
        """The state in which it holds its scope."""
        return "ACTIVE" if self.state == "ARMED" else EFFECTS[self.action]

    def evaluate(self, stands: int, new: Sequence[int], at: datetime, day: date) -> None:
        """Follow the value that stands and those that came since the last evaluation."""
        level = Fraction(self.threshold) * (Fraction(9, 10) if self.policy == "timer" else 1)
        is_clear = max([stands, *new]) < level
        if self.state == "ARMED":
            if new and max(new) >= self.threshold:
                self.trip(day, is_manual=False)
        elif self.state == "TRIPPED":
            may_reset = self.policy == "timer" or (self.policy == "session" and day != self.day)
            if may_reset and is_clear and not self.is_manual:
                self._cool(at)
        elif not is_clear:
            self.trip(day, is_manual=False)
        elif self.cooling_since and self.cooldown and at - self.cooling_since >= self.cooldown:
            self.state = "ARMED"

    def trip(self, day: date, is_manual: bool) -> None:
        """By the condition or, which no condition overrules, by a person."""
        self.state, self.day, self.is_manual = "TRIPPED", day, is_manual

    def reset(self, stands: int, at: datetime) -> bool:
        """By a person; whether that was allowed."""
        if self.state == "ARMED" or stands >= self.threshold:
            return False
        self._cool(at)
        return True

    def _cool(self, at: datetime) -> None:
        self.is_manual = False
        self.state = "COOLDOWN" if self.cooldown else "ARMED"
        self.cooling_since = at
