"""The calls that decide: orders, batches and replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .facts import Answer, Order, RiskError
from .judge import Judge
from .lifecycle import Lifecycle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal


class Deciding(Lifecycle):
    """Asks for a decision and keeps it."""

    def preview(self, order: Order) -> Answer:
        """The answer that `order` would get now; nothing is kept."""
        order.decided_at = self.world.now
        return Judge(self.world).answer(order)

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
        order.leg_prices = Judge(self.world).leg_prices(order)
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
            new.was_acknowledged = True
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
