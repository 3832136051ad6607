"""Rules that ask for decisions: single orders, combos, batches, repeats and replaces."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.model import Judge, Leg, Order
from tests.stateful.firm import (
    ACCOUNT,
    AGENT,
    CENT,
    OFFSET,
    SIDE,
    STOCKS,
    SYMBOL,
    SYMBOLS,
    Firm,
)

if TYPE_CHECKING:
    from typing import TypeAlias

    LegChoice: TypeAlias = tuple[str, str, int]

OPPOSITE = {"buy": "sell", "sell": "buy"}


class Deciding(Firm):
    """Every way to ask for a decision."""

    def make_order(
        self,
        account: str,
        leg: tuple[str, str],
        lots: int,
        percent: Decimal | None,
        agent: str | None = None,
        time_in_force: str = "DAY",
    ) -> Order:
        """A single order `percent` away from the mark; None is a market order."""
        symbol, side = leg
        instrument = self.world.instruments[self.name(symbol)]
        price = None if percent is None else self.price_near(symbol, percent)
        return Order(
            self.name(account),
            self.next_id("o"),
            (Leg(instrument.symbol, side),),
            lots * instrument.lot,
            price,
            agent,
            time_in_force,
        )

    def make_combo(
        self, account: str, legs: list[LegChoice], steps: int, offset: Decimal | None
    ) -> Order:
        """A combo `offset` away from the net of its marks; None is a market order."""
        parsed = tuple(Leg(self.name(symbol), side, Decimal(ratio)) for symbol, side, ratio in legs)
        order = Order(
            self.name(account), self.next_id("c"), parsed, Decimal(1), None, "a", is_combo=True
        )
        order.quantity = steps * Judge(self.world).step(order)
        if offset is not None:
            net = sum(
                leg.sign * leg.ratio * self.last_price(self.code(leg.symbol)) for leg in parsed
            )
            order.price = (net + offset).quantize(CENT)
        return order

    # -- single orders ---------------------------------------------------------------------

    @rule(
        leg=st.tuples(SYMBOL, SIDE),
        sizes=st.lists(st.tuples(ACCOUNT, st.integers(1, 12)), min_size=1, max_size=3),
        percent=st.none() | OFFSET,
        agent=AGENT,
        time_in_force=st.sampled_from(["DAY", "GTC"]),
    )
    def check_order(
        self,
        leg: tuple[str, str],
        sizes: list[tuple[str, int]],
        percent: Decimal | None,
        agent: str | None,
        time_in_force: str,
    ) -> None:
        """A few orders in one symbol, from several accounts."""
        for account, lots in sizes:
            self.decide(self.make_order(account, leg, lots, percent, agent, time_in_force))

    @rule(account=ACCOUNT, leg=st.tuples(st.sampled_from(STOCKS), SIDE), lots=st.integers(1, 12))
    def check_market_order(self, account: str, leg: tuple[str, str], lots: int) -> None:
        self.decide(self.make_order(account, leg, lots, None))

    @rule(account=ACCOUNT, symbol=SYMBOL, quarters=st.integers(1, 5), percent=st.none() | OFFSET)
    def check_closing_order(
        self, account: str, symbol: str, quarters: int, percent: Decimal | None
    ) -> None:
        """An order against the position, mostly within it: what reducing is about."""
        held = self.oracle.book().position[self.name(account), self.name(symbol)]
        lot = self.world.instruments[self.name(symbol)].lot
        side = "sell" if held > 0 else "buy"
        lots = max(1, int(abs(held) * quarters / 4 / lot))
        self.decide(self.make_order(account, (symbol, side), lots, percent, "a"))

    @rule(
        index=st.integers(0, 5),
        live=st.booleans(),
        account=st.none() | ACCOUNT,
        opposite=st.booleans(),
        cents=st.sampled_from([0, 0, 1, -1]),
        agent=AGENT,
    )
    def check_echo(
        self,
        index: int,
        live: bool,
        account: str | None,
        opposite: bool,
        cents: int,
        agent: str | None,
    ) -> None:
        """An earlier order again, or its other side: duplicates and crosses."""
        order = self.pick_order(index, live)
        if order is None:
            return
        legs = order.legs
        if opposite:
            legs = tuple(replace(leg, side=OPPOSITE[leg.side]) for leg in legs)
        price = None if order.price is None else order.price + cents * CENT
        if price is not None and not order.is_combo:
            price = max(price, CENT)
        self.decide(
            Order(
                self.name(account) if account else order.account,
                self.next_id("d"),
                legs,
                order.quantity,
                price,
                agent,
                is_combo=order.is_combo,
            )
        )

    # -- combos and batches ----------------------------------------------------------------

    @rule(
        account=ACCOUNT,
        legs=st.lists(
            st.tuples(SYMBOL, SIDE, st.integers(1, 2)),
            min_size=1,
            max_size=4,
            unique_by=lambda leg: leg[0],
        ),
        steps=st.integers(1, 6),
        offset=st.sampled_from([None, Decimal("-0.5"), Decimal(0), Decimal("0.1"), Decimal(2)]),
    )
    def check_combo(
        self, account: str, legs: list[LegChoice], steps: int, offset: Decimal | None
    ) -> None:
        self.decide(self.make_combo(account, legs, steps, offset))

    @rule(account=ACCOUNT, stock=st.sampled_from(STOCKS), kept=SYMBOL, steps=st.integers(1, 2))
    def check_closing_combo(self, account: str, stock: str, kept: str, steps: int) -> None:
        """A combo that closes an account's positions in one underlying, but for one symbol."""
        position = self.oracle.book().position
        held = {
            code: position[self.name(account), self.name(code)]
            for code in SYMBOLS
            if code.startswith(stock) and code != kept
        }
        legs = [(code, "sell" if q > 0 else "buy", 1) for code, q in held.items() if q]
        if legs:
            self.decide(self.make_combo(account, legs, steps, Decimal(0)))

    @rule(
        orders=st.lists(
            st.tuples(ACCOUNT, SYMBOL, SIDE, st.integers(1, 4), st.booleans()),
            min_size=1,
            max_size=5,
        )
    )
    def check_batch(self, orders: list[tuple[str, str, str, int, bool]]) -> None:
        """Single orders and combos mixed, each decided on its own."""
        batch = [
            self.make_combo(account, [(symbol, side, 1)], lots, None)
            if is_combo
            else self.make_order(account, (symbol, side), lots, Decimal(0), "b", "GTC")
            for account, symbol, side, lots, is_combo in orders
        ]
        for answer in self.both("check_orders", batch):
            self.count(answer)

    @rule(index=st.integers(0, 30), change=st.booleans())
    def ask_again(self, index: int, change: bool) -> None:
        """The same id gets the first answer again, and RK409 with other content."""
        order = self.pick_order(index, live=False)
        if order is None or order.replaces is not None:
            return
        more = Judge(self.world).step(order) if change else 0
        answer = self.both("check", replace(order, quantity=order.quantity + more))
        assert (answer == "RK409") is change
