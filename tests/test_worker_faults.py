"""Workers, servers and connections that die, hang or lie: no breach goes unjudged.

Until it is judged either the heartbeat is fresh or only reducing orders pass.
"""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, open_firm, wait_until
from tests.workers import WorkerProcess, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import DurableServer
    from tests.databases import Database

STOP_SECONDS = 30
CONNECTIONS = "select pid from pg_stat_activity where application_name = 'pgrisk-worker'"


def arm(firm: Caller) -> None:
    """Only with a heartbeat may orders pass, and VIX at 40 halts the firm; A1 holds 100 AAPL."""
    firm.hold("A1", "AAPL", 100)
    firm.call("set_setting", name="max_heartbeat_age", value="3")
    firm.call("set_indicator", name="VIX", value=20)
    firm.call(
        "define_breaker",
        name="vix-40",
        scope="F",
        condition="volatility_level",
        threshold=40,
        action="HALT",
        parameters=Jsonb({"indicator": "VIX"}),
    )


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        arm(caller)
        yield caller


def reason(firm: Caller) -> str | None:
    """Why an order that does not reduce is refused now; None when it is accepted."""
    return firm.check("A1", firm.new_name(), "AAPL", "buy", 1, 100).reason


def reduces(firm: Caller) -> bool:
    return firm.check("A1", firm.new_name(), "AAPL", "sell", 1, 100).is_accepted


def trades(firm: Caller) -> None:
    """Wait until orders pass."""
    wait_until(lambda: reason(firm) is None)


def breach(firm: Caller) -> None:
    firm.call("set_indicator", name="VIX", value=40.74)


def is_halted(firm: Caller) -> bool:
    """Whether the breach is in force; if not, orders pass or miss the heartbeat, nothing else."""
    found = reason(firm)
    assert found in {None, "STALE_DATA", "CIRCUIT_BREAKER_TRIPPED"}
    return found == "CIRCUIT_BREAKER_TRIPPED"


def halts(firm: Caller) -> None:
    """Wait until the breach is in force, and see that it tripped once."""
    wait_until(lambda: is_halted(firm))
    events = firm.rows("select event from risk_private.breaker_events where name = 'vix-40'")
    assert [row["event"] for row in events].count("TRIPPED") == 1


def epoch(firm: Caller) -> int:
    return int(firm.value("select epoch from risk_private.lease()"))


def test_a_breach_halts_the_firm(db: Database, firm: Caller) -> None:
    assert reason(firm) == "STALE_DATA"
    assert reduces(firm)
    with worker(db.url):
        trades(firm)
        breach(firm)
        halts(firm)


def test_without_a_worker_only_reducing_orders_pass(db: Database, firm: Caller) -> None:
    with worker(db.url) as process:
        trades(firm)
        process.kill()
        wait_until(lambda: reason(firm) == "STALE_DATA")
        assert reduces(firm)
    with worker(db.url):
        trades(firm)


def test_a_leader_killed_at_the_breach_is_followed_by_another(db: Database, firm: Caller) -> None:
    with worker(db.url) as leader:
        leader.wait_for("leading")
        with worker(db.url) as other:
            before = epoch(firm)
            leader.kill()
            breach(firm)
            halts(firm)
            assert other.wait_for("leading")["epoch"] == before + 1


def test_a_stopped_leader_can_do_nothing_once_it_goes_on(db: Database, firm: Caller) -> None:
    with worker(db.url) as leader:
        leader.wait_for("leading")
        with worker(db.url) as other:
            began = time.monotonic()
            leader.send(signal.SIGSTOP)
            breach(firm)
            halts(firm)
            after = other.wait_for("leading")["epoch"]
            wait_until(lambda: time.monotonic() - began >= STOP_SECONDS)
            leader.send(signal.SIGCONT)
            leader.wait_for("connection_lost")
            beats = firm.value("select beat_at from risk_private.heartbeat")
            wait_until(lambda: firm.value("select beat_at from risk_private.heartbeat") > beats)
            assert epoch(firm) == after
            assert len(leader.events("leading")) == 1
            other.send(signal.SIGTERM)  # it is as good a stand-by as any
            assert other.wait() == 0
            assert leader.wait_for("leading", 2)["epoch"] == after + 1
            halts(firm)


def test_handing_over_refuses_nobody(db: Database, firm: Caller) -> None:
    with worker(db.url) as first, worker(db.url) as second:
        trades(firm)
        leader = first if first.events("leading") else second
        other = second if leader is first else first
        assert other.events("leading") == []
        leader.send(signal.SIGTERM)
        while not other.events("leading"):
            assert reason(firm) is None
        assert leader.wait() == 0
        breach(firm)
        halts(firm)


def test_it_comes_back_when_the_server_was_killed(
    durable_server: Callable[..., DurableServer],
) -> None:
    server = durable_server()
    database = server.create_database()
    with open_firm(database) as firm:
        arm(firm)
    with worker(database.url) as process:
        process.wait_for("leading")
        server.kill()
        process.wait_for("connection_lost")
        database.server = server.start()
        process.wait_for("leading", 2)
        with database.connect() as connection:
            firm = Caller(connection, 1)
            trades(firm)
            breach(firm)
            halts(firm)


def restore(server: DurableServer) -> None:
    """Let the server recover to a timeline of its own, as after a restore or a fail-over."""
    server.kill()
    data_dir = server.server.data_dir / "postgresql"
    (data_dir / "recovery.signal").touch()
    with (data_dir / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")


def test_a_server_that_was_restored_is_halted_until_somebody_has_looked(
    durable_server: Callable[..., DurableServer],
) -> None:
    server = durable_server()
    database = server.create_database()
    with open_firm(database) as firm:
        arm(firm)
        with worker(database.url) as process:
            trades(firm)
            process.send(signal.SIGTERM)
            assert process.wait() == 0
    with worker(database.url) as process:
        process.wait_for("leading")
        restore(server)
        database.server = server.start()
        process.wait_for("leading", 2)
        with database.connect() as connection:
            firm = Caller(connection, 1)
            assert reason(firm) == "TRADING_HALTED"
            assert "restored" in firm.alerts("scope_tripped")[0]["reason"]
            firm.call("set_trading_state", scope="F", state="ACTIVE", reason="all is there")
            trades(firm)
            breach(firm)
            halts(firm)


def are_gone(firm: Caller, pids: set[int]) -> bool:
    return not pids & {row["pid"] for row in firm.rows(CONNECTIONS)}


@pytest.mark.parametrize("seed", [1, 2])
def test_it_comes_back_when_its_connections_are_cut(db: Database, firm: Caller, seed: int) -> None:
    chance = random.Random(seed)
    with worker(db.url) as process:
        process.wait_for("leading")
        for _ in range(5):
            wait_until(lambda: len(firm.rows(CONNECTIONS)) >= 4)
            pids = [row["pid"] for row in firm.rows(CONNECTIONS)]
            cut = set(chance.sample(pids, chance.randint(1, len(pids))))
            firm.rows(
                "select pg_terminate_backend(pid) from unnest(%s::integer[]) as pid", list(cut)
            )
            wait_until(partial(are_gone, firm, cut))
        trades(firm)
        breach(firm)
        halts(firm)


def test_it_comes_back_when_the_database_takes_writes_again(db: Database, firm: Caller) -> None:
    with worker(db.url) as process:
        trades(firm)
        firm.rows(f'alter database "{db.name}" set default_transaction_read_only = on')
        firm.rows(f"select pg_terminate_backend(pid) from ({CONNECTIONS}) as c")
        wait_until(lambda: reason(firm) == "STALE_DATA")
        assert "read-only" in process.wait_for("connection_lost", 3)["error"]
        breach(firm)
        firm.rows(f'alter database "{db.name}" reset default_transaction_read_only')
        halts(firm)


def poison(firm: Caller) -> None:
    """Messages that nobody can handle: malformed ones, and one of A2 that cannot be taken off."""
    firm.rows(
        """create function public.poison() returns trigger language plpgsql as $$
             begin
               if current_query() ~ 'handle_events' then raise 'this message is poison'; end if;
               return old;
             end $$;
           create trigger poison before delete on pgmq.q_risk_events for each row
             when (old.message ? 'poison') execute function public.poison()"""
    )
    messages: list[object] = [
        None,
        1,
        [],
        {},
        {"kind": "nonsense"},
        {"kind": "fill", "scope": "nowhere"},
    ]
    for message in [{"kind": "fill", "scope": "A2", "poison": True}, *messages]:
        firm.rows("select pgmq.send('risk_events', %s)", Jsonb(message))


def test_poison_ahead_of_a_breach_holds_up_nothing(db: Database, firm: Caller) -> None:
    with worker(db.url) as process:
        trades(firm)
        poison(firm)
        breach(firm)
        halts(firm)
        wait_until(lambda: firm.value("select count(*) from pgmq.q_risk_dead") == 7)
        assert len(process.events("event_failed")) == 2
        wait_until(lambda: firm.value("select count(*) from pgmq.q_risk_events") == 0)
    states = firm.rows(
        "select scope, own_state from risk.trading_states where own_state <> 'ACTIVE'"
    )
    assert ("A2", "REDUCE_ONLY") in {(row["scope"], row["own_state"]) for row in states}
    (dead,) = firm.rows(
        "select message from pgmq.q_risk_dead where message -> 'message' ? 'poison'"
    )
    assert "this message is poison" in dead["message"]["error"]


def test_a_message_that_no_handler_survived_is_buried_and_trips_its_scope(
    db: Database, firm: Caller
) -> None:
    firm.rows("""select pgmq.send('risk_events', '{"kind": "fill", "scope": "A2"}')""")
    firm.rows("update pgmq.q_risk_events set read_ct = 5 where message ->> 'scope' = 'A2'")
    with worker(db.url) as process:
        assert process.wait_for("event_buried")["error"] == "read 6 times and never handled"
        trades(firm)
        breach(firm)
        halts(firm)
    state = "select own_state from risk.trading_states where scope = 'A2'"
    assert firm.value(state) == "REDUCE_ONLY"


def test_when_evaluation_fails_everything_that_does_not_reduce_is_refused(
    db: Database, firm: Caller
) -> None:
    with worker(db.url) as process:
        trades(firm)
        firm.rows("alter function risk_private.sweep(bigint) rename to sweep_away")
        wait_until(lambda: reason(firm) == "STALE_DATA")
        assert reduces(firm)
        assert process.wait_for("failing")["what"] == "evaluation"
        firm.rows("alter function risk_private.sweep_away(bigint) rename to sweep")
        trades(firm)
        assert [line["event"] for line in process.log] == ["started", "leading", "failing"]


def test_a_breach_whose_message_and_notification_are_lost_is_found_by_the_sweep(
    db: Database, firm: Caller
) -> None:
    with worker(db.url):
        trades(firm)
        firm.rows(
            """create or replace function risk_private.event(
                 kind text, payload jsonb default '{}', wakes boolean default true)
               returns void language plpgsql as $$ begin end $$"""
        )
        breach(firm)
        firm.rows("select pgmq.purge_queue('risk_events')")
        halts(firm)


def test_a_stalled_listener_holds_up_nothing_and_is_replaced(db: Database, firm: Caller) -> None:
    listening = CONNECTIONS + " and query ~ '^listen'"
    with worker(db.url) as process, ExitStack() as stack:
        trades(firm)
        wait_until(lambda: len(firm.rows(listening)) == 1)
        pid = firm.value(listening)
        os.kill(pid, signal.SIGSTOP)
        stack.callback(os.kill, pid, signal.SIGCONT)
        breach(firm)
        halts(firm)
        assert process.wait_for("listener_replaced")["why"] == "deaf"
        wait_until(lambda: len({row["pid"] for row in firm.rows(listening)} - {pid}) == 1)


def test_a_leader_whose_server_process_hangs_is_followed_by_another(
    db: Database, firm: Caller
) -> None:
    with worker(db.url) as leader:
        leader.wait_for("leading")
        with worker(db.url) as other, ExitStack() as stack:
            pid = idle_main_process(firm)
            stack.callback(os.kill, pid, signal.SIGCONT)
            breach(firm)
            halts(firm)
            assert len(other.events("leading")) == 1
            stack.close()
            leader.wait_for("connection_lost")
            assert len(leader.events("leading")) == 1


def idle_main_process(firm: Caller) -> int:
    """The server process of the leader's main connection, stopped while it holds no lock."""
    pid = int(firm.value("select backend_pids[1] from risk_private.lease()"))
    held = "select count(*) from pg_locks where pid = %s and locktype = 'transactionid'"

    def is_stopped_idle() -> bool:
        os.kill(pid, signal.SIGSTOP)
        if firm.value(held, pid) == 0:
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    wait_until(is_stopped_idle)
    return pid


def test_cancels_of_a_halt_go_out_also_for_an_account_that_is_locked_then(
    db: Database, firm: Caller
) -> None:
    firm.call(
        "define_breaker",
        name="vix-50",
        scope="F",
        condition="volatility_level",
        threshold=50,
        action="HALT_AND_CANCEL",
        parameters=Jsonb({"indicator": "VIX"}),
    )
    with worker(db.url), db.connect(autocommit=False) as trader:
        trades(firm)
        for account in ("A1", "A2"):
            firm.check(account, "working", "MSFT", "buy", 1, 50)
        trader.execute(
            """select from risk_private.counters as c join risk_private.scopes as s
               on c.counter_id = risk_private.counter_id(s.scope_id) where s.code = 'A1'
               for no key update of c"""
        )
        with db.connect() as connection:
            gateway = Caller(connection, 2)
            gateway.call("set_indicator", name="VIX", value=50)

            def asked() -> set[tuple[str, str]]:
                alerts = gateway.alerts("cancel_request")
                return {(alert["account"], alert["client_order_id"]) for alert in alerts}

            wait_until(lambda: asked() == {("A2", "working")})
            trader.rollback()
            wait_until(lambda: ("A1", "working") in asked())


def flood(db: Database, until: Event) -> None:
    """More messages whenever the worker has handled some."""
    with db.connect() as connection:
        sender = Caller(connection, 3)
        while not until.is_set():
            sender.rows(
                """select pgmq.send_batch(
                     'risk_events', array_fill('{"kind": "fill"}'::jsonb, '{50}'))
                   from pgmq.metrics('risk_events') where queue_length < 1000"""
            )


def test_messages_that_never_end_leave_the_leader_its_lease(db: Database, firm: Caller) -> None:
    with worker(db.url) as leader:
        leader.wait_for("leading")
        with worker(db.url) as other, ThreadPoolExecutor(1) as pool:
            before, enough = epoch(firm), Event()
            flooding = pool.submit(flood, db, enough)
            try:
                began = time.monotonic()
                wait_until(lambda: time.monotonic() - began > 4)  # two leases and more
                breach(firm)
                halts(firm)
            finally:
                enough.set()
            flooding.result()
            assert epoch(firm) == before
            assert other.events("leading") == []


def leading(processes: list[WorkerProcess]) -> list[WorkerProcess]:
    return [process for process in processes if process.events("leading")]


def test_of_many_workers_one_leads_at_a_time(db: Database, firm: Caller) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(worker(db.url)) for _ in range(3)]
        epochs = []
        while processes:
            trades(firm)
            wait_until(lambda: len(leading(processes)) == 1)
            (leader,) = leading(processes)
            epochs.append(leader.events("leading")[-1]["epoch"])
            processes.remove(leader)
            leader.kill()
        assert epochs == [epochs[0], epochs[0] + 1, epochs[0] + 2]
        wait_until(lambda: reason(firm) == "STALE_DATA")


def the_leader(firm: Caller, workers: list[WorkerProcess]) -> WorkerProcess:
    holder = firm.value("select holder from risk_private.lease()")
    (found,) = [process for process in workers if f":{process.pid}:" in holder]
    return found


def kill_the_leader(firm: Caller, workers: list[WorkerProcess], _: random.Random) -> None:
    victim = the_leader(firm, workers)
    victim.kill()
    workers.remove(victim)


def stop_the_leader(firm: Caller, workers: list[WorkerProcess], _: random.Random) -> None:
    the_leader(firm, workers).send(signal.SIGSTOP)


def cut_connections(firm: Caller, _: list[WorkerProcess], chance: random.Random) -> None:
    pids = [row["pid"] for row in firm.rows(CONNECTIONS + " order by pid")]
    cut = chance.sample(pids, chance.randint(1, len(pids)))
    firm.rows("select pg_terminate_backend(pid) from unnest(%s::integer[]) as pid", cut)


def send_nonsense(firm: Caller, _: list[WorkerProcess], chance: random.Random) -> None:
    messages: list[object] = [None, [], {}, {"kind": "fill", "scope": "nowhere"}]
    for message in chance.choices(messages, k=5):
        firm.rows("select pgmq.send('risk_events', %s)", Jsonb(message))


FAULTS = (kill_the_leader, stop_the_leader, cut_connections, send_nonsense)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_fault_after_another_hides_a_breach(db: Database, firm: Caller, seed: int) -> None:
    """Every fault in an order that is drawn, every other time with the message of it lost."""
    chance = random.Random(seed)
    trips = "select count(*) from risk.breaker_events where event = 'TRIPPED'"
    with ExitStack() as stack:
        workers: list[WorkerProcess] = []
        epochs = []
        for number, fault in enumerate(chance.sample(FAULTS * 2, len(FAULTS) * 2), start=1):
            while len(workers) < 2:
                workers.append(stack.enter_context(worker(db.url)))
            trades(firm)
            fault(firm, workers, chance)
            breach(firm)
            if chance.random() < 0.5:
                firm.rows("select pgmq.purge_queue('risk_events')")
            wait_until(lambda: is_halted(firm))
            assert firm.value(trips) == number
            epochs.append(epoch(firm))
            for process in workers:
                process.send(signal.SIGCONT)
            firm.call("set_indicator", name="VIX", value=20)
            firm.call("reset_breaker", name="vix-40", reason="the next fault")
        assert epochs == sorted(epochs)
