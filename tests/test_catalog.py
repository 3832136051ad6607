"""Rules of the house that the catalogs can prove: comments, definers, search paths, ownership."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.databases import Database

SCHEMAS = "('risk'::regnamespace, 'risk_private'::regnamespace)"

# Functions that run with the owner's rights. A new one is a way around every grant: it checks its
# caller, or is granted only to roles that may do all that it does, and it is named here.
DEFINERS = {
    "risk.verify_counters",
    "risk_private.accept",
    "risk_private.accept_batch",
    "risk_private.accept_order",
    "risk_private.accepted",
    "risk_private.accepted_batch",
    "risk_private.accepted_since",
    "risk_private.accounts_halted",
    "risk_private.accounts_to_cancel",
    "risk_private.accounts_in",
    "risk_private.ack_order",
    "risk_private.apply_position_limits",
    "risk_private.adjust_instrument",
    "risk_private.answer",
    "risk_private.answer_replace",
    "risk_private.answers",
    "risk_private.beat",
    "risk_private.begin_due_day",
    "risk_private.bound_queues",
    "risk_private.breaker_place",
    "risk_private.bury_event",
    "risk_private.bust_fill",
    "risk_private.correct_fill",
    "risk_private.cancel_halted_orders",
    "risk_private.create_scope",
    "risk_private.decide_batch",
    "risk_private.decide_order",
    "risk_private.decide_replace",
    "risk_private.define_breaker",
    "risk_private.dispatch_answer",
    "risk_private.dispatch_order",
    "risk_private.end_pass",
    "risk_private.end_rate",
    "risk_private.end_replace",
    "risk_private.evaluate",
    "risk_private.fill_detail",
    "risk_private.flush_by_commit",
    "risk_private.grant_trading",
    "risk_private.handle_events",
    "risk_private.has_unfollowed",
    "risk_private.hot_limits",
    "risk_private.is_settled",
    "risk_private.load_position_limits",
    "risk_private.lease",
    "risk_private.limit_cache",
    "risk_private.note_limit_change",
    "risk_private.next_pass",
    "risk_private.parts_to_recount",
    "risk_private.present_trading_date",
    "risk_private.load_closes",
    "risk_private.post_cash",
    "risk_private.preview",
    "risk_private.publish_limit_change",
    "risk_private.read_events",
    "risk_private.reconcile",
    "risk_private.recarry",
    "risk_private.record_fill",
    "risk_private.record_trade",
    "risk_private.refresh_view",
    "risk_private.release_lease",
    "risk_private.refresh_materialized",
    "risk_private.release_order",
    "risk_private.remark_underlying",
    "risk_private.remove_breaker",
    "risk_private.remove_limit",
    "risk_private.request_cancels",
    "risk_private.reset_breaker",
    "risk_private.revalue",
    "risk_private.revoke_trading",
    "risk_private.roll_account",
    "risk_private.roll_account_at",
    "risk_private.set_fx",
    "risk_private.set_indicator",
    "risk_private.set_instrument_status",
    "risk_private.set_limit",
    "risk_private.set_limits",
    "risk_private.set_marks",
    "risk_private.set_setting",
    "risk_private.set_trading_date",
    "risk_private.set_trading_state",
    "risk_private.sweep",
    "risk_private.take_lease_at",
    "risk_private.tell_lapsed_limits",
    "risk_private.tell_warnings",
    "risk_private.trip_breaker",
    "risk_private.upsert_instrument",
    "risk_private.upsert_instruments",
    "risk_private.views_to_refresh",
    "risk_private.visible_accounts",
    "risk_private.worker_follows",
    "risk_private.keep_lease",
    "risk_private.count_breaches",
    "risk_private.waiting",
}

# What those functions of risk_private tell that a trader may call. They run inside the deciding
# transaction, so none but the five that read only what was committed before may tell a decision.
TOLD_TO_TRADERS = {
    "accept_batch": "boolean",
    "accept_order": "integer",
    "accepted": "boolean",
    "accepted_batch": "jsonb",
    "accounts_to_cancel": "integer[]",
    "answer": "risk_private.decision",
    "answer_replace": "risk_private.decision",
    "answers": "jsonb",
    "batch_items": "risk_private.batch_item[]",
    "cancel_orders": None,
    "combo_legs": "risk_private.combo_legs",
    "decide_batch": "void",
    "decide_order": "void",
    "decide_replace": "void",
    "fail": "boolean",
    "find_deviation": "double precision",
    "flush": "boolean",
    "flush_by_commit": "boolean",
    "hot_limits": "jsonb",
    "implied_volatility": "double precision",
    "is_settled": "boolean",
    "limit_cache": "TABLE(version bigint, signing_key text)",
    "order_id": "uuid",
    "present_trading_date": "date",
    "option_problem": "text",
    "preview": "SETOF risk_private.risk_check",
    "request_cancels": "boolean",
    "require_option_terms": "boolean",
    "visible_accounts": "integer[]",
}


def column(db: Database, query: str) -> list[Any]:
    """The only column of a query's rows."""
    with db.connect() as connection:
        return [row[0] for row in connection.execute(query.encode())]


@pytest.mark.parametrize(
    "query",
    [
        f"""select p.oid::regprocedure::text from pg_proc as p
            where p.pronamespace in {SCHEMAS} and obj_description(p.oid, 'pg_proc') is null""",
        f"""select c.oid::regclass::text from pg_class as c
            where c.relnamespace in {SCHEMAS} and c.relkind in ('r', 'p', 'v', 'm')
              and obj_description(c.oid, 'pg_class') is null
              and c.relname <> 'fake_clock'""",
        """select format('%s.%s', c.oid::regclass, a.attname) from pg_class as c
           join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
           where c.relnamespace = 'risk'::regnamespace and c.relkind in ('v', 'm')
             and col_description(c.oid, a.attnum) is null""",
    ],
    ids=["routines", "tables and views", "columns of views"],
)
def test_everything_is_commented(db: Database, query: str) -> None:
    assert column(db, query) == []


def test_the_public_schema_holds_routines_and_views_only(db: Database) -> None:
    found = column(
        db,
        """select c.oid::regclass::text from pg_class as c
           where c.relnamespace = 'risk'::regnamespace and c.relkind not in ('v', 'm', 'i')""",
    )
    assert found == []


def test_everything_belongs_to_the_owner_who_cannot_log_in(db: Database) -> None:
    owners = column(
        db,
        f"""select distinct r.rolname || case when r.rolcanlogin then ' can log in' else '' end
            from (select c.relowner from pg_class as c where c.relnamespace in {SCHEMAS}
                  union select p.proowner from pg_proc as p where p.pronamespace in {SCHEMAS}
                  union select t.typowner from pg_type as t where t.typnamespace in {SCHEMAS}
                  union select n.nspowner from pg_namespace as n where n.oid in {SCHEMAS}
                 ) as o (owner)
            join pg_roles as r on r.oid = o.owner""",
    )
    assert owners == ["risk_owner"]


def test_definers_are_the_known_ones(db: Database) -> None:
    found = column(
        db,
        f"""select p.pronamespace::regnamespace || '.' || p.proname from pg_proc as p
            where p.pronamespace in {SCHEMAS} and p.prosecdef
              and p.oid <> 'risk_private.clock()'::regprocedure""",  # one here for its fake time
    )
    assert set(found) == DEFINERS


def test_temporary_objects_come_last_in_every_search_path(db: Database) -> None:
    """A path that does not name pg_temp searches it first, for types too: a caller's own domain
    pg_temp.text would then run the caller's code with the owner's rights."""
    found = column(
        db,
        f"""select p.oid::regprocedure::text from pg_proc as p
            join pg_language as l on l.oid = p.prolang
            where p.pronamespace in {SCHEMAS}
              and (p.prosecdef or l.lanname = 'plpgsql' and p.prokind = 'f'
                   or array_to_string(p.proconfig, ' ') like '%search_path%')
              and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)
              and p.oid <> 'risk_private.clock()'::regprocedure""",
    )
    assert found == []


def test_procedures_can_commit_and_call_only_what_is_qualified(db: Database) -> None:
    """They run as their caller, under his search_path: a SET clause would forbid the commit, and an
    operator or an unqualified name would be the caller's to define."""
    with db.connect() as connection:
        procedures = connection.execute(
            f"""select p.oid::regprocedure::text, p.prosecdef, p.proconfig, p.prosrc
                from pg_proc as p
                where p.pronamespace in {SCHEMAS} and p.prokind = 'p'""".encode()
        ).fetchall()
    assert len(procedures) > 20
    for name, is_definer, settings, source in procedures:
        assert not is_definer, name
        assert settings is None, name
        body = re.sub(r"--.*|'[^']*'", "", source)
        operators = re.sub(r":=|=>|::", "", body)
        assert not re.search(r"[-+*/<>=~!@#%^&|`?]", operators), name
        called = set(re.findall(r"([\w.]+)\s*\(", body))
        plain = {word for word in called if "." not in word}
        assert plain <= {"coalesce", "row"}, name


def test_nothing_in_private_tells_a_trader_a_decision_that_is_not_committed(db: Database) -> None:
    with db.connect() as connection:
        told: dict[str, str | None] = dict(
            connection.execute(
                """select p.proname, pg_get_function_result(p.oid) from pg_proc as p
                   where p.pronamespace = 'risk_private'::regnamespace
                     and has_function_privilege('risk_trader', p.oid, 'execute')"""
            ).fetchall()
        )
    assert told == TOLD_TO_TRADERS


def test_no_foreign_key_locks_a_counter_or_a_position(db: Database) -> None:
    """A foreign key would take locks that the engine's lock order does not know."""
    found = column(
        db,
        """select k.conname from pg_constraint as k
           where k.contype = 'f' and k.confrelid in
             ('risk_private.counters'::regclass, 'risk_private.positions'::regclass)""",
    )
    assert found == []
