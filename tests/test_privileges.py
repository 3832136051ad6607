"""Every role against every object, and attempts to get more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors

from tests.orders import Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

ROLES = (
    "risk_trader",
    "risk_execution",
    "risk_feed",
    "risk_admin",
    "risk_worker",
    "risk_analyst",
    "risk_auditor",
)
READERS = {"risk_execution", "risk_admin", "risk_worker", "risk_analyst", "risk_auditor"}
OVERSEERS = READERS - {"risk_execution"}

# Object of the public schema -> who may use it. Whoever is not named may not.
ALLOWED: dict[str, set[str]] = {
    "check_order": {"risk_trader"},
    "check_combo": {"risk_trader"},
    "check_orders": {"risk_trader"},
    "replace_order": {"risk_trader"},
    "preview_order": {"risk_trader", "risk_admin", "risk_analyst"},
    "preview_combo": {"risk_trader", "risk_admin", "risk_analyst"},
    "record_fill": {"risk_execution"},
    "record_trade": {"risk_execution"},
    "ack_order": {"risk_execution"},
    "release_order": {"risk_execution"},
    "dispatch_order": {"risk_execution"},
    "confirm_replace": {"risk_execution"},
    "reject_replace": {"risk_execution"},
    "revalue": {"risk_feed", "risk_admin", "risk_worker"},
    "set_marks": {"risk_feed"},
    "remark_underlying": {"risk_feed"},
    "bust_fill": {"risk_execution"},
    "correct_fill": {"risk_execution"},
    "post_cash": {"risk_execution", "risk_admin"},
    "adjust_instrument": {"risk_admin"},
    "set_fx": {"risk_feed"},
    "cancel_orders": {"risk_trader", "risk_admin"},
    "load_closes": {"risk_feed", "risk_admin"},
    "refresh_views": {"risk_admin", "risk_worker"},
    "create_scope": {"risk_admin"},
    "upsert_instruments": {"risk_admin"},
    "grant_trading": {"risk_admin"},
    "revoke_trading": {"risk_admin"},
    "set_limit": {"risk_admin"},
    "set_limits": {"risk_admin"},
    "remove_limit": {"risk_admin"},
    "load_position_limits": {"risk_admin"},
    "apply_position_limits": {"risk_admin"},
    "set_setting": {"risk_admin"},
    "set_trading_state": {"risk_admin"},
    "define_breaker": {"risk_admin"},
    "remove_breaker": {"risk_admin"},
    "trip_breaker": {"risk_admin"},
    "reset_breaker": {"risk_admin"},
    "set_indicator": {"risk_feed"},
    "set_instrument_status": {"risk_admin"},
    "open_day": {"risk_admin"},
    "option_greeks": set(ROLES),
    "implied_volatility": set(ROLES),
    "verify_counters": OVERSEERS,
    "hot_limits": {"risk_trader", *OVERSEERS},
    "limit_cache": {"risk_trader", *OVERSEERS},
    "orders": {"risk_trader", *READERS},
    "open_orders": {"risk_trader", *READERS},
    "decisions": {"risk_trader", *READERS},
    "violations": {"risk_trader", *READERS},
    "fills": {"risk_trader", *READERS},
    "positions": {"risk_trader", *READERS},
    "fill_corrections": {"risk_trader", *READERS},
    "cash": {"risk_trader", *READERS},
    "instruments": set(ROLES),
    "adjustments": set(ROLES),
    "marks": set(ROLES),
    "scopes": READERS,
    "trading_states": READERS,
    "breakers": READERS,
    "breaker_events": READERS,
    "breaker_conditions": READERS,
    "indicators": set(ROLES),
    "queue_status": READERS,
    "health": READERS,
    "settings": OVERSEERS,
    "trading_grants": OVERSEERS,
    "limits": OVERSEERS,
    "limit_history": OVERSEERS,
    "limit_utilization": OVERSEERS,
    "same_side_positions": OVERSEERS,
    "position_limits": OVERSEERS,
    "exposure": OVERSEERS,
    "concentration": OVERSEERS,
    "portfolio_greeks": OVERSEERS,
    "return_history": OVERSEERS,
    "correlation_matrix": OVERSEERS,
    "pnl": OVERSEERS,
    "daily_summary": OVERSEERS,
}
# What the worker calls in risk_private: functions that check its epoch, or change nothing.
OF_THE_WORKER = {
    "accounts_halted",
    "cancel_halted",
    "cancel_halted_orders",
    "sweep",
    "begin_due_day",
    "bound_queues",
    "bury_event",
    "evaluate",
    "handle_events",
    "has_unfollowed",
    "lease",
    "parts_to_recount",
    "read_events",
    "reconcile",
    "refresh_view",
    "release_lease",
    "roll_account_at",
    "take_lease",
    "take_lease_at",
    "tell_lapsed_limits",
    "tell_warnings",
    "terminate_worker",
    "keep_lease",
    "count_breaches",
    "waiting",
}
VIEWS_OF_ACCOUNTS = ("orders", "open_orders", "decisions", "violations", "fills", "positions")

# What a routine of risk or a private one that runs as its caller calls in turn.
NEEDED = """
with recursive calls as (
  select p.oid as caller, q.oid as callee
  from pg_proc as p
  cross join concat(p.prosrc, pg_get_function_sqlbody(p.oid)) as s (source)
  cross join regexp_matches(s.source, 'risk_private\\.([a-z_0-9]+)\\s*\\(', 'g') as m
  join pg_proc as q on q.pronamespace = 'risk_private'::regnamespace and q.proname = m[1]
  where not p.prosecdef
), needed as (
  select p.oid as root, p.oid from pg_proc as p where p.pronamespace = 'risk'::regnamespace
  union
  select n.root, c.callee from needed as n join calls as c on c.caller = n.oid
)
"""
# What views call runs as the reader, whoever owns the view.
READ = """
views as (
  select c.oid as root, c.oid from pg_class as c
  where c.relkind = 'v' and c.relnamespace = 'risk'::regnamespace
  union
  select v.root, d.refobjid from views as v
  join pg_rewrite as r on r.ev_class = v.oid
  join pg_depend as d on d.objid = r.oid and d.refclassid = 'pg_class'::regclass
  join pg_class as c on c.oid = d.refobjid and c.relkind = 'v' and c.oid <> v.oid
), read as (
  select distinct v.root, d.refobjid as oid from views as v
  join pg_rewrite as r on r.ev_class = v.oid
  join pg_depend as d on d.objid = r.oid and d.refclassid = 'pg_proc'::regclass
)
"""


@pytest.fixture
def admin(db: Database) -> Iterator[Caller]:
    """The small firm, with the superuser."""
    with open_firm(db) as caller:
        yield caller


@pytest.fixture
def trader(db: Database, admin: Caller) -> Iterator[Caller]:
    """A trader of A1 alone; another one has traded B1."""
    login = db.create_user("ann", "risk_trader")
    admin.call("grant_trading", role=login, scope="A1")
    for account in ("A1", "B1"):
        admin.check(account, "held", "AAPL", "buy", 10, 100)
        admin.fill(account, "held", "e1", 4, 100)
        admin.check(account, "far", "AAPL", "buy", 10**10, 100)
    with db.connect(login) as connection:
        yield Caller(connection)


def rows(caller: Caller, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in caller.rows(query)]


def test_the_matrix_of_roles_and_public_objects(admin: Caller) -> None:
    found: dict[str, set[str]] = {}
    for name, role, allowed in rows(
        admin,
        """select p.proname, r.rolname, has_function_privilege(r.rolname, p.oid, 'execute')
           from pg_proc as p cross join pg_roles as r
           where p.pronamespace = 'risk'::regnamespace
             and r.rolname ~ '^risk_' and r.rolname <> 'risk_owner'
           union all
           select c.relname, r.rolname, has_table_privilege(r.rolname, c.oid, 'select')
           from pg_class as c cross join pg_roles as r
           where c.relnamespace = 'risk'::regnamespace and c.relkind in ('v', 'm')
             and r.rolname ~ '^risk_' and r.rolname <> 'risk_owner'""",
    ):
        found.setdefault(name, set()).update({role} if allowed else set())
    assert found == ALLOWED


def test_roles_of_the_engine_are_the_known_ones(admin: Caller) -> None:
    found = rows(admin, "select rolname, rolcanlogin from pg_roles where rolname ~ '^risk_'")
    assert set(found) == {(role, False) for role in (*ROLES, "risk_owner")}


@pytest.mark.parametrize(
    "query",
    [
        """select p.oid::regprocedure::text, a.grantee from pg_proc as p
           cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
           where p.pronamespace in ('risk'::regnamespace, 'risk_private'::regnamespace)
             and a.grantee = 0""",
        """select n.nspname, a.grantee from pg_namespace as n
           cross join aclexplode(n.nspacl) as a
           where n.nspname in ('risk', 'risk_private') and a.grantee = 0""",
        """select t.oid::regtype::text, a.grantee from pg_type as t
           cross join aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) as a
           left join pg_class as c on c.oid = t.typrelid
           where t.typnamespace in ('risk'::regnamespace, 'risk_private'::regnamespace)
             and t.typelem = 0 and coalesce(c.relkind, 'c') = 'c' and a.grantee = 0""",
        """select c.oid::regclass::text, a.grantee::regrole::text from pg_class as c
           cross join aclexplode(c.relacl) as a
           where c.relnamespace = 'risk_private'::regnamespace and a.grantee <> c.relowner""",
        """select c.oid::regclass::text, a.privilege_type from pg_class as c
           cross join aclexplode(c.relacl) as a
           where c.relnamespace = 'risk'::regnamespace and a.grantee <> c.relowner
             and a.privilege_type <> 'SELECT'""",
        """select a.attrelid::regclass::text, a.attname from pg_attribute as a
           join pg_class as c on c.oid = a.attrelid
           where c.relnamespace in ('risk'::regnamespace, 'risk_private'::regnamespace)
             and a.attacl is not null""",
        """select a.grantee::regrole::text, 'may grant on' from (
             select p.proowner as owner, p.proacl as acl from pg_proc as p
             where p.pronamespace in ('risk'::regnamespace, 'risk_private'::regnamespace)
             union all
             select c.relowner, c.relacl from pg_class as c
             where c.relnamespace in ('risk'::regnamespace, 'risk_private'::regnamespace)
           ) as o cross join aclexplode(o.acl) as a
           where a.is_grantable and a.grantee <> o.owner""",
    ],
    ids=["routines", "schemas", "types", "tables", "views", "columns", "grant options"],
)
def test_nobody_has_rights_beyond_the_matrix(admin: Caller, query: str) -> None:
    assert [row for row in rows(admin, query) if "fake_clock" not in row[0]] == []


def test_whoever_may_call_a_routine_may_call_what_it_calls(admin: Caller) -> None:
    missing = rows(
        admin,
        NEEDED
        + """select r.rolname, n.root::regproc::text, n.oid::regproc::text
             from needed as n cross join pg_roles as r
             where r.rolname ~ '^risk_' and has_function_privilege(r.rolname, n.root, 'execute')
               and not has_function_privilege(r.rolname, n.oid, 'execute')""",
    )
    assert missing == []


def test_whoever_may_read_a_view_may_call_what_it_calls(admin: Caller) -> None:
    missing = rows(
        admin,
        "with recursive "
        + READ
        + """select r.rolname, n.root::regclass::text, n.oid::regproc::text
             from read as n cross join pg_roles as r
             where r.rolname ~ '^risk_' and has_table_privilege(r.rolname, n.root, 'select')
               and not has_function_privilege(r.rolname, n.oid, 'execute')""",
    )
    assert missing == []


def test_private_functions_are_granted_only_where_something_needs_them(admin: Caller) -> None:
    idle = rows(
        admin,
        NEEDED
        + ", "
        + READ
        + """select r.rolname, p.oid::regproc::text
             from pg_proc as p cross join pg_roles as r
             where p.pronamespace = 'risk_private'::regnamespace
               and r.rolname ~ '^risk_' and r.rolname <> 'risk_owner'
               and has_function_privilege(r.rolname, p.oid, 'execute')
               and not exists (
                 select from needed as n
                 where n.oid = p.oid and has_function_privilege(r.rolname, n.root, 'execute'))
               and not exists (
                 select from read as v
                 where v.oid = p.oid and has_table_privilege(r.rolname, v.root, 'select'))""",
    )
    assert {(role, name.removeprefix("risk_private.")) for role, name in idle} == {
        ("risk_worker", name) for name in OF_THE_WORKER
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_view_a_role_may_read_can_be_read(db: Database, admin: Caller, role: str) -> None:
    views = {
        name for (name,) in rows(admin, "select viewname from pg_views where schemaname = 'risk'")
    }
    with db.connect(db.create_user("reader", role)) as connection:
        for view in views:
            query = f"select * from risk.{view}".encode()
            if role in ALLOWED[view]:
                connection.execute(query)
            else:
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(query)


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reaches_a_table(db: Database, admin: Caller, role: str) -> None:
    tables = rows(admin, "select tablename from pg_tables where schemaname = 'risk_private'")
    with db.connect(db.create_user("reader", role)) as connection:
        for (table,) in tables:
            for statement in ("select from", "delete from", "truncate"):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(f"{statement} risk_private.{table}".encode())


@pytest.mark.parametrize("view", VIEWS_OF_ACCOUNTS)
def test_a_trader_sees_the_accounts_that_he_may_trade(
    db: Database, admin: Caller, trader: Caller, view: str
) -> None:
    query = f"select distinct account from risk.{view} order by 1"
    assert rows(trader, query) == [("A1",)]
    assert rows(admin, query) == [("A1",), ("B1",)]
    admin.call("grant_trading", role="ann", scope="D2")
    assert rows(trader, query) == [("A1",), ("B1",)]
    admin.call("revoke_trading", role="ann", scope="D2")
    admin.call("revoke_trading", role="ann", scope="A1")
    assert rows(trader, query) == []
    with db.connect(db.create_user("ada", "risk_analyst", "risk_trader")) as connection:
        assert rows(Caller(connection), query) == [("A1",), ("B1",)]


def test_a_function_of_the_reader_is_not_shown_other_accounts(trader: Caller) -> None:
    """Views of accounts are barriers: a condition that leaks its argument comes last."""
    trader.connection.execute(
        """create function pg_temp.leak(account text) returns boolean language plpgsql cost 0.0001
           as $$ begin if account <> 'A1' then raise exception 'saw %', account; end if;
           return true; end $$"""
    )
    for setting in ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan"):
        trader.connection.execute(f"set {setting} = off".encode())
    for view in VIEWS_OF_ACCOUNTS:
        assert rows(trader, f"select account from risk.{view} where pg_temp.leak(account)")


def test_set_role_gives_the_rights_of_that_role_alone(db: Database, admin: Caller) -> None:
    """Who a definer function believes to be called by is the role that is set, as anywhere."""
    db.create_user("desk1", "risk_trader")
    db.create_user("joe", "desk1", "risk_analyst")
    admin.check("A1", "a", "AAPL", "buy", 1, 100)
    admin.check("B1", "b", "AAPL", "buy", 1, 100)
    admin.call("grant_trading", role="desk1", scope="A1")
    query = "select account from risk.orders order by 1"
    with db.connect("joe") as connection:
        joe = Caller(connection)
        assert rows(joe, query) == [("A1",), ("B1",)]
        connection.execute("set role desk1")
        assert rows(joe, query) == [("A1",)]
        with pytest.raises(errors.InsufficientPrivilege):
            joe.rows("select * from risk.limits")


def test_analysts_preview_every_account(db: Database, admin: Caller) -> None:
    with db.connect(db.create_user("ada", "risk_analyst")) as connection:
        checks = rows(
            Caller(connection), "select status from risk.preview_order('B1', 'AAPL', 'buy', 1, 100)"
        )
    assert ("PASS",) in checks
    assert ("FAIL",) not in checks


def test_a_trader_cannot_see_an_accept_that_could_be_rolled_back(trader: Caller) -> None:
    """Calls the private halves of check_order in a transaction of his own, and looks for it."""
    with trader.connection.transaction(force_rollback=True):
        trader.rows(
            """select risk_private.decide_order(
                 'A1', 'mine', '{AAPL}', '{buy}', '{1}', 5, 100, null, 'DAY', false)"""
        )
        (answer,) = trader.rows(
            """select (risk_private.answer(
                 'A1', 'mine', '{AAPL}', '{buy}', '{1}', 5, 100, null, 'DAY', false)).*"""
        )
        assert set(answer.values()) == {None}
        ids = rows(trader, "select client_order_id from risk.decisions")
        assert ("held",) in ids
        assert ("mine",) not in ids
        for view in ("orders", "open_orders", "positions"):
            with pytest.raises(errors.ActiveSqlTransaction), trader.connection.transaction():
                trader.rows(f"select * from risk.{view}")
        with pytest.raises(errors.ActiveSqlTransaction), trader.connection.transaction():
            trader.rows("select * from risk.preview_order('A1', 'AAPL', 'buy', 1, 100)")
    assert rows(trader, "select open_buy from risk.positions") == [(6,)]


def test_another_role_does_not_help_to_see_it(db: Database, trader: Caller) -> None:
    with db.connect() as connection:
        connection.execute("grant risk_analyst to ann")
    with trader.connection.transaction(force_rollback=True):
        trader.rows(
            """select risk_private.decide_order(
                 'A1', 'mine', '{AAPL}', '{buy}', '{1}', 5, 100, null, 'DAY', false)"""
        )
        trader.connection.execute("set local role risk_analyst")
        for view in ("positions", "exposure", "limit_utilization", "health"):
            with pytest.raises(errors.ActiveSqlTransaction), trader.connection.transaction():
                trader.rows(f"select * from risk.{view}")


def test_a_savepoint_hides_nothing(trader: Caller) -> None:
    """The row of an order carries the number of the whole transaction, not of a part of it."""
    with trader.connection.transaction(force_rollback=True):
        with trader.connection.transaction():
            trader.rows(
                """select risk_private.decide_order(
                     'A1', 'mine', '{AAPL}', '{buy}', '{1}', 5, 100, null, 'DAY', false)"""
            )
        assert ("mine",) not in rows(trader, "select client_order_id from risk.decisions")
        with pytest.raises(errors.ActiveSqlTransaction):
            trader.rows("select * from risk.positions")


def test_types_of_the_callers_own_are_not_used_with_the_owners_rights(trader: Caller) -> None:
    """Temporary types named like built-in ones, whose check runs a function of the caller."""
    run = trader.connection.execute
    run("create temporary table seen (who name)")
    run("grant all on seen to public")
    for name in ("text", "jsonb", "timestamptz", "date", "uuid", "name", "oid", "int4", "float8"):
        run(
            f"""create function pg_temp.note(value pg_catalog.{name}) returns boolean
                language plpgsql as $$ begin
                  insert into pg_temp.seen values (current_user);
                  return true;
                end $$;
                create domain pg_temp.{name} as pg_catalog.{name} check (pg_temp.note(value));
                grant usage on type pg_temp.{name} to public""".encode()
        )
    trader.check("A1", "plain", "AAPL", "buy", 1, 100)
    trader.check("A1", "refused", "AAPL", "buy", 10**10, 100)
    trader.combo("A1", "combo", "buy 1 AAPL C100, sell 1 AAPL C110", 1, 1)
    trader.replace("A1", "plain", "replaced", 2, 100)
    trader.rows("select * from risk.preview_order('A1', 'AAPL', 'buy', 1, 100)")
    trader.call("cancel_orders", scope="A1", reason="done")
    for view in VIEWS_OF_ACCOUNTS:
        trader.rows(f"select * from risk.{view}")
    with pytest.raises(psycopg.Error):
        trader.check("nowhere", "lost", "AAPL", "buy", 1, 100)
    assert rows(trader, "select distinct who from pg_temp.seen where who <> current_user") == []


def test_the_gateway_reads_cancel_requests_and_no_other_queue(db: Database, admin: Caller) -> None:
    admin.check("A1", "a", "AAPL", "buy", 1, 100)
    admin.call("cancel_orders", scope="F", reason="done")
    with db.connect(db.create_user("gate", "risk_execution")) as connection:
        ((number, message),) = connection.execute(
            "select msg_id, message from pgmq.read('risk_alerts', 30, 10)"
        ).fetchall()
        assert message["client_order_id"] == "a"
        assert connection.execute(
            "select pgmq.archive('risk_alerts', %s::bigint)", [number]
        ).fetchone() == (True,)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("select pgmq.read('risk_events', 30, 10)")
