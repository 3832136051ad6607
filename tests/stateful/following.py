"""A rule that stays with one order: replaces, fills under either id, and what ends them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.model import Judge
from tests.stateful.deciding import Deciding
from tests.stateful.firm import ACCOUNT, CENT, SIDE, SYMBOL
from tests.stateful.lifecycle import Lifecycle

if TYPE_CHECKING:
    from tests.model import Order

EVENTS = (
    *("replace", "replace", "replace_like", "confirm", "confirm", "reject", "fill", "fill"),
    *("release", "dispatch", "ack", "reduce_only", "resume", "resume"),
)
RELEASES = ("cancelled", "expired", "broker_rejected")


def fits(event: str, order: Order) -> bool:
    """Whether an event is what normally happens to an order in its state."""
    if event in ("confirm", "reject"):
        return order.is_live and order.replace_pending
    if event.startswith("replace"):
        return order.is_live and not order.replace_pending
    return event != "dispatch" or order.state == "ACCEPTED"


class Following(Deciding, Lifecycle):
    """The life of an order and of those that replace it."""

    def family(self, order: Order) -> list[Order]:
        """The order and all that replaced it, one after the other or in vain."""
        found = [order]
        for other in self.world.orders:
            if other.replaces in found:
                found.append(other)
        return found

    @rule(
        index=st.integers(0, 10),
        fresh=st.tuples(ACCOUNT, st.tuples(SYMBOL, SIDE), st.integers(2, 6)),
        events=st.lists(
            st.tuples(st.sampled_from(EVENTS), st.integers(-4, 6)), min_size=3, max_size=8
        ),
    )
    def follow_order(
        self,
        index: int,
        fresh: tuple[str, tuple[str, str], int],
        events: list[tuple[str, int]],
    ) -> None:
        """What happens to a live order or to a fresh one.

        An event comes to one that it fits; those of the highest number come to any of them.
        """
        order = self.pick_order(index, live=True)
        if order is None or index > 4:
            order = self.make_order(*fresh, Decimal(0), "a", "GTC")
            self.decide(order)
        for event, number in events:
            family = self.family(order)
            candidates = [o for o in family if number > 5 or fits(event, o)]
            if candidates:
                getattr(self, f"_{event}")(candidates[number % len(candidates)], number)

    def _replace(self, old: Order, number: int) -> None:
        """For more or less, at another price or at the same."""
        quantity = old.quantity + number * Judge(self.world).step(old)
        price = old.price
        if price is not None and number % 2:
            price = (price + number * CENT).quantize(CENT)
        self._ask_to_replace(old, quantity, price)

    def _replace_like(self, old: Order, number: int) -> None:
        """By the content of another order with the same legs."""
        same = [order for order in self.world.orders if order.legs == old.legs]
        like = same[number % len(same)]
        self._ask_to_replace(old, like.quantity, like.price)

    def _ask_to_replace(self, old: Order, quantity: Decimal, price: Decimal | None) -> None:
        if quantity > 0 and (price is None or price > 0 or old.is_combo):
            old_id, new_id = old.client_order_id, self.next_id("n")
            answer = self.both("replace", old.account, old_id, new_id, quantity, price)
            self.stage.seen[f"replace {getattr(answer, 'decision', answer)}"] += 1

    def _confirm(self, new: Order, _number: int) -> None:
        self.both("confirm_replace", new.account, new.client_order_id)

    def _reject(self, new: Order, _number: int) -> None:
        self.both("reject_replace", new.account, new.client_order_id)

    def _fill(self, order: Order, number: int) -> None:
        quantity = Decimal(1) if number < 5 else self.left(order, 0) + 1
        self.fill(order, number, quantity, Decimal(0))

    def _release(self, order: Order, number: int) -> None:
        self.both("release", order.account, order.client_order_id, RELEASES[number % 3])

    def _dispatch(self, order: Order, _number: int) -> None:
        self.both("dispatch", order.account, order.client_order_id)

    def _ack(self, order: Order, _number: int) -> None:
        self.both("ack", order.account, order.client_order_id)

    def _reduce_only(self, order: Order, _number: int) -> None:
        self.both("set_trading_state", order.account, "REDUCE_ONLY")

    def _resume(self, _order: Order, _number: int) -> None:
        self.resume_everything()
