"""The calls that decide, and what they answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.model import Answer, Violation
from tests.stateful.calls import Calls, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.model import Leg, Order

CHECK_ORDER = """call risk.check_order(account => %s, client_order_id => %s, symbol => %s,
  side => %s, quantity => %s, price => %s, agent => %s, time_in_force => %s)"""
CHECK_COMBO = """call risk.check_combo(account => %s, client_order_id => %s, legs => %s,
  quantity => %s, price => %s, agent => %s, time_in_force => %s)"""
REPLACE_ORDER = """call risk.replace_order(account => %s, client_order_id => %s,
  new_client_order_id => %s, quantity => %s, price => %s)"""
PREVIEW_ORDER = """select * from risk.preview_order(account => %s, symbol => %s, side => %s,
  quantity => %s, price => %s, agent => %s)"""
PREVIEW_COMBO = """select * from risk.preview_combo(account => %s, legs => %s, quantity => %s,
  price => %s, agent => %s)"""


@dataclass(frozen=True)
class Preview:
    """What the preview's rows amount to."""

    violations: frozenset[Violation]
    warnings: frozenset[tuple[str, str, str]]
    allowed_quantity: Decimal


def legs_json(legs: Sequence[Leg]) -> list[Row]:
    return [{"symbol": leg.symbol, "side": leg.side, "ratio": int(leg.ratio)} for leg in legs]


def parse_answer(row: Row) -> Answer:
    """The oracle's form of a decision row or of one element of check_orders' answer."""
    detail = row["detail"] or {}
    if isinstance(detail, str):
        detail = json.loads(detail)
    return Answer(
        row["decision"],
        row["reason"],
        Decimal(row["allowed_quantity"]),
        frozenset(
            Violation(v["reason"], v.get("limit_type"), v.get("scope"), v.get("dimension"))
            for v in detail.get("violations", [])
        ),
        frozenset(
            (w["limit_type"], w["scope"], w["dimension"]) for w in detail.get("warnings", [])
        ),
    )


class Asking(Calls):
    """Orders, combos, batches, previews and replaces."""

    def check(self, order: Order) -> Answer:
        if order.is_combo:
            row = self._call(
                CHECK_COMBO,
                order.account,
                order.client_order_id,
                json.dumps(legs_json(order.legs)),
                order.quantity,
                order.price,
                order.agent,
                order.time_in_force,
            )
        else:
            row = self._call(
                CHECK_ORDER,
                order.account,
                order.client_order_id,
                order.legs[0].symbol,
                order.legs[0].side,
                order.quantity,
                order.price,
                order.agent,
                order.time_in_force,
            )
        return parse_answer(row)

    def check_orders(self, orders: Sequence[Order]) -> list[Answer]:
        items = []
        for order in orders:
            item: Row = {
                "account": order.account,
                "client_order_id": order.client_order_id,
                "quantity": str(order.quantity),
                "price": None if order.price is None else str(order.price),
                "agent": order.agent,
                "time_in_force": order.time_in_force,
            }
            if order.is_combo:
                item["legs"] = legs_json(order.legs)
            else:
                item |= {"symbol": order.legs[0].symbol, "side": order.legs[0].side}
            items.append(item)
        row = self._call("call risk.check_orders(orders => %s)", json.dumps(items))
        return [parse_answer(decision) for decision in row["decisions"]]

    def preview(self, order: Order) -> Preview:
        rest = order.quantity, order.price, order.agent
        if order.is_combo:
            legs = json.dumps(legs_json(order.legs))
            rows = self._rows(PREVIEW_COMBO, order.account, legs, *rest)
        else:
            (leg,) = order.legs
            rows = self._rows(PREVIEW_ORDER, order.account, leg.symbol, leg.side, *rest)
        return Preview(
            frozenset(
                Violation(row["reason"], row["limit_type"], row["scope"], row["dimension"])
                for row in rows
                if row["status"] == "FAIL"
            ),
            frozenset(
                (row["limit_type"], row["scope"], row["dimension"])
                for row in rows
                if row["status"] == "WARN"
            ),
            min((row["allowed_quantity"] for row in rows), default=order.quantity),
        )

    def replace(
        self, account: str, old_id: str, new_id: str, quantity: Decimal, price: Decimal | None
    ) -> Answer:
        return parse_answer(self._call(REPLACE_ORDER, account, old_id, new_id, quantity, price))

    def confirm_replace(self, account: str, new_id: str) -> None:
        self._call(
            "call risk.confirm_replace(account => %s, new_client_order_id => %s)", account, new_id
        )

    def reject_replace(self, account: str, new_id: str) -> None:
        self._call(
            "call risk.reject_replace(account => %s, new_client_order_id => %s)", account, new_id
        )
