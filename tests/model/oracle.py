"""The engine's procedures on a plain-Python world: what each of them must change and answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .book import ZERO, Book, OpenOrder
from .facts import (
    PER_INSTRUMENT,
    PER_ORDER,
    SWITCHES,
    Answer,
    Execution,
    LimitKey,
    LimitVersion,
    Mark,
    Order,
    RiskError,
    World,
)
from .judge import SEVERITY, Judge
from .reducing import is_reducing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date
    from decimal import Decimal


@dataclass
class Oracle:
    """A world, and the calls that change it."""

    world: World
    alerts: list[tuple[str, str, str | None]] = field(default_factory=list)

    # -- reading ---------------------------------------------------------------------------

    def book(self) -> Book:
        return Book(self.world, self.world.orders)

    def find(self, account: str, client_order_id: str) -> Order | None:
        for order in self.world.orders:
            if (order.account, order.client_order_id) == (account, client_order_id):
                return order
        return None

    def order(self, account: str, client_order_id: str) -> Order:
        found = self.find(account, client_order_id)
        if found is None:
            raise RiskError("RK404", f"no order {client_order_id} in {account}")
        return found

    def pending_replacement(self, order: Order) -> Order | None:
        """The order that waits to take this one's place, even if fills have completed it."""
        for other in self.world.orders:
            working = other.is_live or other.state == "FILLED"
            if other.replaces is order and other.replace_pending and working:
                return other
        return None

    def preview(self, order: Order) -> Answer:
        """The answer that `order` would get now; nothing is kept."""
        order.decided_at = self.world.now
        return Judge(self.world).answer(order)

    # -- deciding --------------------------------------------------------------------------

    def check(self, order: Order) -> Answer:
        """check_order and check_combo."""
        earlier = self.find(order.account, order.client_order_id)
        if earlier is not None:
            if earlier.content != order.content:
                raise RiskError("RK409", f"{order.client_order_id} was asked with other content")
            assert earlier.answer is not None
            return earlier.answer
        answer = self.preview(order)
        order.answer = answer
        order.state = answer.decision
        order.notional_prices = Judge(self.world).notional_prices(order)
        self.world.orders.append(order)
        return answer

    def check_orders(self, orders: Sequence[Order]) -> list[Answer]:
        """A batch: each order decided on its own, in the order given."""
        return [self.check(order) for order in orders]

    def replace(
        self, account: str, old_id: str, new_id: str, quantity: Decimal, price: Decimal | None
    ) -> Answer:
        """replace_order: a new total and price for a working order."""
        old = self.order(account, old_id)
        new = Order(
            account,
            new_id,
            old.legs,
            quantity,
            price,
            old.agent,
            old.time_in_force,
            old.is_combo,
            replaces=old,
        )
        if self.find(account, new_id) is not None:
            return self.check(new)
        if not old.is_live or self.pending_replacement(old) is not None or old.replace_pending:
            raise RiskError("RK409", f"{old_id} cannot be replaced")
        book = self.book()
        new.filled_before = {leg.symbol: book.filled[old, leg.symbol] for leg in old.legs}
        if any(quantity * leg.ratio <= new.filled_before[leg.symbol] for leg in old.legs):
            raise RiskError("RK400", "the new total is filled already")
        new.replace_pending = True
        answer = self.check(new)
        new.replace_pending = answer.decision == "ACCEPTED"
        return answer

    def confirm_replace(self, account: str, new_id: str) -> None:
        new = self._replacement(account, new_id)
        if new.replace_pending and new.is_live:
            assert new.replaces is not None
            new.replace_pending = False
            new.is_confirmed = True
            if new.state in ("ACCEPTED", "SENT"):
                new.state = "ACKNOWLEDGED"
            if new.replaces.is_live:
                new.replaces.close("CANCELLED", "replaced")
            self._note_fills(new)

    def _replacement(self, account: str, new_id: str) -> Order:
        new = self.order(account, new_id)
        if new.replaces is None or not new.was_accepted:
            raise RiskError("RK409", f"{new_id} is no replacement")
        return new

    def reject_replace(self, account: str, new_id: str) -> None:
        new = self._replacement(account, new_id)
        if new.replace_pending and new.is_live:
            new.replace_pending = False
            new.close("BROKER_REJECTED", "broker_rejected")

    # -- what happened to an order ---------------------------------------------------------

    def record_fill(
        self,
        account: str,
        client_order_id: str,
        exec_id: str,
        quantity: Decimal,
        price: Decimal,
        symbol: str | None = None,
    ) -> None:
        asked_for = self.order(account, client_order_id)
        symbol = symbol or asked_for.legs[0].symbol
        asked = ("fill", client_order_id, symbol, quantity, price)
        if self._already_recorded(account, exec_id, asked):
            return
        order = self._booked_on(asked_for)
        leg = next(leg for leg in order.legs if leg.symbol == symbol)
        working = self._working(order)
        pending = self.pending_replacement(order)
        orders = working.versions if working else (order, pending) if pending else (order,)
        self._book(account, exec_id, symbol, leg.side, quantity, price, orders, asked)
        if not order.was_accepted:
            self.alerts.append(("fill_on_rejected_order", account, client_order_id))
        elif working is None:
            self.alerts.append(("fill_on_closed_order", account, client_order_id))
        elif quantity > working.open_quantity[symbol]:
            self.alerts.append(("over_fill", account, client_order_id))
        for filled in orders if working is None else (order,):
            self._note_fills(filled)

    def _booked_on(self, order: Order) -> Order:
        """A pending pair books on the old order; one that was replaced passes its fills on."""
        working = self._working(order)
        if working is not None:
            return working.order
        for other in self.world.orders:
            if other.replaces is order and other.is_confirmed:
                return self._booked_on(other)
        return order

    def _working(self, order: Order) -> OpenOrder | None:
        for working in self.book().open_orders:
            if order in working.versions:
                return working
        return None

    def _note_fills(self, order: Order) -> None:
        if not order.is_live:
            return
        book = self.book()
        filled = [book.filled[order, leg.symbol] > 0 for leg in order.legs]
        done = [book.unfilled(order, leg.symbol) == 0 for leg in order.legs]
        if all(done):
            order.close("FILLED", None)
        elif any(filled):
            order.state = "PARTIALLY_FILLED"

    def record_trade(
        self,
        account: str,
        symbol: str,
        side: str,
        quantity: Decimal,
        price: Decimal,
        exec_id: str,
        kind: str = "unexplained",
    ) -> None:
        asked = ("trade", symbol, side, quantity, price, kind)
        if self._already_recorded(account, exec_id, asked):
            return
        self._book(account, exec_id, symbol, side, quantity, price, (), asked)
        if kind == "unexplained":
            self.alerts.append(("unexplained_trade", account, None))

    def _book(
        self,
        account: str,
        exec_id: str,
        symbol: str,
        side: str,
        quantity: Decimal,
        price: Decimal,
        orders: tuple[Order, ...],
        asked: tuple[object, ...],
    ) -> None:
        takes_up = self.book().worst_case(account, symbol) == 0
        self.world.executions.append(
            Execution(account, exec_id, symbol, side, quantity, price, orders, takes_up, asked)
        )

    def _already_recorded(self, account: str, exec_id: str, asked: tuple[object, ...]) -> bool:
        for execution in self.world.executions:
            if (execution.account, execution.exec_id) == (account, exec_id):
                if execution.asked != asked:
                    raise RiskError("RK409", f"{exec_id} was recorded with other content")
                return True
        return False

    def release(self, account: str, client_order_id: str, reason: str) -> None:
        order = self.order(account, client_order_id)
        if order.is_live:
            self._close(order, reason.upper(), reason)

    def _close(self, order: Order, state: str, reason: str) -> None:
        """Ends a live order; a replacement pending on it lives on with the fills it takes over."""
        pending = self.pending_replacement(order)
        order.close(state, reason)
        if pending is not None:
            self._note_fills(pending)

    def ack(self, account: str, client_order_id: str) -> None:
        order = self.order(account, client_order_id)
        if order.state in ("ACCEPTED", "SENT"):
            order.state = "ACKNOWLEDGED"

    def dispatch(self, account: str, client_order_id: str) -> tuple[str, str | None]:
        """The last look: refused and released where the trading state forbids the order now."""
        order = self.order(account, client_order_id)
        if order.state == "ACCEPTED":
            self._last_look(order)
        if order.is_live:
            return "ACCEPTED", None
        refused = order.answer.reason if order.answer else None
        return "REJECTED", order.close_reason or refused or order.state

    def _last_look(self, order: Order) -> None:
        judge = Judge(self.world)
        states = judge.states(order).values()
        effective = max(states, key=SEVERITY.index, default="ACTIVE")
        book = self.book()
        (own,) = [working for working in book.open_orders if order in working.versions]
        without = Book(self.world, [o for o in self.world.orders if o not in own.versions])
        reducing = is_reducing(order, without, book)
        if effective == "HALTED" or (effective == "REDUCE_ONLY" and not reducing):
            reason = "TRADING_HALTED" if effective == "HALTED" else "REDUCE_ONLY"
            self._close(order, "CANCELLED", reason)
        else:
            order.state = "SENT"

    def cancel_orders(
        self,
        scope: str,
        underlying: str | None = None,
        agent: str | None = None,
        again: bool = True,
    ) -> None:
        """Asks for the cancel of every working order; reservations stay."""
        for working in self.book().open_orders:
            order = working.order
            underlyings = {self.world.instruments[leg.symbol].underlying for leg in order.legs}
            if (
                scope in self.world.chain(order.account)
                and underlying in (None, *underlyings)
                and agent in (None, order.agent)
            ):
                for version in working.versions:
                    if again or not version.cancel_requested:
                        version.cancel_requested = True
                        self.alerts.append(
                            ("cancel_request", order.account, version.client_order_id)
                        )

    # -- administration and market data ----------------------------------------------------

    def set_mark(
        self,
        symbol: str,
        price: Decimal,
        bid: Decimal | None = None,
        ask: Decimal | None = None,
    ) -> None:
        self.world.marks[symbol] = Mark(price, bid, ask, self.world.now)

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

    def open_day(self, day: date) -> None:
        """Rolls the trading date: day orders expire, traded_notional starts again.

        The same day again changes nothing.
        """
        if day < self.world.trading_date:
            raise RiskError("RK400", "the trading date moves forward only")
        if day == self.world.trading_date:
            return
        self.world.trading_date = day
        for order in self.world.orders:
            if order.is_live and order.time_in_force == "DAY":
                order.close("EXPIRED", "expired")
        self.world.first_execution_today = len(self.world.executions)

    # -- views -----------------------------------------------------------------------------

    def order_rows(self) -> dict[tuple[str, str, str], tuple[Decimal, Decimal, str]]:
        """(account, id, symbol) -> (filled, remaining, state), one row per leg."""
        book = self.book()
        working: dict[Order, OpenOrder] = {w.order: w for w in book.open_orders}
        rows = {}
        for order in self.world.orders:
            for leg in order.legs:
                key = order.account, order.client_order_id, leg.symbol
                left = book.unfilled(order, leg.symbol) if order in working else ZERO
                rows[key] = book.filled[order, leg.symbol], left, order.state
        return rows

    def position_rows(self) -> dict[tuple[str, str], tuple[Decimal, Decimal, Decimal]]:
        """(account, symbol) -> (position, open buys, open sells)."""
        book = self.book()
        return {
            key: (book.position[key], book.open_buy[key], book.open_sell[key])
            for key in {*book.position, *book.open_buy, *book.open_sell}
        }

    def cancel_requests(self) -> set[tuple[str, str]]:
        """(account, id) of live orders whose cancel was requested."""
        return {
            (order.account, order.client_order_id)
            for order in self.world.orders
            if order.is_live and order.cancel_requested
        }

    def utilization(self) -> dict[LimitKey, tuple[Decimal, Decimal]]:
        """Per limit that something uses up: the limit, and its worst case with all open orders."""
        book = self.book()
        used = {}
        for limit in self.world.limits_in_force():
            key = limit.key
            if key.limit_type in (*PER_ORDER, *SWITCHES):
                continue
            if key.limit_type in PER_INSTRUMENT:
                worst_case = max(self._used_by_instruments(key, book), default=ZERO)
            else:
                worst_case = book.measure(key)
            assert limit.amount is not None
            used[key] = limit.amount, max(ZERO, worst_case)
        return used

    def _used_by_instruments(self, key: LimitKey, book: Book) -> Iterator[Decimal]:
        """The use of each instrument for which no more specific limit of the scope holds."""
        rivals = [
            limit.key
            for limit in self.world.limits_in_force()
            if (limit.key.scope, limit.key.limit_type) == (key.scope, key.limit_type)
            and limit.key.dimension.value > key.dimension.value
        ]
        for symbol, instrument in self.world.instruments.items():
            if key.matches(instrument) and not any(rival.matches(instrument) for rival in rivals):
                long, short = book.sides(key.scope, symbol)
                yield {
                    "net_position": max(long, short),
                    "long_position": long,
                    "short_position": short,
                }[key.limit_type]
