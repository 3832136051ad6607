"""Rules for splits and special dividends, in the middle of everything else."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.stateful.comparing import agree, agree_on_amounts
from tests.stateful.firm import CENT, STOCKS, SYMBOLS, Firm

if TYPE_CHECKING:
    from tests.model import Greeks

LEAST = Decimal("0.0001")


class Adjusting(Firm):
    """Corporate actions."""

    @rule(
        stock=st.sampled_from(STOCKS),
        ratio=st.sampled_from([(2, 1), (4, 2), (1, 2), (5, 1)]),
        release=st.sampled_from([True, True, True, False]),
        again=st.booleans(),
    )
    def split(self, stock: str, ratio: tuple[int, int], release: bool, again: bool) -> None:
        """A split, mostly once all orders are released; told again, it changes nothing."""
        codes = [code for code in SYMBOLS if code[0] == stock]
        prices = [self.last_price(code) for code in codes]
        if ratio[0] > 1 and (min(prices) < 1 or any(price % LEAST != 0 for price in prices)):
            return  # marks would become too small, or prices too long
        if release:
            self._release_all()
        arguments = (self.name(stock), self.name(self.next_id("split")), *ratio)
        answer = self.both("adjust_instrument", *arguments)
        self.stage.seen[f"split {answer}"] += 1
        if again and answer is None:
            self.both("adjust_instrument", *arguments)
            other = (*arguments[:2], 7, 3)
            assert self.both("adjust_instrument", *other) == "RK409"
        self._compare_marks([self.name(code) for code in codes])

    @rule(stock=st.sampled_from(STOCKS), cents=st.sampled_from([-50, -200]))
    def pay_a_special_dividend(self, stock: str, cents: int) -> None:
        """Strikes follow; most often some order is open, and nothing happens."""
        name, change = self.name(stock), cents * CENT
        options = [i for i in self.world.instruments.values() if i.underlying == name and i.strike]
        if all(option.strike and option.strike + change > 0 for option in options):
            reference = self.name(self.next_id("dividend"))
            answer = self.both("adjust_instrument", name, reference, 1, 1, change)
            self.stage.seen[f"dividend {answer}"] += 1

    def _release_all(self) -> None:
        while True:
            live = [order for order in self.world.orders if order.is_live]
            if not live:
                return
            order = live[0]
            self.both("release", order.account, order.client_order_id, "cancelled")

    def _compare_marks(self, symbols: list[str]) -> None:
        """Greeks are binary fractions in the engine, so they agree but for the last digits."""
        known = self.engine.marks(symbols)
        for symbol, mark in known.items():
            expected = self.world.marks[symbol]
            agree(f"mark of {symbol}", replace(mark, greeks=None), replace(expected, greeks=None))
            agree(f"unknown Greeks of {symbol}", mark.greeks is None, expected.greeks is None)
            if mark.greeks and expected.greeks:
                agree_on_amounts(
                    "Greeks of", {symbol: values(mark.greeks)}, {symbol: values(expected.greeks)}
                )
        self.oracle.set_marks(known)


def values(greeks: Greeks) -> tuple[Decimal, ...]:
    """Greeks side by side."""
    return (greeks.delta, greeks.gamma, greeks.vega, greeks.theta)
