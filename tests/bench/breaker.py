"""How fast a breach halts trading, with and without faults, and what the worker costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from typing import TYPE_CHECKING, Any

import psutil
import psycopg

from tests.bench import firm, load
from tests.bench.rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgrisk.client.embedded import Server

PGRISK = Path(sys.executable).with_name("pgrisk")
RATE = 500
"""Orders a second that go on while breaches are timed."""
LOST = 60.0

DESK = """
call risk.create_scope('X', 'desk', 'F');
call risk.create_scope('X1', 'account', 'X');
call risk.set_indicator('VIX', 20);
call risk.define_breaker('bench', 'X', 'volatility_level', 40, 'HALT', '{"indicator": "VIX"}')
"""
NO_EVENTS = """
create or replace function risk_private.event(
  kind text, payload jsonb default '{}', wakes boolean default true)
returns void language plpgsql as $$ begin end $$
"""

# 200 scopes, each with five breakers of the conditions that read most.
MANY = [
    ("volatility_level", "40", '{"indicator": "VIX"}'),
    ("daily_loss", "5", "{}"),
    ("drawdown", "20", "{}"),
    ("order_rate", "1000", "{}"),
    ("reject_rate", "90", "{}"),
]


class Probe:
    """One caller who breaches, asks until he is refused, and resets."""

    def __init__(self, database: firm.Firm) -> None:
        self.connection = psycopg.connect(database.owner, autocommit=True)
        self._orders = 0

    def call(self, statement: str, *arguments: object) -> Any:
        row = self.connection.execute(statement.encode(), arguments)
        return row.fetchone() if row.description else None

    def breach(self) -> float:
        """Commit a breach; the moment at which that was done."""
        self.call("call risk.set_indicator('VIX', 45)")
        return time.perf_counter()

    def refused(self) -> bool:
        """Whether the next order is refused by the breaker."""
        self._orders += 1
        row = self.call("call risk.check_order('X1', %s, 'S1', 'buy', 1, 100)", f"p{self._orders}")
        return bool(row[2] == "CIRCUIT_BREAKER_TRIPPED")

    def seconds_to_halt(self, since: float) -> float:
        """From the breach to the end of the first order that is refused."""
        while not self.refused():
            if time.perf_counter() - since > LOST:
                raise SystemExit("a breach was not halted within a minute")
        return time.perf_counter() - since

    def reset(self) -> None:
        """Arm the breaker again."""
        self.call("call risk.set_indicator('VIX', 20)")
        self.call("call risk.reset_breaker('bench', 'next measurement')")


@contextmanager
def worker(database: firm.Firm) -> Iterator[subprocess.Popen[str]]:
    """A worker process that leads or stands by."""
    process = subprocess.Popen(
        [PGRISK, "worker", "run"],
        env=os.environ | {"PGRISK_DATABASE_URL": database.owner},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        json.loads(process.stdout.readline())  # started
        Thread(target=process.stdout.read, daemon=True).start()
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_leader(database: firm.Firm, after: int = 0) -> int:
    """The epoch of a leader that has evaluated, later than that one."""
    query = """select l.epoch from risk_private.lease() as l, risk_private.heartbeat as h
               where l.epoch > %s and not l.is_over and h.beat_at > clock_timestamp()
                 - interval '0.4 seconds'"""
    with psycopg.connect(database.owner, autocommit=True) as connection:
        deadline = time.monotonic() + LOST
        while time.monotonic() < deadline:
            row = connection.execute(query, [after]).fetchone()
            if row:
                return int(row[0])
            time.sleep(0.05)
    raise SystemExit("no worker leads")


@contextmanager
def orders(database: firm.Firm, pgbench: Path, directory: Path, clients: int = 4) -> Iterator[None]:
    """The ordinary load, until the block ends."""
    script = directory / "orders.sql"
    script.write_text(load.script(load.CHECK))
    password = database.trader.split(":")[2].split("@")[0]
    command = [str(pgbench), "-n", "-M", "prepared", "-c", str(clients), "-T", "3600"]
    command += ["-R", str(RATE), "-f", str(script), database.trader.replace(f":{password}@", "@")]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PGPASSWORD": password},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(load.WARM_UP)
        yield
        if process.poll() is not None:
            raise SystemExit("the load ended before the measurement")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


def breaches(database: firm.Firm, pgbench: Path, directory: Path, quick: bool) -> list[Row]:
    """From a breach to the first refusal: undisturbed, without messages, without the leader."""
    probe = Probe(database)
    usual, lost, killed = [], [], []
    with ExitStack() as stack:
        leader = stack.enter_context(worker(database))
        epoch = wait_for_leader(database)
        stack.enter_context(orders(database, pgbench, directory))
        for _ in range(200 if not quick else 60):
            usual.append(probe.seconds_to_halt(probe.breach()))
            probe.reset()
        for _ in range(10 if not quick else 3):
            other = stack.enter_context(worker(database))
            leader.kill()
            killed.append(probe.seconds_to_halt(probe.breach()))
            epoch = wait_for_leader(database, epoch)
            probe.reset()
            leader = other
        probe.call(NO_EVENTS)
        for _ in range(50 if not quick else 20):
            moment = probe.breach()
            probe.call("select pgmq.purge_queue('risk_events')")
            lost.append(probe.seconds_to_halt(moment))
            probe.reset()
    return [
        Row(
            "breach → refusal under 500 orders/s, p50",
            1000,
            20,
            percentile(usual, 0.5),
            True,
            " ms",
        ),
        Row("the same, p99", 1000, 100, percentile(usual, 0.99), True, " ms"),
        Row("worker killed at the breach, worst", 5, 2, max(killed), True, " s"),
        Row("queue purged, notifications lost, worst", 5, 1, max(lost), True, " s"),
    ]


def wait_for_jobs(database: firm.Firm) -> None:
    """Wait until the leader has done all that it does at first: what it does last is the queues."""
    query = """select from pg_stat_activity where application_name = 'pgrisk-worker'
               and state = 'idle' and query ~ 'bound_queues'"""
    with psycopg.connect(database.owner, autocommit=True) as connection:
        deadline = time.monotonic() + LOST
        while connection.execute(query).fetchone() is None:
            if time.monotonic() > deadline:
                raise SystemExit("the worker does not come to rest")
            time.sleep(0.01)


def idle(database: firm.Firm, quick: bool) -> Row:
    """CPU of the worker and its server processes while nothing happens.

    A minute holds each of its jobs at least once, and the recount of all counters exactly once.
    """
    with worker(database) as process:
        wait_for_leader(database)
        wait_for_jobs(database)
        with psycopg.connect(database.owner, autocommit=True) as connection:
            pids = connection.execute(
                "select pid from pg_stat_activity where application_name = 'pgrisk-worker'"
            ).fetchall()
        processes = [psutil.Process(process.pid), *(psutil.Process(pid) for (pid,) in pids)]

        def used() -> float:
            return sum(sum(each.cpu_times()[:2]) for each in processes)

        began, before = time.monotonic(), used()
        time.sleep(20 if quick else 60)
        share = (used() - before) / (time.monotonic() - began) * 100
    return Row("worker idle, of a core", 5, 2, share, True, " %")


def many_breakers(server: Server) -> Row:
    """An evaluation of 1,000 breakers over 200 scopes."""
    database = firm.create(server, "breakers")
    with psycopg.connect(database.owner, autocommit=True) as connection:
        connection.execute("call risk.set_indicator('VIX', 20)")
        scopes = [code for (code,) in connection.execute("select scope from risk.scopes")]
        for number in range(200 - len(scopes)):
            code = f"T{number}"
            connection.execute("call risk.create_scope(%s, 'account', 'D1')", [code])
            scopes.append(code)
        for scope in scopes:
            for condition, threshold, parameters in MANY:
                connection.execute(
                    "call risk.define_breaker(%s, %s, %s, %s::numeric, 'HALT', %s::jsonb)",
                    [f"{scope} {condition}", scope, condition, threshold, parameters],
                )
        connection.execute("vacuum analyze")
        row = connection.execute("select risk_private.take_lease('bench', '{}')").fetchone()
        seconds = []
        for _ in range(20):
            began = time.perf_counter()
            connection.execute("select risk_private.evaluate(%s)", row)
            seconds.append(time.perf_counter() - began)
    return Row(
        "1,000 breakers over 200 scopes, sweep", 250, 100, median(seconds) * 1000, True, " ms"
    )


@contextmanager
def gate(database: firm.Firm) -> Iterator[None]:
    """Orders need the heartbeat, as where a worker runs they should."""
    with psycopg.connect(database.owner, autocommit=True) as connection:
        connection.execute("call risk.set_setting('max_indicator_age', '0')")
        connection.execute("call risk.set_setting('max_heartbeat_age', '3')")
        yield
        connection.execute("call risk.set_setting('max_heartbeat_age', '0')")


def cost(database: firm.Firm, run: Callable[[str], float], pairs: int) -> Row:
    """`check_order` ÷ floor with a worker ÷ the same without one."""
    ratios = []
    for _ in range(pairs):
        without = run(load.CHECK) / run(load.FLOOR)
        with worker(database), gate(database):
            wait_for_leader(database)
            ratios.append(run(load.CHECK) / run(load.FLOOR) / without)
    return Row("`check_order` ÷ floor, with the worker ÷ without", 0.8, 0.95, median(ratios))


def rows(server: Server, pgbench: Path, directory: Path, quick: bool) -> list[Row]:
    """Every row of this module, on databases of its own."""
    database = firm.create(server, "breaker")
    with psycopg.connect(database.owner, autocommit=True) as connection:
        for statement in DESK.split(";"):
            connection.execute(statement.encode())

    def run(template: str) -> float:
        return load.run(
            pgbench,
            database.trader,
            [load.script(template)],
            directory,
            clients=8,
            seconds=3 if quick else 10,
        ).rate

    return [
        idle(database, quick),
        cost(database, run, 1 if quick else 3),
        *breaches(database, pgbench, directory, quick),
        many_breakers(server),
    ]
