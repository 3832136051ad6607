"""Books that are measured: many positions in options, with limits on Greeks at every level."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

import pgrisk.sql
from tests.bench.firm import SETTINGS, SUMS

if TYPE_CHECKING:
    from pgrisk.client.embedded import Server

    Connection = psycopg.Connection[tuple[Any, ...]]

DESKS = 10
LIMITS = ("vega", "theta", "dollar_gamma", "net_exposure", "gross_exposure", "delta", "gamma")

# What booking every position by risk.record_trade would leave, by a statement per table.
HOLD = (
    """
insert into risk_private.fills (account_id, exec_id, instrument_id, signed_quantity, price, fee,
  unit_price, kind, trading_day, executed_at, recorded_at, multiplier, rate)
select s.scope_id, o.symbol, o.instrument_id,
  (1 + abs(hashtext(o.symbol || s.code)) % 50)
    * case hashtext(o.symbol) % 2 when 0 then 1 else -1 end,
  5, 0, 5 * o.multiplier, 'opening', s.trading_day, now(), now(), o.multiplier, 1
from risk_private.scopes as s
cross join lateral (
  select i.*, row_number() over (order by hashtext(s.code || i.symbol)) as place
  from risk_private.instruments as i where i.kind = 'option') as o
where s.is_leaf and o.place <= {each}
order by s.scope_id, o.instrument_id
""",
    """
insert into risk_private.positions (account_id, instrument_id, underlying_id, quantity, unit_value,
  unit_notional, unit_delta, unit_gamma, unit_dollar_delta, unit_dollar_gamma, unit_vega,
  unit_theta, has_greeks, cost, average_price)
select f.account_id, f.instrument_id, i.underlying_id, f.signed_quantity, u.unit_value,
  u.unit_notional, u.unit_delta, u.unit_gamma, u.unit_dollar_delta, u.unit_dollar_gamma,
  u.unit_vega, u.unit_theta, u.has_greeks, f.signed_quantity * f.unit_amount, f.price
from risk_private.fills as f
join risk_private.instruments as i on i.instrument_id = f.instrument_id
join risk_private.unit_values as u on u.instrument_id = f.instrument_id
order by f.account_id, f.instrument_id
""",
    SUMS,
    "insert into risk_private.exposures select r.* from risk_private.recount_exposures() as r",
)


@dataclass(frozen=True)
class Book:
    """A database with a book, by the URL of its owner."""

    owner: str
    symbols: list[str]
    """Its options."""


def create(
    server: Server, name: str, accounts: int, underlyings: int, options: int, each: int
) -> Book:
    """Makes a database where each of so many accounts holds `each` options out of `options`."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    owner = server.url(name)
    symbols = [f"O{number}" for number in range(options)]
    with psycopg.connect(owner, autocommit=True) as connection:
        pgrisk.sql.load(connection)
        for setting, value in SETTINGS.items():
            connection.execute("call risk.set_setting(%s, %s)", [setting, value])
        connection.execute("call risk.create_scope('F', 'firm')")
        for number in range(1, DESKS + 1):
            connection.execute("call risk.create_scope(%s, 'desk', 'F')", [f"D{number}"])
        for number in range(1, accounts + 1):
            parent = f"D{1 + number % DESKS}"
            connection.execute("call risk.create_scope(%s, 'account', %s)", [f"A{number}", parent])
        _list(connection, underlyings, symbols)
        _limit(connection, accounts)
        mark(connection, symbols, 0)
        connection.execute("vacuum analyze")
        for statement in HOLD:
            connection.execute(statement.format(each=each).encode())
        connection.execute("vacuum analyze")
    return Book(owner, symbols)


def mark(connection: Connection, symbols: list[str], seed: int) -> list[int]:
    """Store a mark of every option, Greeks included, and revalue nothing: the instruments."""
    dice = random.Random(seed)
    prices = [str(round(dice.uniform(1, 20), 2)) for _ in symbols]
    greeks = [[dice.uniform(0.1, 0.9) for _ in symbols] for _ in range(6)]
    row = connection.execute(
        "select (risk_private.set_marks(%s, %s::numeric[], null, null, %s, %s, %s, %s, %s, %s,"
        " null)).instrument_ids",
        [symbols, prices, *greeks],
    ).fetchone()
    assert row is not None
    return list(row[0])


def _list(connection: Connection, underlyings: int, symbols: list[str]) -> None:
    stocks = [{"symbol": f"U{number}", "kind": "stock"} for number in range(underlyings)]
    options = [
        {
            "symbol": symbol,
            "kind": "option",
            "underlying": f"U{number % underlyings}",
            "expiry": "2099-12-18",
            "strike": str(50 + number % 200 / 2),
            "option_right": "call" if number % 2 else "put",
        }
        for number, symbol in enumerate(symbols)
    ]
    connection.execute("call risk.upsert_instruments(%s)", [json.dumps(stocks + options)])
    connection.execute(
        "call risk.set_marks(%s, %s::numeric[])",
        [[stock["symbol"] for stock in stocks], ["100"] * underlyings],
    )


def _limit(connection: Connection, accounts: int) -> None:
    scopes = ["F", *(f"D{n}" for n in range(1, DESKS + 1)), *(f"A{n + 1}" for n in range(accounts))]
    limits = [
        {"scope": scope, "limit_type": limit_type, "amount": 10**14}
        for scope in scopes
        for limit_type in LIMITS
    ]
    limits.append({"scope": "F", "limit_type": "net_position", "amount": 10**9})
    connection.execute("call risk.set_limits(%s)", [json.dumps(limits)])
