"""The worker's lease: one leads, a takeover fences the old leader off, whatever he still tries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors, sql

from tests.orders import Caller, all_at_once, callers, each_at_once, open_firm, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2098, 1, 5, 15, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        yield caller


def take(caller: Caller, holder: str = "one", *pids: int) -> Any:
    return caller.value("select risk_private.take_lease(%s, %s::integer[])", holder, list(pids))


def lease(caller: Caller) -> dict[str, Any]:
    return caller.rows("select * from risk_private.lease()")[0]


def turn(caller: Caller, epoch: int) -> None:
    caller.rows("select risk_private.keep_lease(%s, '{}')", epoch)


def test_one_leads_until_it_does_not_renew(db: Database, firm: Caller) -> None:
    first = take(firm)
    assert first is not None
    assert take(firm, "two") is None
    db.set_clock(NOW + 1.4 * SECOND)
    turn(firm, first)
    db.set_clock(NOW + 2.8 * SECOND)
    assert take(firm, "two") is None
    db.set_clock(NOW + 2.9 * SECOND)
    assert take(firm, "two") == first + 1
    assert lease(firm)["holder"] == "two"


def test_a_lease_is_renewed_only_when_little_of_it_is_left(db: Database, firm: Caller) -> None:
    epoch = take(firm)
    expiry = "select expires_at from risk_private.worker_lease"
    db.set_clock(NOW + 0.4 * SECOND)
    turn(firm, epoch)
    assert firm.value(expiry) == NOW + 1.5 * SECOND
    db.set_clock(NOW + 0.6 * SECOND)
    turn(firm, epoch)
    assert firm.value(expiry) == NOW + 2.1 * SECOND


def test_a_leader_that_slept_goes_on_when_nobody_took_over(db: Database, firm: Caller) -> None:
    epoch = take(firm)
    db.set_clock(NOW + 60 * SECOND)
    turn(firm, epoch)
    assert take(firm, "two") is None


def test_a_released_lease_is_free_at_once(firm: Caller) -> None:
    epoch = take(firm)
    firm.rows("select risk_private.release_lease(%s)", epoch)
    assert take(firm, "two") == epoch + 1
    firm.rows("select risk_private.release_lease(%s)", epoch)  # it has nothing to release any more
    assert lease(firm)["holder"] == "two"


def test_an_expiry_that_a_clock_running_ahead_left_behind_does_not_hold(
    db: Database, firm: Caller
) -> None:
    db.set_clock(NOW + 3600 * SECOND)
    epoch = take(firm)
    db.set_clock(NOW)
    assert take(firm, "two") == epoch + 1


def test_of_many_that_take_over_at_once_one_leads(db: Database, firm: Caller) -> None:
    for _ in range(10):
        with callers(db, 6) as others:
            won = each_at_once(others, take)
        assert sum(epoch is not None for epoch in won) == 1
        firm.rows("update risk_private.worker_lease set expires_at = '-infinity'")


def test_taking_over_terminates_the_connections_of_the_old_leader_alone(
    db: Database, firm: Caller
) -> None:
    """A number on the list may belong to another program by now."""
    with (
        db.connect(application_name="pgrisk-worker") as old,
        db.connect(application_name="trader") as trader,
    ):
        epoch = take(firm, "one", old.info.backend_pid, trader.info.backend_pid)
        db.set_clock(NOW + 2 * SECOND)
        assert take(firm, "two") == epoch + 1
        with pytest.raises(psycopg.OperationalError):
            old.execute("select 1")
        assert trader.execute("select 1").fetchone() == (1,)


def test_what_an_old_leader_has_under_way_ends_before_a_takeover(
    db: Database, firm: Caller
) -> None:
    with db.connect(autocommit=False) as old, callers(db, 1) as (other,):
        epoch = take(firm, "one")
        old.execute("select risk_private.beat(%s, %s, %s)", [epoch, NOW, NOW])
        turn(firm, epoch)  # renewing does not wait for it
        db.set_clock(NOW + 2 * SECOND)
        with pytest.raises(errors.LockNotAvailable):
            take(other, "two")
        old.rollback()
        assert take(other, "two") == epoch + 1


def test_a_takeover_ends_what_a_stopped_leader_has_under_way(db: Database, firm: Caller) -> None:
    with db.connect(autocommit=False, application_name="pgrisk-worker") as old:
        epoch = take(firm, "one", old.info.backend_pid)
        old.execute("select risk_private.beat(%s, %s, %s)", [epoch, NOW, NOW])
        db.set_clock(NOW + 2 * SECOND)
        assert take(firm, "two") == epoch + 1
        with pytest.raises(psycopg.OperationalError):
            old.commit()
    assert firm.value("select beat_at from risk_private.heartbeat") is None


def test_a_worker_without_the_right_to_terminate_takes_over_all_the_same(
    db: Database, firm: Caller
) -> None:
    one, two = (db.create_user(f"{db.name}_{name}", "risk_worker") for name in ("one", "two"))
    with db.connect(one, application_name="pgrisk-worker") as old, callers(db, 1, two) as (new,):
        epoch = take(Caller(old), "one", old.info.backend_pid)
        db.set_clock(NOW + 2 * SECOND)
        assert take(new, "two") == epoch + 1
        with pytest.raises(psycopg.Error, match="another worker leads"):
            turn(Caller(old), epoch)


ARGUMENTS = {
    "bigint[]": "'{1}'",
    "bigint": "1",
    "integer[]": "'{}'",
    "integer": "1",
    "text": "'x'",
    "boolean": "true",
    "date": "'2098-01-05'",
    "timestamp with time zone": "now()",
    "risk_private.recounted": "'counters'",
}
UNFENCED = {"lease", "release_lease"}


def fenced(caller: Caller) -> list[dict[str, Any]]:
    """Every routine that takes an epoch, with the types of what else it takes."""
    return caller.rows(
        """select p.proname as name, p.prokind = 'p' as is_procedure,
             array(select format_type(t, null) from unnest(p.proargtypes::oid[])
                   with ordinality as a (t, n) where n > 1 order by n) as types
           from pg_proc as p
           where p.pronamespace = 'risk_private'::regnamespace and p.proargnames[1] = 'epoch'
             and p.proargmodes[1] is distinct from 'o'
           order by 1"""
    )


def test_every_effect_of_a_worker_is_refused_once_its_epoch_is_over(
    db: Database, firm: Caller
) -> None:
    """Stopped in the middle of anything and resumed after a takeover, it changes nothing."""
    epoch = take(firm)
    db.set_clock(NOW + 2 * SECOND)
    take(firm, "two")
    firm.rows("select pgmq.send('risk_events', '{}')")
    firm.rows("update risk_private.counters set open_orders = 7 where dimension = 0")  # a drift
    before = snapshot(firm)
    found = fenced(firm)
    assert {"beat", "evaluate", "reconcile", "sweep"} <= {each["name"] for each in found}
    for each in found:
        if each["name"] in UNFENCED:
            continue
        arguments = "".join(f", {ARGUMENTS[name]}" for name in each["types"])
        for stale in (epoch, epoch + 2, None):
            verb = "call" if each["is_procedure"] else "select"
            with pytest.raises(psycopg.Error) as raised:
                firm.rows(f"{verb} risk_private.{each['name']}(%s{arguments})", stale)
            assert raised.value.sqlstate == "RK409", each
    assert snapshot(firm) == before


def snapshot(caller: Caller) -> dict[str, list[dict[str, Any]]]:
    """Everything in the engine's tables and queues."""
    tables = caller.rows(
        """select n.nspname as schema, c.relname as name from pg_class as c
           join pg_namespace as n on n.oid = c.relnamespace
           where c.relkind = 'r' and (n.nspname = 'risk_private' or c.relname ~ '^[aq]_risk_')"""
    )
    return {
        table["name"]: caller.rows(
            sql.SQL("select t::text from {} as t order by 1")
            .format(sql.Identifier(table["schema"], table["name"]))
            .as_string()
        )
        for table in tables
    }


def test_a_takeover_is_seen_by_whoever_waited_for_it(db: Database, firm: Caller) -> None:
    """An effect that begins while a takeover commits ends in refusal, not in a mixture."""
    with db.connect(autocommit=False) as taker, callers(db, 1) as (old,):
        epoch = take(firm)
        db.set_clock(NOW + 2 * SECOND)
        taker.execute("select risk_private.take_lease('two', '{}')")
        pid = old.connection.info.backend_pid

        def finish() -> None:
            waits = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
            wait_until(lambda: firm.value(waits, pid) is True)
            taker.commit()

        def beat() -> None:
            with pytest.raises(psycopg.Error, match="another worker leads"):
                old.rows("select risk_private.beat(%s, %s, %s)", epoch, NOW, NOW)

        all_at_once([beat, finish])
    assert firm.value("select beat_at from risk_private.heartbeat") is None
