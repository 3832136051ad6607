"""What is asked of the engine and what it answers. Quantities, prices and money are Decimals.

Quantities are in units of the instrument (shares, contracts), prices in its currency per share,
money and limits on money in the firm's base currency.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pgrisk.client.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

Number = Decimal | int | str
Side = Literal["buy", "sell"]
TimeInForce = Literal["DAY", "GTC"]


def exact(name: str, value: Number) -> Decimal:
    """The number as a Decimal.

    Raises InvalidRequest for a float, which is hardly ever the number that was meant, and for what
    is no number.
    """
    if isinstance(value, (Decimal, int, str)) and not isinstance(value, bool):
        try:
            return Decimal(value)
        except InvalidOperation:
            pass
    raise InvalidRequest(
        f"{name} must be a Decimal, an int or a numeric str, got {value!r:.40}",
        detail=f"argument: {name}",
    )


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg of a combo: `ratio` units of `symbol` per combo."""

    symbol: str
    side: Side
    ratio: int = 1

    def as_json(self) -> dict[str, Any]:
        return {"symbol": self.symbol, "side": self.side, "ratio": self.ratio}


@dataclass(frozen=True, slots=True)
class Order:
    """An order in one instrument, for a batch. Without a price it is a market order."""

    account: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Number
    price: Number | None = None
    agent: str | None = None
    time_in_force: TimeInForce = "DAY"

    def as_json(self) -> dict[str, Any]:
        return _batch_item(self) | {"symbol": self.symbol, "side": self.side}


@dataclass(frozen=True, slots=True)
class Combo:
    """A combo, for a batch. The price is net per combo: positive a debit, negative a credit."""

    account: str
    client_order_id: str
    legs: tuple[Leg, ...]
    quantity: Number
    price: Number | None = None
    agent: str | None = None
    time_in_force: TimeInForce = "DAY"

    def as_json(self) -> dict[str, Any]:
        return _batch_item(self) | {"legs": [leg.as_json() for leg in self.legs]}


def _batch_item(order: Order | Combo) -> dict[str, Any]:
    item: dict[str, Any] = {
        "account": order.account,
        "client_order_id": order.client_order_id,
        "quantity": str(exact("quantity", order.quantity)),
        "time_in_force": order.time_in_force,
    }
    if order.price is not None:
        item["price"] = str(exact("price", order.price))
    if order.agent is not None:
        item["agent"] = order.agent
    return item


@dataclass(frozen=True, slots=True)
class Violation:
    """Why an order was refused. `current` and `projected` compare with `limit`.

    They are None where the reason is not a limit, or nothing can be measured.
    """

    reason: str
    limit_type: str | None
    scope: str | None
    dimension: str | None
    limit: Decimal | None
    current: Decimal | None
    projected: Decimal | None
    allowed_quantity: Decimal | None


@dataclass(frozen=True, slots=True)
class LimitWarning:
    """A limit that the order brings to its warning level or beyond, without exceeding it."""

    limit_type: str | None
    scope: str | None
    dimension: str | None
    limit: Decimal | None
    current: Decimal | None
    projected: Decimal | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The engine's answer to an order; durable, and the same whenever it is asked for again.

    `reason` is the gravest of the violations, None when accepted. `allowed_quantity` is the largest
    quantity that would have passed at that moment.
    """

    order_id: UUID
    decision: Literal["ACCEPTED", "REJECTED"]
    reason: str | None
    allowed_quantity: Decimal
    violations: tuple[Violation, ...]
    warnings: tuple[LimitWarning, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether the order may go to the broker."""
        return self.decision == "ACCEPTED"

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Decision:
        """From the row of a call, or an element of a batch's answer."""
        detail = row["detail"]
        return cls(
            row["order_id"] if isinstance(row["order_id"], UUID) else UUID(row["order_id"]),
            row["decision"],
            row["reason"],
            Decimal(row["allowed_quantity"]),
            tuple(
                Violation(
                    v["reason"],
                    *_what(v),
                    *_amounts(v, "limit", "current", "projected"),
                    amount(v.get("allowed_quantity")),
                )
                for v in detail["violations"]
            ),
            tuple(
                LimitWarning(*_what(w), *_amounts(w, "limit", "current", "projected"))
                for w in detail["warnings"]
            ),
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a preview: PASS, WARN or FAIL, and how much it would allow."""

    check_name: str
    scope: str | None
    dimension: str | None
    limit_type: str | None
    limit_value: Decimal | None
    current_value: Decimal | None
    projected_value: Decimal | None
    headroom: Decimal | None
    allowed_quantity: Decimal | None
    status: Literal["PASS", "WARN", "FAIL"]
    reason: str | None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """The last look before sending: REJECTED means the order was released, with the reason."""

    decision: Literal["ACCEPTED", "REJECTED"]
    reason: str | None

    @property
    def is_accepted(self) -> bool:
        """Whether the order may be sent now."""
        return self.decision == "ACCEPTED"


@dataclass(frozen=True, slots=True)
class Execution:
    """What a booked execution led to.

    `flag` is None for an ordinary fill, else what was odd: it was booked all the same, and alerted.
    `position` is the account's in that instrument now; `remaining_quantity` and `order_state` are
    the order's, None where no order explains the execution.
    """

    exec_id: str
    flag: str | None
    position: Decimal
    order_state: str | None
    remaining_quantity: Decimal | None

    @classmethod
    def of(cls, detail: Mapping[str, Any]) -> Execution:
        """From the detail of a call."""
        return cls(
            detail["exec_id"],
            detail["flag"],
            Decimal(detail["position"]),
            detail["order_state"],
            amount(detail["remaining_quantity"]),
        )


def amount(value: str | None) -> Decimal | None:
    """A number out of JSON, where numbers are strings."""
    return None if value is None else Decimal(value)


def _what(item: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    return item.get("limit_type"), item.get("scope"), item.get("dimension")


def _amounts(
    item: Mapping[str, Any], *names: str
) -> tuple[Decimal | None, Decimal | None, Decimal | None]:
    first, second, third = (amount(item.get(name)) for name in names)
    return first, second, third
