"""The calls that tell the engine what happened, what is allowed and what things are worth."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.model import BASE_CURRENCY, Dimension, LimitKey, LimitVersion
from tests.stateful.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from tests.model import Instrument, Mark

RECORD_FILL = """call risk.record_fill(account => %s, client_order_id => %s, exec_id => %s,
  quantity => %s, price => %s, symbol => %s, fee => %s)"""
RECORD_TRADE = """call risk.record_trade(account => %s, symbol => %s, side => %s, quantity => %s,
  price => %s, exec_id => %s, kind => %s)"""
SET_MARKS = """call risk.set_marks(symbols => %s::text[], prices => %s::numeric[],
  bids => %s::numeric[], asks => %s::numeric[], ivs => %s::float8[], deltas => %s::float8[],
  gammas => %s::float8[], vegas => %s::float8[], thetas => %s::float8[])"""
SET_LIMIT = """call risk.set_limit(scope => %s, limit_type => %s, amount => %s, symbol => %s,
  underlying => %s, sector => %s, warn_pct => %s, valid_from => %s, valid_until => %s)"""
REMOVE_LIMIT = """call risk.remove_limit(scope => %s, limit_type => %s, symbol => %s,
  underlying => %s, sector => %s, reason => 'test')"""


def key_arguments(key: LimitKey) -> tuple[str | None, str | None, str | None]:
    """(symbol, underlying, sector) of a limit."""
    order = (Dimension.INSTRUMENT, Dimension.UNDERLYING, Dimension.SECTOR)
    symbol, underlying, sector = (key.value if key.dimension is d else None for d in order)
    return symbol, underlying, sector


class Telling(Calls):
    """The execution gateway, the market-data feed and admins."""

    def record_fill(
        self,
        account: str,
        client_order_id: str,
        exec_id: str,
        quantity: Decimal,
        price: Decimal,
        symbol: str | None = None,
        fee: Decimal = Decimal(0),
    ) -> None:
        self._call(RECORD_FILL, account, client_order_id, exec_id, quantity, price, symbol, fee)

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

    def bust_fill(self, account: str, exec_id: str) -> None:
        self._call(
            "call risk.bust_fill(account => %s, exec_id => %s, reason => 'test')", account, exec_id
        )

    def correct_fill(self, account: str, exec_id: str, quantity: Decimal, price: Decimal) -> None:
        self._call(
            "call risk.correct_fill(account => %s, exec_id => %s, quantity => %s, price => %s,"
            " reason => 'test')",
            account,
            exec_id,
            quantity,
            price,
        )

    def adjust_instrument(
        self,
        symbol: str,
        reference: str,
        new: int = 1,
        old: int = 1,
        strike_change: Decimal = Decimal(0),
    ) -> None:
        self._call(
            "call risk.adjust_instrument(symbol => %s, reference => %s, reason => 'split',"
            " new_shares => %s, old_shares => %s, strike_change => %s)",
            symbol,
            reference,
            new,
            old,
            strike_change,
        )

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
                "strike": None if i.strike is None else str(i.strike),
                "option_right": i.option_right,
                "allow_negative_price": i.allow_negative_price,
                "currency": i.currency,
            }
            for i in instruments
        ]
        self._call("call risk.upsert_instruments(instruments => %s)", json.dumps(items))

    def set_setting(self, name: str, value: str, scope: str) -> None:
        self._call(
            "call risk.set_setting(name => %s, value => %s, scope => %s)", name, value, scope
        )

    def set_marks(self, marks: dict[str, Mark], ivs: dict[str, float]) -> None:
        """Greeks that a mark has none of are left to the engine."""
        greeks = [mark.greeks for mark in marks.values()]
        self._call(
            SET_MARKS,
            list(marks),
            *([getattr(mark, name) for mark in marks.values()] for name in ("price", "bid", "ask")),
            [ivs.get(symbol) for symbol in marks],
            *(
                [None if g is None else float(getattr(g, name)) for g in greeks]
                for name in ("delta", "gamma", "vega", "theta")
            ),
        )

    def remark_underlying(self, underlying: str, price: Decimal) -> None:
        self._call("call risk.remark_underlying(symbol => %s, price => %s)", underlying, price)

    def set_fx(self, currency: str, rate: Decimal) -> None:
        self._call("call risk.set_fx(currency => %s, rate => %s)", currency, rate)

    def post_cash(
        self, account: str, amount: Decimal, reason: str, currency: str = BASE_CURRENCY
    ) -> None:
        self._call(
            "call risk.post_cash(account => %s, amount => %s, reason => %s, currency => %s)",
            account,
            amount,
            reason,
            currency,
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

    def open_day(self, day: date, equities: dict[str, Decimal] | None = None) -> None:
        told = {account: str(equity) for account, equity in (equities or {}).items()}
        self._call("call risk.open_day(day => %s, equities => %s)", day, json.dumps(told))
