"""Books that are measured: many positions in options, with limits on Greeks at every level."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

import pgrisk.sql
from tests.bench.firm import SETTINGS

if TYPE_CHECKING:
    from pgrisk.client.embedded import Server

    Connection = psycopg.Connection[tuple[Any, ...]]

DESKS = 10
LIMITS = ("vega", "theta", "dollar_gamma", "net_exposure", "gross_exposure", "delta", "gamma")

# Positions are booked by the engine itself, so that everything which is kept of them is there.
HOLD = """
do $$
declare
  v_position record;
  v_count integer := 0;
begin
  for v_position in
    select a.number as account, o.symbol
    from generate_series(1, {accounts}) as a (number)
    cross join lateral (
      select i.symbol, row_number() over (order by hashtext(a.number || i.symbol)) as place
      from risk.instruments as i where i.kind = 'option') as o
    where o.place <= {each}
    order by 1, 2
  loop
    perform risk_private.record_trade('A' || v_position.account, v_position.symbol,
      case when hashtext(v_position.symbol) % 2 = 0 then 'buy' else 'sell' end,
      1 + abs(hashtext(v_position.symbol || v_position.account)) % 50, 5, v_position.symbol,
      'opening', 0, null);
    v_count := v_count + 1;
    if v_count % 100 = 0 then
      commit;
    end if;
  end loop;
end $$
"""


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
        connection.execute(HOLD.format(accounts=accounts, each=each).encode())
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
