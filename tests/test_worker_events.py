"""Events and heartbeats in SQL: coalesced, bounded, buried; refused from the future."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, callers, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2098, 1, 5, 15, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        caller.rows("select pgmq.purge_queue('risk_events')")
        yield caller


@pytest.fixture
def epoch(firm: Caller) -> int:
    return int(firm.value("select risk_private.take_lease('one', '{}')"))


def send(firm: Caller, message: object) -> int:
    return int(firm.value("select pgmq.send('risk_events', %s)", Jsonb(message)))


def event(firm: Caller, kind: str = "fill", wakes: bool = True, **payload: object) -> None:
    firm.rows("select risk_private.event(%s, %s, %s)", kind, Jsonb(payload), wakes)


def waiting(firm: Caller) -> list[Any]:
    rows = firm.rows("select message from pgmq.q_risk_events order by msg_id")
    return [row["message"] for row in rows]


def read(firm: Caller, epoch: int, quantity: int = 10) -> list[dict[str, Any]]:
    return firm.rows("select * from risk_private.read_events(%s, %s)", epoch, quantity)


def test_the_same_event_waits_once(firm: Caller, epoch: int) -> None:
    for _ in range(3):
        event(firm, scope="A1")
        event(firm, scope="A2")
    assert waiting(firm) == [{"kind": "fill", "scope": "A1"}, {"kind": "fill", "scope": "A2"}]
    read(firm, epoch, 1)  # what changed since then has not been judged
    event(firm, scope="A1")
    assert len(waiting(firm)) == 3


def test_no_more_than_ten_thousand_wait(firm: Caller) -> None:
    firm.rows(
        """select pgmq.send_batch('risk_events', array(
             select jsonb_build_object('kind', 'fill', 'n', n) from generate_series(1, 9999) n))"""
    )
    for number in range(3):
        event(firm, scope=f"A{number}")
    assert len(waiting(firm)) == 10_000


def test_rare_events_notify_and_others_do_not(db: Database, firm: Caller) -> None:
    with db.connect() as listener:
        listener.execute("listen pgrisk_events")
        event(firm, "fill", wakes=False)
        event(firm, "limit")
        (notice,) = listener.notifies(timeout=10, stop_after=1)
        assert notice.channel == "pgrisk_events"
        assert list(listener.notifies(timeout=0)) == []


def test_every_event_notifies_a_leader_that_dozes(db: Database, firm: Caller, epoch: int) -> None:
    with db.connect() as listener:
        listener.execute("listen pgrisk_events")
        for dozes, notices in ((True, 1), (False, 0), (True, 1)):
            firm.rows("select risk_private.keep_lease(%s, '{}', %s)", epoch, dozes)
            event(firm, "fill", wakes=False, scope="A1")
            event(firm, "fill", wakes=False, scope="A1")  # it waits already
            assert len(list(listener.notifies(timeout=0.1, stop_after=2))) == notices
            firm.rows("select pgmq.purge_queue('risk_events')")
        firm.rows("select risk_private.release_lease(%s)", epoch)
        event(firm, "fill", wakes=False)
        assert list(listener.notifies(timeout=0)) == []


def test_the_leader_sees_what_there_is_to_do(db: Database, firm: Caller, epoch: int) -> None:
    def waiting() -> tuple[bool, ...]:
        (row,) = firm.rows("select * from risk_private.waiting()")
        return row["has_events"], row["has_moves"], row["has_cancels"]

    assert waiting() == (False, False, False)
    firm.rows("select risk_private.evaluate(%s)", epoch)  # so that revaluing is the worker's part
    with db.connect(autocommit=False) as other:
        other.execute("select pg_current_xact_id()")
        firm.mark({"AAPL": 101})
        assert waiting() == (True, True, False)
        firm.call("revalue")
        assert waiting() == (True, False, False), "what is under way must end first"
    assert waiting() == (True, True, False), "it may have read the marks before"
    firm.call("revalue")
    assert waiting() == (True, False, False)
    read(firm, epoch)
    assert waiting() == (False, False, False), "somebody has it in hand"
    firm.call("set_trading_state", scope="A1", state="HALTED", reason="a test")
    assert waiting() == (True, False, True)
    firm.call("set_trading_state", scope="A1", state="ACTIVE", reason="a test")
    assert waiting() == (True, False, False)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (None, "RK400"),
        ([1], "RK400"),
        ("fill", "RK400"),
        ({}, "RK400"),
        ({"kind": 1}, "RK400"),
        ({"kind": "nonsense"}, "RK400"),
        ({"kind": "fill", "scope": "nowhere"}, "RK404"),
        ({"kind": "fill", "scope": None}, "RK404"),
    ],
)
def test_a_message_that_makes_no_sense_is_refused_and_stays(
    firm: Caller, epoch: int, message: object, code: str
) -> None:
    number = send(firm, message)
    with pytest.raises(psycopg.Error) as raised:
        firm.rows("select risk_private.handle_events(%s, %s)", epoch, [number])
    assert raised.value.sqlstate == code
    assert waiting(firm) == [message]


def test_handling_takes_messages_off_and_gives_a_heartbeat(firm: Caller, epoch: int) -> None:
    good, other = send(firm, {"kind": "fill", "scope": "A1"}), send(firm, {"kind": "marks"})
    firm.rows("select risk_private.handle_events(%s, %s)", epoch, [good, other])
    assert waiting(firm) == []
    assert heartbeat(firm) == (NOW, NOW)


@pytest.mark.parametrize(
    ("message", "tripped"),
    [
        ({"kind": "fill", "scope": "D1"}, ["D1"]),
        ({"kind": "fill", "scope": "nowhere"}, ["F", "G"]),
        ([], ["F", "G"]),
    ],
)
def test_burying_keeps_the_message_and_trips_its_scope(
    firm: Caller, epoch: int, message: object, tripped: list[str]
) -> None:
    firm.call("create_scope", code="G", kind="firm")
    number = send(firm, message)
    bury = "select risk_private.bury_event(%s, %s, 'it raised', true)"
    assert firm.value(bury, epoch, number) is True
    assert firm.value(bury, epoch, number) is False
    (dead,) = firm.rows("select message from pgmq.q_risk_dead")
    assert (dead["message"]["message"], dead["message"]["error"]) == (message, "it raised")
    states = firm.rows(
        "select scope, own_state from risk.trading_states where own_state <> 'ACTIVE'"
    )
    assert sorted((row["scope"], row["own_state"]) for row in states) == [
        (scope, "REDUCE_ONLY") for scope in tripped
    ]
    assert len(firm.alerts("dead_letter")) == 1
    assert sorted(alert["scope"] for alert in firm.alerts("scope_tripped")) == tripped


def test_burying_without_a_trip_stops_nobody(firm: Caller, epoch: int) -> None:
    number = send(firm, {})
    firm.rows("select risk_private.bury_event(%s, %s, 'malformed', false)", epoch, number)
    assert firm.rows("select from risk_private.trading_states") == []


def test_a_trip_never_makes_a_state_milder(firm: Caller) -> None:
    trip = """select risk_private.trip_scope(s.scope_id, %s, 'why') from risk_private.scopes as s
              where s.code = 'A1'"""
    state = "select own_state from risk.trading_states where scope = 'A1' and underlying is null"
    assert firm.value(trip, "REDUCE_ONLY") is True
    assert firm.value(trip, "REDUCE_ONLY") is False
    assert firm.value(trip, "HALTED") is True
    assert firm.value(trip, "REDUCE_ONLY") is False
    assert firm.value(state) == "HALTED"
    firm.call("set_trading_state", scope="A1", state="ACTIVE", reason="looked into")
    assert firm.value(trip, "REDUCE_ONLY") is True


def test_what_nobody_came_for_is_archived_beyond_a_bound(firm: Caller, epoch: int) -> None:
    firm.rows("select pgmq.purge_queue('risk_alerts')")
    for queue in ("risk_alerts", "risk_dead"):
        for number in range(5):
            firm.rows("select pgmq.send(%s, %s)", queue, Jsonb({"n": number}))
    assert firm.value("select risk_private.bound_queues(%s, 3)", epoch) == 4
    assert firm.value("select risk_private.bound_queues(%s, 3)", epoch) == 0
    kept = firm.rows("select message from pgmq.q_risk_alerts order by msg_id")
    assert [row["message"]["n"] for row in kept] == [2, 3, 4]
    assert firm.value("select count(*) from pgmq.a_risk_dead") == 2


# -- the heartbeat ---------------------------------------------------------------------------


def heartbeat(firm: Caller) -> tuple[Any, ...]:
    (row,) = firm.rows("select beat_at, inputs_as_of from risk_private.heartbeat")
    return tuple(row.values())


def beat(firm: Caller, epoch: int, at: datetime | None) -> bool:
    return bool(firm.value("select risk_private.beat(%s, %s, %s)", epoch, at, NOW))


@pytest.mark.parametrize("at", [NOW + timedelta(microseconds=1), None])
def test_a_heartbeat_from_the_future_or_of_no_time_is_refused(
    firm: Caller, epoch: int, at: datetime | None
) -> None:
    with pytest.raises(psycopg.Error) as raised:
        beat(firm, epoch, at)
    assert raised.value.sqlstate == "RK400"
    assert heartbeat(firm) == (None, None)


def test_a_heartbeat_never_goes_back(db: Database, firm: Caller, epoch: int) -> None:
    assert beat(firm, epoch, NOW) is True
    assert beat(firm, epoch, NOW - SECOND) is False
    assert heartbeat(firm)[0] == NOW
    db.set_clock(NOW - 60 * SECOND)  # the clock was put right: the beat above is from the future
    assert beat(firm, epoch, NOW - 60 * SECOND) is True


def test_no_heartbeat_without_a_complete_evaluation(firm: Caller, epoch: int) -> None:
    firm.rows(
        """create or replace function risk_private.sweep(epoch bigint) returns integer
           language plpgsql as $$ begin raise 'broken'; end $$"""
    )
    with pytest.raises(psycopg.Error, match="broken"):
        firm.rows("select risk_private.evaluate(%s)", epoch)
    assert heartbeat(firm) == (None, None)


def test_decisions_refuse_what_does_not_reduce_once_evaluations_stop(
    db: Database, firm: Caller, epoch: int
) -> None:
    firm.hold("A1", "AAPL", 10)
    firm.call("set_setting", name="max_heartbeat_age", value="3")

    def reason() -> str | None:
        assert firm.check("A1", firm.new_name(), "AAPL", "sell", 1, 100).is_accepted
        return firm.check("A1", firm.new_name(), "AAPL", "buy", 1, 100).reason

    assert reason() == "STALE_DATA"
    firm.rows("select risk_private.evaluate(%s)", epoch)
    assert reason() is None
    db.set_clock(NOW + 3 * SECOND)
    assert reason() is None
    db.set_clock(NOW + 3.001 * SECOND)
    assert reason() == "STALE_DATA"


def test_a_login_of_the_worker_can_do_its_work(db: Database, firm: Caller) -> None:
    user = db.create_user(f"{db.name}_worker", "risk_worker")
    with callers(db, 1, user) as (worker,):
        epoch = worker.value("select risk_private.take_lease('w', '{}')")
        send(firm, {"kind": "fill", "scope": "A1"})
        send(firm, {})
        db.set_clock(None)
        epoch = worker.value("select risk_private.take_lease('w', '{}')")
        good, bad = (row["msg_id"] for row in read(worker, epoch))
        worker.rows("select risk_private.handle_events(%s, %s)", epoch, [good])
        worker.rows("select risk_private.bury_event(%s, %s, 'x', true)", epoch, bad)
        for job in ("tell_lapsed_limits", "tell_warnings", "bound_queues"):
            worker.rows(f"select risk_private.{job}(%s)", epoch)
        worker.rows("select risk_private.reconcile(%s, 'counters')", epoch)
        worker.rows("select * from risk_private.begin_due_day(%s)", epoch)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.rows("select * from risk_private.worker_lease")
