"""The real engine, driven by SQL exactly as a client would, in the oracle's terms."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from tests.model import Answer, Dimension, LimitKey, LimitVersion, RiskError, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date, datetime

    from tests.model import Instrument, Leg, Order

Row = dict[str, Any]

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
RECORD_FILL = """call risk.record_fill(account => %s, client_order_id => %s, exec_id => %s,
  quantity => %s, price => %s, symbol => %s)"""
RECORD_TRADE = """call risk.record_trade(account => %s, symbol => %s, side => %s, quantity => %s,
  price => %s, exec_id => %s, kind => %s)"""
SET_LIMIT = """call risk.set_limit(scope => %s, limit_type => %s, amount => %s, symbol => %s,
  underlying => %s, sector => %s, warn_pct => %s, valid_from => %s, valid_until => %s)"""
REMOVE_LIMIT = """call risk.remove_limit(scope => %s, limit_type => %s, symbol => %s,
  underlying => %s, sector => %s, reason => 'test')"""
ORDERS = """select account, client_order_id, symbol, filled_quantity, remaining_quantity, state
  from risk.orders where account = any(%s)"""
POSITIONS = """select account, symbol, quantity, open_buy, open_sell
  from risk.positions where account = any(%s)"""

UTILIZATION = """select scope, limit_type, symbol, underlying, sector, limit_value, worst_case
  from risk.limit_utilization where scope = any(%s) and worst_case is not null"""
ALERTS = """select message ->> 'kind' as kind, message ->> 'account' as account,
    message ->> 'client_order_id' as client_order_id
  from pgmq.q_risk_alerts where message ->> 'account' = any(%s)"""
CANCEL_REQUESTS = """select account, client_order_id from risk.open_orders
  where account = any(%s) and cancel_requested_at is not null"""


@dataclass(frozen=True)
class Preview:
    """What the preview's rows amount to."""

    violations: frozenset[Violation]
    warnings: frozenset[tuple[str, str, str]]
    allowed_quantity: Decimal


@contextmanager
def errors_as_the_oracle_raises_them() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith("RK"):
            raise
        raise RiskError(str(error.sqlstate), str(error)) from error


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


def key_arguments(key: LimitKey) -> tuple[str | None, str | None, str | None]:
    """(symbol, underlying, sector) of a limit."""
    order = (Dimension.INSTRUMENT, Dimension.UNDERLYING, Dimension.SECTOR)
    symbol, underlying, sector = (key.value if key.dimension is d else None for d in order)
    return symbol, underlying, sector


def limit_key(row: Row) -> LimitKey:
    """The limit that a row of risk.limit_utilization is about."""
    for dimension, column in (
        (Dimension.INSTRUMENT, "symbol"),
        (Dimension.UNDERLYING, "underlying"),
        (Dimension.SECTOR, "sector"),
    ):
        if row[column] is not None:
            return LimitKey(row["scope"], row["limit_type"], dimension, row[column])
    return LimitKey(row["scope"], row["limit_type"])


class Engine:
    """One connection to the engine; every call is one statement in autocommit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.cursor = connection.cursor(row_factory=dict_row)

    def _call(self, statement: str, *arguments: object) -> Row:
        with errors_as_the_oracle_raises_them():
            self.cursor.execute(statement, arguments, prepare=True)
        return self.cursor.fetchone() or {} if self.cursor.description else {}

    def _rows(self, statement: str, *arguments: object) -> list[Row]:
        with errors_as_the_oracle_raises_them():
            return self.cursor.execute(statement, arguments, prepare=True).fetchall()

    # -- deciding --------------------------------------------------------------------------

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
        self._call(RECORD_FILL, account, client_order_id, exec_id, quantity, price, symbol)

    def record_trade(
        self,
        account: str,
        symbol: str,
        side: str,
        quantity: Decimal,
        price: Decimal,
        exec_id: str,
        kind: str,
    ) -> None:
        self._call(RECORD_TRADE, account, symbol, side, quantity, price, exec_id, kind)

    def release(self, account: str, client_order_id: str, reason: str) -> None:
        self._call(
            "call risk.release_order(account => %s, client_order_id => %s, reason => %s)",
            account,
            client_order_id,
            reason,
        )

    def ack(self, account: str, client_order_id: str) -> None:
        self._call(
            "call risk.ack_order(account => %s, client_order_id => %s)", account, client_order_id
        )

    def dispatch(self, account: str, client_order_id: str) -> tuple[str, str | None]:
        row = self._call(
            "call risk.dispatch_order(account => %s, client_order_id => %s)",
            account,
            client_order_id,
        )
        return row["decision"], row["reason"]

    def cancel_orders(
        self, scope: str, underlying: str | None = None, agent: str | None = None
    ) -> None:
        self._call(
            """call risk.cancel_orders(scope => %s, reason => 'test', underlying => %s,
                 agent => %s)""",
            scope,
            underlying,
            agent,
        )

    # -- administration and market data ----------------------------------------------------

    def set_clock(self, moment: datetime) -> None:
        self.cursor.execute("update risk_private.fake_clock set at = %s", (moment,))
        if self.cursor.rowcount == 0:
            self.cursor.execute("insert into risk_private.fake_clock (at) values (%s)", (moment,))

    def create_scope(self, code: str, kind: str, parent: str | None) -> None:
        self._call(
            "call risk.create_scope(code => %s, kind => %s, parent => %s)", code, kind, parent
        )

    def upsert_instruments(self, instruments: Sequence[Instrument]) -> None:
        items = [
            {
                "symbol": i.symbol,
                "kind": i.kind,
                "underlying": i.underlying,
                "sector": i.sector,
                "multiplier": str(i.multiplier),
                "lot": str(i.lot),
                "tick": str(i.tick),
                "expiry": i.expiry.isoformat() if i.expiry else None,
                "strike": "100" if i.option_right else None,
                "option_right": i.option_right,
                "allow_negative_price": i.allow_negative_price,
            }
            for i in instruments
        ]
        self._call("call risk.upsert_instruments(instruments => %s)", json.dumps(items))

    def set_setting(self, name: str, value: str, scope: str) -> None:
        self._call(
            "call risk.set_setting(name => %s, value => %s, scope => %s)", name, value, scope
        )

    def set_marks(
        self,
        symbols: list[str],
        prices: list[Decimal],
        bids: list[Decimal | None],
        asks: list[Decimal | None],
    ) -> None:
        self._call(
            """call risk.set_marks(symbols => %s::text[], prices => %s::numeric[],
                 bids => %s::numeric[], asks => %s::numeric[])""",
            symbols,
            prices,
            bids,
            asks,
        )

    def set_limit(self, version: LimitVersion) -> None:
        key = version.key
        self._call(
            SET_LIMIT,
            key.scope,
            key.limit_type,
            version.amount,
            *key_arguments(key),
            version.warn_pct,
            version.valid_from,
            version.valid_until,
        )

    def remove_limit(self, key: LimitKey) -> None:
        self._call(REMOVE_LIMIT, key.scope, key.limit_type, *key_arguments(key))

    def set_trading_state(
        self, scope: str, state: str, underlying: str | None = None, cancel_open: bool = True
    ) -> None:
        self._call(
            """call risk.set_trading_state(scope => %s, state => %s, reason => 'test',
                 underlying => %s, cancel_open => %s)""",
            scope,
            state,
            underlying,
            cancel_open,
        )

    def set_instrument_status(self, symbol: str, status: str) -> None:
        self._call(
            """call risk.set_instrument_status(symbol => %s, status => %s, reason => 'test')""",
            symbol,
            status,
        )

    def open_day(self, day: date) -> None:
        self._call("call risk.open_day(day => %s)", day)

    # -- views -----------------------------------------------------------------------------

    def order_rows(
        self, accounts: list[str]
    ) -> dict[tuple[str, str, str], tuple[Decimal, Decimal, str]]:
        return {
            (row["account"], row["client_order_id"], row["symbol"]): (
                row["filled_quantity"],
                row["remaining_quantity"],
                row["state"],
            )
            for row in self._rows(ORDERS, accounts)
        }

    def positions(
        self, accounts: list[str]
    ) -> dict[tuple[str, str], tuple[Decimal, Decimal, Decimal]]:
        return {
            (row["account"], row["symbol"]): (row["quantity"], row["open_buy"], row["open_sell"])
            for row in self._rows(POSITIONS, accounts)
        }

    def differences(self) -> list[Row]:
        """What verify_counters() finds wrong."""
        return self._rows("select * from risk.verify_counters()")

    def utilization(self, scopes: list[str]) -> dict[LimitKey, tuple[Decimal, Decimal]]:
        return {
            limit_key(row): (row["limit_value"], row["worst_case"])
            for row in self._rows(UTILIZATION, scopes)
        }

    def alerts(self, accounts: list[str]) -> list[tuple[str, str, str | None]]:
        return [
            (row["kind"], row["account"], row["client_order_id"])
            for row in self._rows(ALERTS, accounts)
        ]

    def cancel_requests(self, accounts: list[str]) -> set[tuple[str, str]]:
        return {
            (row["account"], row["client_order_id"])
            for row in self._rows(CANCEL_REQUESTS, accounts)
        }
