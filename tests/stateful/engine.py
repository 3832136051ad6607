"""The real engine, driven by SQL exactly as a client would, in the oracle's terms."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.model import Dimension, Greeks, LimitKey, Mark, PnlRow, rounded
from tests.stateful.asking import Asking
from tests.stateful.reading import Reading
from tests.stateful.telling import Telling

if TYPE_CHECKING:
    from tests.stateful.calls import Row

ORDERS = """select account, client_order_id, symbol, filled_quantity, remaining_quantity, state
  from risk.orders where account = any(%s)"""
POSITIONS = """select account, symbol, quantity, open_buy, open_sell
  from risk.positions where account = any(%s)"""

UTILIZATION = """select scope, limit_type, symbol, underlying, sector, limit_value, worst_case, used
  from risk.limit_utilization where scope = any(%s) and worst_case is not null"""
ALERTS = """select message ->> 'kind' as kind, message ->> 'account' as account,
    message ->> 'client_order_id' as client_order_id
  from pgmq.q_risk_alerts where message ->> 'account' = any(%s)"""
MARKS = """select symbol, price, bid, ask, as_of, delta, gamma, vega, theta
  from risk.marks where symbol = any(%s)"""
PNL = """select scope, start_equity, equity, realized, unrealized, fees, flows, income, daily_pnl,
    peak_equity, drawdown_pct, cash, currency_pnl, start_unrealized
  from risk.pnl where scope = any(%s)"""
CANCEL_REQUESTS = """select account, client_order_id from risk.open_orders
  where account = any(%s) and cancel_requested_at is not null"""


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


def as_numeric(value: float) -> Decimal:
    """As PostgreSQL casts it, to the 12 decimals that are carried."""
    return rounded(Decimal(f"{value:.15g}"))


class Engine(Asking, Telling, Reading):
    """One connection to the engine; every call is one statement in autocommit."""

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

    def utilization(
        self, scopes: list[str]
    ) -> dict[LimitKey, tuple[Decimal, Decimal, Decimal | None]]:
        keyed = [(limit_key(row), row) for row in self._rows(UTILIZATION, scopes)]
        return {
            key: (row["limit_value"], row["worst_case"], None if key.is_default else row["used"])
            for key, row in keyed
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

    def marks(self, symbols: list[str]) -> dict[str, Mark]:
        """Marks with the Greeks that the engine has: the feed's, or its own."""
        rows = self._rows(MARKS, symbols)
        return {
            row["symbol"]: Mark(
                row["price"],
                row["bid"],
                row["ask"],
                row["as_of"],
                None
                if row["vega"] is None
                else Greeks(*(as_numeric(row[f.name]) for f in fields(Greeks))),
            )
            for row in rows
        }

    def pnl(self, scopes: list[str]) -> dict[str, PnlRow]:
        return {row.pop("scope"): PnlRow(**row) for row in self._rows(PNL, scopes)}
