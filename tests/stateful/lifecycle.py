"""Rules for what happens to orders after the decision: fills, trades, releases, dispatch."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.model import BASE_CURRENCY
from tests.stateful.firm import ACCOUNT, AGENT, CENT, OFFSET, SIDE, STOCKS, SYMBOL, TREE, Firm

if TYPE_CHECKING:
    from tests.model import Order


class Lifecycle(Firm):
    """Everything that the execution gateway reports."""

    def fill(self, order: Order, leg: int, quantity: Decimal, percent: Decimal) -> None:
        symbol = order.legs[leg % len(order.legs)].symbol
        price = self.price_near(self.code(symbol), percent)
        exec_id, fee = self.next_id("e"), Decimal(len(self.fills) % 3) / 4
        fill = (order.account, order.client_order_id, exec_id, quantity, price, symbol, fee)
        self.fills.append(fill)
        self.both("record_fill", *fill)

    def left(self, order: Order, leg: int) -> Decimal:
        return self.oracle.book().unfilled(order, order.legs[leg % len(order.legs)].symbol)

    @rule(
        index=st.integers(0, 10),
        legs=st.sampled_from([(0,), (1,), (2,), (0, 1, 2, 3)]),
        quarters=st.sampled_from([1, 2, 4, 4]),
        more=st.sampled_from([0, 0, 0, 2]),
        percent=OFFSET,
    )
    def record_fill(
        self, index: int, legs: tuple[int, ...], quarters: int, more: int, percent: Decimal
    ) -> None:
        """A quarter, a half or all of what is left of one or all legs; or more than there was."""
        order = self.pick_order(index, live=True)
        if order is not None:
            for leg in legs[: len(order.legs)]:
                quantity = max(Decimal(1), self.left(order, leg) * quarters // 4)
                self.fill(order, leg, quantity + more, percent)

    @rule(index=st.integers(0, 30), quantity=st.integers(1, 5))
    def record_fill_on_any_order(self, index: int, quantity: int) -> None:
        """Mostly a fill on an order that is released, expired, replaced or was refused."""
        order = self.pick_order(index, live=False)
        if order is not None:
            self.fill(order, 0, Decimal(quantity), Decimal(0))

    @rule(index=st.integers(0, 10), change=st.booleans())
    def repeat_a_fill(self, index: int, change: bool) -> None:
        """The same execution again changes nothing; with other content it is RK409."""
        if self.fills:
            *order, quantity, price, symbol, fee = self.fills[-1 - index % len(self.fills)]
            quantity += 1 if change else 0
            self.both("record_fill", *order, quantity, price, symbol, fee)

    @rule(
        index=st.integers(0, 10),
        how=st.sampled_from(["bust", "correct", "correct"]),
        quarters=st.sampled_from([4, 2, 3, 6]),
        percent=OFFSET,
    )
    def amend_an_execution(self, index: int, how: str, quarters: int, percent: Decimal) -> None:
        """What has no mark is left alone: by which of its prices it is carried is nobody's rule."""
        known = [e for e in self.world.executions if e.symbol in self.world.marks]
        if not known:
            return
        old = known[-1 - index % len(known)]
        if how == "bust":
            self.both("bust_fill", old.account, old.exec_id)
            return
        quantity, price, _ = old.as_told
        quantity = max(Decimal(1), quantity * quarters // 4)
        price = (price * (1 + percent / 100)).quantize(CENT)
        answer = self.both("correct_fill", old.account, old.exec_id, quantity, price)
        self.stage.seen[f"correct {answer}"] += 1

    @rule(
        account=ACCOUNT,
        leg=st.tuples(SYMBOL, SIDE),
        lots=st.integers(1, 8),
        kind=st.sampled_from(["opening", "unexplained", "assignment", "transfer"]),
    )
    def record_trade(self, account: str, leg: tuple[str, str], lots: int, kind: str) -> None:
        self.trade(account, leg, lots, kind)

    @rule(index=st.integers(0, 10), quarters=st.sampled_from([4, 4, 2]))
    def settle_an_option(self, index: int, quarters: int) -> None:
        """Exercise, assignment or expiry, also before its day; what has expired comes first."""
        position = self.oracle.book().position
        options = [pair for pair, q in position.items() if q and self.code(pair[1]) not in STOCKS]
        if not options:
            return
        options.sort(key=lambda pair: (self.world.instruments[pair[1]].expiry, pair))
        account, symbol = options[index // 2 % len(options)]
        option, held = self.world.instruments[symbol], position[account, symbol]
        assert option.strike is not None
        is_call, is_long = option.option_right == "call", held > 0
        spot = self.world.marks[option.underlying].price
        is_inside = spot > option.strike if is_call else spot < option.strike
        quantity = max(Decimal(1), abs(held) * quarters // 4)
        kind = ("exercise" if is_long else "assignment") if is_inside else "expiry"
        self._settle(account, symbol, "sell" if is_long else "buy", quantity, Decimal(0), kind)
        if is_inside:
            side = "buy" if is_call == is_long else "sell"
            shares = quantity * option.multiplier
            self._settle(account, option.underlying, side, shares, option.strike, kind)

    def _settle(
        self, account: str, symbol: str, side: str, quantity: Decimal, price: Decimal, kind: str
    ) -> None:
        self.stage.seen[kind] += 1
        exec_id = self.next_id("s")
        self.both("record_trade", account, symbol, side, quantity, price, exec_id, kind)

    @rule(
        account=ACCOUNT,
        amount=st.sampled_from([100, 2500, -300, -40000, 50000]),
        reason=st.sampled_from(["deposit", "withdrawal", "transfer", "dividend", "fee"]),
        foreign=st.booleans(),
    )
    def post_cash(self, account: str, amount: int, reason: str, foreign: bool) -> None:
        sign = {"deposit": 1, "withdrawal": -1}.get(reason)
        cash = Decimal(amount if sign is None else sign * abs(amount))
        currency = self.currency if foreign else BASE_CURRENCY
        self.both("post_cash", self.name(account), cash, reason, currency)

    @rule(
        scope=st.sampled_from(sorted(TREE)),
        underlying=st.none() | st.sampled_from(STOCKS),
        agent=AGENT,
    )
    def cancel_orders(self, scope: str, underlying: str | None, agent: str | None) -> None:
        name = self.name(underlying) if underlying else None
        self.both("cancel_orders", self.name(scope), name, agent)
