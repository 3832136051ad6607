"""What happens to an order after the decision: fills, trades, releases, the last look."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .book import ZERO, Book, OpenOrder
from .executions import Execution
from .facts import Order, RiskError
from .gates import SEVERITY, Gates
from .money import IN_KIND
from .records import Records
from .reducing import is_reducing

if TYPE_CHECKING:
    from decimal import Decimal


class Lifecycle(Records):
    """The calls of the execution gateway."""

    def record_fill(
        self,
        account: str,
        client_order_id: str,
        exec_id: str,
        quantity: Decimal,
        price: Decimal,
        symbol: str | None = None,
        fee: Decimal = ZERO,
    ) -> None:
        asked_for = self.order(account, client_order_id)
        symbol = symbol or asked_for.legs[0].symbol
        side = next(leg.side for leg in asked_for.legs if leg.symbol == symbol)
        execution = Execution(
            account, exec_id, symbol, side, quantity, price, "fill", fee, client_order_id
        )
        if self._already_recorded(execution):
            return
        order = self._booked_on(asked_for)
        working = self._working(order)
        pending = self.pending_replacement(order)
        orders = working.versions if working else (order, pending) if pending else (order,)
        self._book(replace(execution, orders=orders))
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
        execution = Execution(account, exec_id, symbol, side, quantity, price, kind)
        if self._already_recorded(execution):
            return
        self._book(execution)
        if kind == "unexplained":
            self.alerts.append(("unexplained_trade", account, None))

    def _book(self, execution: Execution) -> None:
        """Appends an execution; what is brought in kind is a flow."""
        book = self.book()
        takes_up = book.worst_case(execution.account, execution.symbol) == 0
        rate = self.world.rate(self.world.instruments[execution.symbol].currency)
        flow = ZERO
        if execution.kind in IN_KIND:
            flow = execution.signed * execution.price * self.world.unit(execution.symbol)
        self.rebase_peaks(execution.account, flow)
        self.world.executions.append(
            replace(execution, told=execution.as_told, takes_up=takes_up, rate=rate)
        )
        self.sample_peaks(execution.account)

    def _already_recorded(self, told: Execution) -> bool:
        for known in self.world.executions:
            if (known.account, known.exec_id) == (told.account, told.exec_id):
                if not known.is_told_again(told):
                    raise RiskError("RK409", f"{told.exec_id} was recorded with other content")
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
        order.was_acknowledged = True
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
        states = Gates(self.world).states(order).values()
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
            order.was_sent = True

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
