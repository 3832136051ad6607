"""A caller's own tables, functions, operators, types and settings change no decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.orders import Caller, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

DECEPTIONS = [
    # tables named like ours, full of permissions
    """create temporary table scopes (code text);
       create temporary table limit_periods (amount numeric);
       create temporary table orders (decision text); create temporary table marks (price numeric);
       create table ann.counters (counter_id bigint, gross_position numeric)""",
    # functions named like the built-in ones and ours
    """create function ann.sum(numeric) returns numeric language sql as 'select 0::numeric';
       create function ann.clock() returns timestamptz language sql
         as 'select timestamptz ''2020-01-01''';
       create function ann.is_owner() returns boolean language sql as 'select true';
       create function ann.may_trade(integer[]) returns boolean language sql as 'select true';
       create function ann.coalesce(numeric) returns numeric language sql as 'select 0::numeric';
       create function ann.abs(numeric) returns numeric language sql as 'select 0::numeric';
       create function ann.format(text, text) returns text language sql as 'select ''''';
       create function ann.unnest(anyarray) returns setof anyelement language sql
         as 'select $1[1] where false'""",
    # operators that always say yes
    """create function ann.yes(numeric, numeric) returns boolean language sql as 'select true';
       create function ann.nil(numeric, numeric) returns numeric language sql
         as 'select 0::numeric';
       create operator ann.<= (leftarg = numeric, rightarg = numeric, function = ann.yes);
       create operator ann.< (leftarg = numeric, rightarg = numeric, function = ann.yes);
       create operator ann.* (leftarg = numeric, rightarg = numeric, function = ann.nil);
       create operator ann.+ (leftarg = numeric, rightarg = numeric, function = ann.nil)""",
    # a cast between types of his own, and types named like built-in ones
    """create domain ann.numeric as pg_catalog.numeric default 0;
       create type ann.text as enum ('ACCEPTED');
       create domain pg_temp.numeric as pg_catalog.numeric;
       create function ann.made(pg_catalog.int4) returns ann.text language sql
         as 'select ''ACCEPTED''::ann.text';
       create cast (pg_catalog.int4 as ann.text)
         with function ann.made(pg_catalog.int4) as assignment""",
    # settings
    """set row_security = off; set timezone = 'Pacific/Kiritimati'; set datestyle = 'German';
       set extra_float_digits = -15; set bytea_output = 'escape'; set synchronous_commit = off;
       set enable_indexscan = off; set enable_seqscan = off;
       set xmlbinary = 'hex'; set array_nulls = off; set transform_null_equals = on;
       set quote_all_identifiers = on; set plan_cache_mode = force_custom_plan;
       set jit = on; set check_function_bodies = off; set standard_conforming_strings = on""",
]


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


@pytest.fixture
def trader(db: Database, firm: Caller) -> Iterator[Caller]:
    """A trader of A1, who owns a schema of his own."""
    firm.rows(f'grant create on database "{db.name}" to risk_trader')
    firm.call("grant_trading", role=db.create_user("ann", "risk_trader"), scope="A1")
    with db.connect("ann") as connection:
        connection.execute("create schema ann")
        yield Caller(connection)


@pytest.mark.parametrize("deception", DECEPTIONS)
@pytest.mark.parametrize(
    "path", ["ann, pg_catalog, risk, risk_private", "pg_temp, ann, pg_catalog"]
)
def test_surroundings_set_up_to_deceive_change_no_decision(
    firm: Caller, trader: Caller, deception: str, path: str
) -> None:
    firm.limit("F", "gross_notional", 1000, warn_pct=50)
    firm.limit("A1", "order_quantity", 8)
    trader.connection.execute(deception.encode())
    trader.rows(f"set search_path = {path}")
    assert trader.check("A1", "1", "AAPL", "buy", 9, 100).failed == {
        ("order_quantity", "A1", "all")
    }
    assert trader.check("A1", "2", "AAPL", "buy", 8, 100).is_accepted
    again = trader.check("A1", "3", "AAPL", "buy", 4, 100)
    assert again.failed == {("gross_notional", "F", "all")}
    assert again.allowed_quantity == 2
    assert trader.combo("A1", "4", "buy 3 AAPL", 1, 100).failed == {("gross_notional", "F", "all")}
    (first, second) = trader.batch(
        [item("A1", name, "buy AAPL", 1 + number, price="100") for number, name in enumerate("56")]
    )
    assert (first.decision, second.decision) == ("ACCEPTED", "REJECTED")
    assert trader.replace("A1", "5", "7", 3, 100).failed == {("gross_notional", "F", "all")}
    assert trader.rows("select risk.preview_order('A1', 'AAPL', 'buy', 1, 100)")
    assert firm.position("A1", "AAPL") == (0, 9, 0)
