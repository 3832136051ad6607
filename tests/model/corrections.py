"""Busts and corrections: history is told again as if it had happened that way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .book import ZERO
from .facts import RiskError
from .lifecycle import Lifecycle
from .money import IN_KIND

if TYPE_CHECKING:
    from decimal import Decimal

    from .executions import Execution
    from .facts import Order


class Corrections(Lifecycle):
    """What the broker takes back or puts right."""

    def bust_fill(self, account: str, exec_id: str) -> None:
        old = self._execution(account, exec_id)
        if not old.is_busted:
            new = replace(old, quantity=ZERO, fee=ZERO, is_busted=True)
            self._put(old, new, "fill_busted")

    def correct_fill(self, account: str, exec_id: str, quantity: Decimal, price: Decimal) -> None:
        """In the terms that held when it was booked, before any split since."""
        old = self._execution(account, exec_id)
        if old.is_busted:
            raise RiskError("RK409", f"{exec_id} was busted")
        new = old.amended(quantity, price)
        if (new.quantity, new.price) != (old.quantity, old.price):
            self._put(old, new, "fill_corrected")

    def _execution(self, account: str, exec_id: str) -> Execution:
        for execution in self.world.executions:
            if (execution.account, execution.exec_id) == (account, exec_id):
                return execution
        raise RiskError("RK404", f"no execution {exec_id} in {account}")

    def _put(self, old: Execution, new: Execution, alert: str) -> None:
        account = old.account
        if old.kind in IN_KIND:
            change = new.signed * new.price - old.signed * old.price
            multiplier = self.world.instruments[old.symbol].multiplier
            self.rebase_peaks(account, change * multiplier * old.rate)
        self.world.executions[self.world.executions.index(old)] = new
        if old.orders:
            self._refill(self._heirs(old.orders[0]), old, new.filled - old.filled)
        self.sample_peaks(account)
        self.alerts.append((alert, account, old.reported_as))

    def _heirs(self, order: Order) -> list[Order]:
        """An order and all that have replaced it or may yet."""
        for other in self.world.orders:
            if other.replaces is order and (
                other.is_confirmed
                or (other.replace_pending and (other.is_live or other.was_filled))
            ):
                return [order, *self._heirs(other)]
        return [order]

    def _refill(self, heirs: list[Order], old: Execution, change: Decimal) -> None:
        """What changes counts in all heirs, and in no replacement that came to nothing."""
        for order in {*heirs, *old.orders}:
            counts = (order in heirs) - (order in old.orders)
            before = order.filled_before.get(old.symbol, ZERO)
            order.filled_before[old.symbol] = before + counts * change
        book = self.book()
        noted = [o for o in heirs if not (o.replace_pending and o.replaces and o.replaces.is_live)]
        for order in heirs:
            if not order.is_live and order.was_filled:
                if all(book.unfilled(order, leg.symbol) == 0 for leg in order.legs):
                    order.close("FILLED", None)
                else:
                    order.close("CANCELLED", "fill_corrected")
            elif order.state == "PARTIALLY_FILLED" and not any(
                book.filled[order, leg.symbol] for leg in order.legs
            ):
                sent = "SENT" if order.was_sent else "ACCEPTED"
                order.state = "ACKNOWLEDGED" if order.was_acknowledged else sent
        for order in noted:
            self._note_fills(order)
