"""The firm that is measured: 64 accounts, 4 desks, limits on every level, 2,000 instruments.

Its orders come from an ordinary login: the trader's role and a grant on the firm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

import pgrisk.sql

if TYPE_CHECKING:
    from pgrisk.client.embedded import Server

ACCOUNTS, DESKS, SYMBOLS = 64, 4, 2000
TRADER = "bench_trader"
SETTINGS = {
    "max_mark_age": "86400",  # the gate is open, and marks are not stale before a run ends
    "max_heartbeat_age": "0",  # nothing sends heartbeats here
}
LIMITS = {
    "net_position": 10**9,
    "order_notional": 10**9,
    "gross_notional": 10**14,
    "traded_notional": 10**14,
    "open_orders": 10**8,
}

# What a decision cannot do without: one durable insert of the row that it leaves. The table is not
# vacuumed, for that would burden what is measured next.
FLOOR = """
create table risk_private.floor_orders (like risk_private.orders including all)
with (autovacuum_enabled = false);
create procedure risk.insert_only(account_id integer, client_order_id text,
  instrument_id integer, quantity numeric, price numeric)
language plpgsql as $$
begin
  insert into risk_private.floor_orders (
    account_id, client_order_id, underlying_id, instrument_ids, ratios, quantity, price, is_combo,
    time_in_force, unit_prices, filled, decision, allowed_quantity, state, decided_at)
  values (
    account_id, client_order_id, instrument_id, array[instrument_id], array[1], quantity, price,
    false, 'DAY', array[price], array[0::numeric], 'ACCEPTED', quantity, 'ACCEPTED',
    clock_timestamp());
end $$;
grant usage on schema risk, risk_private to bench_trader;
grant insert on risk_private.floor_orders to bench_trader;
"""

# The first order in an instrument makes the counters of its desk and firm: not what is measured.
TOUCH = """
insert into risk_private.counters (counter_id, scope_id, dimension, key_id)
select risk_private.counter_id(s.scope_id, 3, i.instrument_id), s.scope_id, 3, i.instrument_id
from risk_private.scopes as s cross join risk_private.instruments as i
where s.tracks_instrument order by 1 on conflict do nothing
"""

# About a thousand times the limits: three on every account and instrument.
MANY_LIMITS = """
with kinds (limit_type, amount) as (
  values ('long_position', 1e9), ('short_position', 1e9), ('order_quantity', 1e9)
), added as (
  insert into risk_private.limits (scope_id, limit_type, dimension, key_id, version, amount,
    warn_pct, valid_from, valid_until, set_at)
  select s.scope_id, k.limit_type, 3, i.instrument_id, 1, k.amount, 80, now(), 'infinity', now()
  from risk_private.scopes as s cross join risk_private.instruments as i cross join kinds as k
  where s.is_leaf
  returning *
), periods as (
  insert into risk_private.limit_periods (scope_id, dimension, key_id, limit_type, valid_until,
    valid_from, limit_id, amount, warn_pct, version)
  select a.scope_id, a.dimension, a.key_id, a.limit_type, a.valid_until, a.valid_from, a.limit_id,
    a.amount, a.warn_pct, a.version
  from added as a
)
insert into risk_private.warning_levels (scope_id, dimension, key_id, valid_until, valid_from,
  types, keeps_rate, keeps_fingerprints, long_position, short_position, order_quantity)
select distinct a.scope_id, a.dimension, a.key_id, 'infinity'::timestamptz,
  '-infinity'::timestamptz, b'0'::bit(32), false, false, 8e8, 8e8, 8e8
from added as a
"""

MANY_ORDERS = """
insert into risk_private.orders (account_id, client_order_id, underlying_id, instrument_ids,
  ratios, quantity, price, is_combo, time_in_force, unit_prices, filled, decision,
  allowed_quantity, state, decided_at, closed_at)
select s.scope_id, 'old-' || n, 1 + n % 2000, array[1 + n % 2000], array[1], 1, 100, false, 'DAY',
  array[100], array[0], 'ACCEPTED', 1, 'CANCELLED', now() - interval '1 day', now()
from generate_series(1, 10000) as n cross join risk_private.scopes as s
where s.is_leaf
"""

MANY_POSITIONS = """
insert into risk_private.fills (account_id, exec_id, instrument_id, signed_quantity, price, fee,
  unit_price, kind, trading_day, executed_at, recorded_at)
select s.scope_id, 'open-' || i.instrument_id, i.instrument_id, 10, 100, 0, 100, 'opening',
  s.trading_day, now(), now()
from risk_private.scopes as s cross join risk_private.instruments as i
where s.is_leaf and i.instrument_id <= {symbols};
update risk_private.fills as f set multiplier = i.multiplier, rate = 1
from risk_private.instruments as i where i.instrument_id = f.instrument_id;
insert into risk_private.positions as p (account_id, instrument_id, underlying_id, quantity,
  unit_value, unit_notional, cost, average_price)
select f.account_id, f.instrument_id, f.instrument_id, f.signed_quantity, 100, 100,
  f.signed_quantity * f.unit_amount, 100
from risk_private.fills as f
"""

# Cash, equities and counters of a new book, as its positions and fills make them.
SUMS = """
insert into risk_private.cash_balances (account_id, currency, cost, rate)
select p.account_id, 'USD', sum(p.cost), 1 from risk_private.positions as p group by p.account_id;
update risk_private.equities as e set known_equity = t.value, book = t.cost, flows = t.cost,
  peak = greatest(0, t.value)
from (
  select k.scope_id, sum(p.quantity * p.unit_value) as value, sum(p.cost) as cost
  from risk_private.positions as p
  join risk_private.scopes as s on s.scope_id = p.account_id
  cross join unnest(s.chain) as k (scope_id)
  group by k.scope_id
) as t where t.scope_id = e.scope_id;
insert into risk_private.counters as c
select r.* from risk_private.recount() as r
on conflict (counter_id) do update set
  quantity = excluded.quantity, gross_position = excluded.gross_position,
  gross_notional = excluded.gross_notional, traded_notional = excluded.traded_notional,
  open_positions = excluded.open_positions
"""


@dataclass(frozen=True)
class Firm:
    """A database with the firm, by the URLs of its owner and of its trader."""

    owner: str
    trader: str


def create(server: Server, name: str) -> Firm:
    """Makes a database with the engine and the firm."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    owner = server.url(name)
    trader = f"postgresql://{TRADER}:{server.password}@127.0.0.1:{server.port}/{name}"
    with psycopg.connect(owner, autocommit=True) as connection:
        pgrisk.sql.load(connection)
        if connection.execute("select to_regrole(%s)", [TRADER]).fetchone() != (TRADER,):
            connection.execute(
                sql.SQL("create role {} login password {} in role risk_trader").format(
                    sql.Identifier(TRADER), server.password
                )
            )
        for setting, value in SETTINGS.items():
            connection.execute("call risk.set_setting(%s, %s)", [setting, value])
        connection.execute("call risk.create_scope('F', 'firm')")
        for number in range(1, DESKS + 1):
            connection.execute("call risk.create_scope(%s, 'desk', 'F')", [f"D{number}"])
        for number in range(1, ACCOUNTS + 1):
            connection.execute(
                "call risk.create_scope(%s, 'account', %s)",
                [f"A{number}", f"D{1 + number % DESKS}"],
            )
        connection.execute("call risk.grant_trading(%s, 'F')", [TRADER])
        _instruments_and_limits(connection)
        connection.execute(FLOOR.encode())
        connection.execute(TOUCH.encode())
        connection.execute("vacuum analyze")
    return Firm(owner, trader)


def _instruments_and_limits(connection: psycopg.Connection) -> None:
    symbols = [f"S{number}" for number in range(1, SYMBOLS + 1)]
    stocks = [{"symbol": symbol, "kind": "stock"} for symbol in symbols]
    connection.execute("call risk.upsert_instruments(%s::jsonb)", [json.dumps(stocks)])
    connection.execute("call risk.set_marks(%s::text[], %s::numeric[])", [symbols, [100] * SYMBOLS])
    scopes = [
        "F",
        *(f"D{number}" for number in range(1, DESKS + 1)),
        *(f"A{number}" for number in range(1, ACCOUNTS + 1)),
    ]
    limits = [
        {"scope": scope, "limit_type": limit_type, "amount": amount}
        for scope in scopes
        for limit_type, amount in LIMITS.items()
    ]
    connection.execute("call risk.set_limits(%s::jsonb)", [json.dumps(limits)])


def hold(firm: Firm, symbols: int) -> None:
    """Gives every account of a new firm a position in so many instruments."""
    with psycopg.connect(firm.owner, autocommit=True) as connection:
        _hold(connection, symbols)


def _hold(connection: psycopg.Connection, symbols: int) -> None:
    connection.execute(MANY_POSITIONS.format(symbols=symbols).encode())
    connection.execute(SUMS.encode())


def grow(firm: Firm) -> None:
    """Adds 384,000 limits, 640,000 closed orders and 128,000 positions to a new firm."""
    with psycopg.connect(firm.owner, autocommit=True) as connection:
        for load in (MANY_LIMITS, MANY_ORDERS):
            connection.execute(load.encode())
        _hold(connection, SYMBOLS)
        # One limit set in the ordinary way brings what is compiled per account up to date.
        connection.execute("call risk.set_limit('F', 'net_position', 1000000000)")
        connection.execute("vacuum analyze")


def differences(owner: str) -> int:
    """How many counters of a database differ from what orders and fills say."""
    with psycopg.connect(owner) as connection:
        row = connection.execute("select count(*) from risk.verify_counters()").fetchone()
    assert row is not None
    return int(row[0])


def deadlocks(firm: Firm) -> int:
    """Deadlocks that PostgreSQL has counted in all databases."""
    with psycopg.connect(firm.owner) as connection:
        row = connection.execute("select sum(deadlocks) from pg_stat_database").fetchone()
    assert row is not None
    return int(row[0])
