"""Splits: history is told again as if it had happened on the new terms. Special dividends."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from .book import ZERO
from .facts import Greeks, Instrument, Mark, RiskError
from .records import Records

if TYPE_CHECKING:
    from .executions import Execution

CENT = Decimal("0.01")


class Adjustments(Records):
    """What becomes of a stock and its options where shares are given for others, or of strikes."""

    def adjust_instrument(
        self,
        symbol: str,
        reference: str,
        new: int = 1,
        old: int = 1,
        strike_change: Decimal = ZERO,
    ) -> None:
        ratio = Decimal(new) / Decimal(old)
        known = self.world.adjustments.get(reference)
        if known == (symbol, ratio, strike_change):
            return
        if known is not None:
            raise RiskError("RK409", f"{reference} was another adjustment")
        today = self.world.trading_date
        on_it = [i for i in self.world.instruments.values() if i.underlying == symbol]
        expired = [i.symbol for i in on_it if i.expiry is not None and i.expiry < today]
        affected = {i.symbol: i for i in on_it if i.symbol not in expired}
        self._require_adjustable(affected, expired)
        self.world.adjustments[reference] = symbol, ratio, strike_change
        for instrument in affected.values():
            is_whole = instrument.strike is None or (ratio > 1 and ratio % 1 == 0)
            self._tell_again(instrument, ratio, ratio if is_whole else Decimal(1))
            adjusted = self.world.instruments[instrument.symbol]
            if adjusted.strike is not None:
                adjusted = replace(adjusted, strike=adjusted.strike + strike_change)
                self.world.instruments[instrument.symbol] = adjusted

    def _require_adjustable(self, affected: dict[str, Instrument], expired: list[str]) -> None:
        book = self.book()
        for working in book.open_orders:
            if any(leg.symbol in affected for leg in working.order.legs):
                raise RiskError("RK409", "orders are open")
        if any(book.position[pair] != 0 for pair in list(book.position) if pair[1] in expired):
            raise RiskError("RK409", "an expired position is not settled")

    def _tell_again(self, instrument: Instrument, ratio: Decimal, units: Decimal) -> None:
        """`units` is what a position is multiplied by; an option's multiplier takes the rest."""
        strike = instrument.strike
        if strike is not None:
            strike = strike / ratio
            strike = strike.quantize(CENT, ROUND_HALF_UP) if units != 1 else strike
            multiplier = instrument.multiplier * ratio / units
            self.world.instruments[instrument.symbol] = replace(
                instrument, strike=strike, multiplier=multiplier
            )
        executions = self.world.executions
        for index, execution in enumerate(executions):
            if execution.symbol == instrument.symbol:
                executions[index] = _on_new_terms(execution, ratio, units)
        mark = self.world.marks.get(instrument.symbol)
        if mark is not None:
            self.world.marks[instrument.symbol] = _at_new_level(mark, ratio)


def _on_new_terms(execution: Execution, ratio: Decimal, units: Decimal) -> Execution:
    """For the same money."""
    return replace(
        execution,
        quantity=execution.quantity * units,
        price=execution.price / ratio,
        units=execution.units * units,
        ratio=execution.ratio * ratio,
    )


def _at_new_level(mark: Mark, ratio: Decimal) -> Mark:
    g = mark.greeks
    return Mark(
        mark.price / ratio,
        None if mark.bid is None else mark.bid / ratio,
        None if mark.ask is None else mark.ask / ratio,
        mark.as_of,
        g and Greeks(g.delta, g.gamma * ratio, g.vega / ratio, g.theta / ratio),
    )
