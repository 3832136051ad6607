"""Every call that a trading system makes on the engine, typed, pooled, and repeated where safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.types.json import Jsonb

from pgrisk.client.errors import InvalidRequest
from pgrisk.client.limit_reader import LimitReader
from pgrisk.client.orders import (
    Check,
    Combo,
    Decision,
    Dispatch,
    Execution,
    Leg,
    Number,
    Order,
    Side,
    TimeInForce,
    exact,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class RiskClient(LimitReader):
    """A client of the engine at `url`, for all threads of a process to share.

        with RiskClient(database_url()) as risk:
            decision = risk.check_order("A1", "A1-1", "AAPL", "buy", 200, Decimal("187.40"))
            if decision.is_accepted:
                ...  # send it

    A call that gets no answer (a lost connection, a time-out, a deadlock) is repeated with the same
    id, up to `attempts` attempts of `timeout` seconds each (and as long again to get a connection)
    with pauses of up to a second: the engine carries an id out once and gives its first answer to
    every repetition. What is still without an answer then raises OutcomeUnknown.

    Every method raises a RiskError: InvalidRequest, NotAllowed, NotFound, Conflict, EngineFault,
    Unavailable or OutcomeUnknown. Whatever it is, an order whose `is_accepted` was not seen to be
    true must not be sent. Numbers are Decimal, int or numeric str; floats are refused.
    """

    # Deciding -------------------------------------------------------------------------------------

    def check_order(
        self,
        account: str,
        client_order_id: str,
        symbol: str,
        side: Side,
        quantity: Number,
        price: Number | None = None,
        *,
        agent: str | None = None,
        time_in_force: TimeInForce = "DAY",
    ) -> Decision:
        """Decide an order, reserve it and record the decision. Without a price: a market order.

        The same id with the same content gets the first answer again, with other content Conflict.
        """
        return Decision.of(
            self._call(
                "check_order",
                account=account,
                client_order_id=client_order_id,
                symbol=symbol,
                side=side,
                quantity=exact("quantity", quantity),
                price=_price(price),
                agent=agent,
                time_in_force=time_in_force,
            )
        )

    def check_combo(
        self,
        account: str,
        client_order_id: str,
        legs: Sequence[Leg],
        quantity: Number,
        price: Number | None = None,
        *,
        agent: str | None = None,
        time_in_force: TimeInForce = "DAY",
    ) -> Decision:
        """Decide a combo as one order: all legs or none.

        The price is net per combo: positive a debit paid, negative a credit received.
        """
        return Decision.of(
            self._call(
                "check_combo",
                account=account,
                client_order_id=client_order_id,
                legs=Jsonb([leg.as_json() for leg in legs]),
                quantity=exact("quantity", quantity),
                price=_price(price),
                agent=agent,
                time_in_force=time_in_force,
            )
        )

    def check_orders(self, orders: Sequence[Order | Combo]) -> list[Decision]:
        """Decide up to 10,000 orders in one durable step, each on its own; answers in that order.

        One that makes no sense fails the whole batch, which then leaves nothing behind.
        """
        row = self._call("check_orders", orders=Jsonb([order.as_json() for order in orders]))
        return [Decision.of(decision) for decision in row["decisions"]]

    def replace_order(
        self,
        account: str,
        client_order_id: str,
        new_client_order_id: str,
        quantity: Number,
        price: Number | None = None,
    ) -> Decision:
        """Decide a new total quantity and price for a live order.

        The larger of old and new stays reserved until confirm_replace or reject_replace; a refusal
        leaves the old order as it was.
        """
        return Decision.of(
            self._call(
                "replace_order",
                account=account,
                client_order_id=client_order_id,
                new_client_order_id=new_client_order_id,
                quantity=exact("quantity", quantity),
                price=_price(price),
            )
        )

    def confirm_replace(self, account: str, new_client_order_id: str) -> None:
        """The broker has replaced the order: only the new id lives on."""
        self._call("confirm_replace", account=account, new_client_order_id=new_client_order_id)

    def reject_replace(self, account: str, new_client_order_id: str) -> None:
        """The broker has refused the replace: only the old id lives on."""
        self._call("reject_replace", account=account, new_client_order_id=new_client_order_id)

    def preview_order(
        self,
        account: str,
        symbol: str,
        side: Side,
        quantity: Number,
        price: Number | None = None,
        *,
        agent: str | None = None,
    ) -> list[Check]:
        """What check_order would say now, one row per check, failures first; reserves nothing."""
        return self._read(
            Check,
            "risk.preview_order(%s, %s, %s, %s, %s, %s)",
            [account, symbol, side, exact("quantity", quantity), _price(price), agent],
        )

    def preview_combo(
        self,
        account: str,
        legs: Sequence[Leg],
        quantity: Number,
        price: Number | None = None,
        *,
        agent: str | None = None,
    ) -> list[Check]:
        """What check_combo would say now, one row per check, failures first; reserves nothing."""
        document = Jsonb([leg.as_json() for leg in legs])
        return self._read(
            Check,
            "risk.preview_combo(%s, %s, %s, %s, %s)",
            [account, document, exact("quantity", quantity), _price(price), agent],
        )

    # What happened to an order --------------------------------------------------------------------

    def dispatch_order(self, account: str, client_order_id: str) -> Dispatch:
        """The last look just before sending: marks the order sent, or releases it and says why."""
        row = self._call("dispatch_order", account=account, client_order_id=client_order_id)
        return Dispatch(row["decision"], row["reason"])

    def ack_order(
        self, account: str, client_order_id: str, broker_order_id: str | None = None
    ) -> None:
        """The broker has acknowledged the order."""
        self._call(
            "ack_order",
            account=account,
            client_order_id=client_order_id,
            broker_order_id=broker_order_id,
        )

    def record_fill(
        self,
        account: str,
        client_order_id: str,
        exec_id: str,
        quantity: Number,
        price: Number,
        *,
        symbol: str | None = None,
        fee: Number = 0,
        executed_at: datetime | None = None,
    ) -> Execution:
        """Book a fill, once per `exec_id`; never refused for risk. `symbol` names a combo's leg.

        The fee is money in the instrument's currency; `executed_at` has a time zone.
        """
        row = self._call(
            "record_fill",
            account=account,
            client_order_id=client_order_id,
            exec_id=exec_id,
            quantity=exact("quantity", quantity),
            price=exact("price", price),
            symbol=symbol,
            fee=exact("fee", fee),
            executed_at=_moment(executed_at),
        )
        return Execution.of(row["detail"])

    def record_trade(
        self,
        account: str,
        symbol: str,
        side: Side,
        quantity: Number,
        price: Number,
        exec_id: str,
        *,
        kind: str = "unexplained",
        fee: Number = 0,
        executed_at: datetime | None = None,
    ) -> Execution:
        """Book an execution that no order explains, once per `exec_id`.

        Kinds: opening, assignment, exercise, expiry, transfer, cash_in_lieu, and unexplained,
        which is alerted.
        """
        row = self._call(
            "record_trade",
            account=account,
            symbol=symbol,
            side=side,
            quantity=exact("quantity", quantity),
            price=exact("price", price),
            exec_id=exec_id,
            kind=kind,
            fee=exact("fee", fee),
            executed_at=_moment(executed_at),
        )
        return Execution.of(row["detail"])

    def release_order(self, account: str, client_order_id: str, reason: str) -> None:
        """The broker has ended the order: cancelled, expired or broker_rejected.

        Gives back what is not filled.
        """
        self._call("release_order", account=account, client_order_id=client_order_id, reason=reason)

    def cancel_orders(
        self,
        scope: str,
        reason: str,
        *,
        underlying: str | None = None,
        agent: str | None = None,
    ) -> None:
        """Request the cancel of every open order of a scope, one message each on risk_alerts.

        A repetition asks again for what is still open; each order counts until it is released.
        """
        self._call("cancel_orders", scope=scope, reason=reason, underlying=underlying, agent=agent)

    def _call(self, procedure: str, **arguments: object) -> dict[str, Any]:
        pairs = (
            sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name))
            for name in arguments
        )
        statement = sql.SQL("call risk.{}({})").format(
            sql.Identifier(procedure), sql.SQL(", ").join(pairs)
        )
        rows = self._pool.ask(statement, arguments, changes=True)
        return rows[0] if rows else {}


def _price(price: Number | None) -> object:
    return None if price is None else exact("price", price)


def _moment(at: datetime | None) -> datetime | None:
    if at is not None and at.tzinfo is None:
        raise InvalidRequest("executed_at must have a time zone", detail="argument: executed_at")
    return at
