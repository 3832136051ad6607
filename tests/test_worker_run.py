"""`pgrisk worker run`: signals, exit codes, logs, metrics and health."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.orders import Caller, callers, open_firm, wait_until
from tests.workers import PGRISK, WorkerProcess, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

OPERATIONS = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller


def run_once(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PGRISK, "worker", "run", "--once", *arguments],
        env=os.environ | {"PGRISK_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_once_does_everything_that_is_due_and_gives_the_lease_back(
    db: Database, firm: Caller
) -> None:
    firm.rows("select pgmq.send('risk_events', '{\"kind\": \"marks\"}')")
    firm.rows("select pgmq.send('risk_events', '{\"kind\": \"nonsense\"}')")
    answer = run_once(db.url)
    assert answer.returncode == 0, answer.stderr
    assert firm.value("select count(*) from pgmq.q_risk_events") == 0
    assert firm.value("select count(*) from pgmq.q_risk_dead") == 1
    assert firm.value("select beat_at is not null from risk_private.heartbeat") is True
    assert firm.value("select holder from risk_private.lease()") is None
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["event_buried"]
    assert {"level", "timestamp", "worker", "msg_id", "error"} <= set(lines[0])


def test_once_fails_when_a_job_fails(db: Database, firm: Caller) -> None:
    firm.rows("drop function risk_private.reconcile")
    answer = run_once(db.url)
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["job"] == "reconciliation"
    assert firm.value("select beat_at is not null from risk_private.heartbeat") is True


def test_once_leaves_a_leader_alone(db: Database, firm: Caller) -> None:
    with worker(db.url) as leader:
        leader.wait_for("leading")
        answer = run_once(db.url)
        assert answer.returncode == 6
        assert "another worker leads" in answer.stderr
        assert leader.events("deposed") == []


def test_once_tells_when_the_database_cannot_be_reached(db: Database) -> None:
    answer = run_once(db.url.replace(f":{db.server.port}/", ":1/"))
    assert answer.returncode == 5
    assert "Traceback" not in answer.stderr


def test_wrong_usage_is_told(db: Database) -> None:
    assert run_once(db.url, "--metrics-port", "x").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(db: Database, firm: Caller, number: signal.Signals) -> None:
    with worker(db.url) as process:
        process.wait_for("leading")
        process.send(number)
        assert process.wait() == 0
    assert [line["event"] for line in process.log] == ["started", "leading", "stopped"]
    assert firm.value("select holder from risk_private.lease()") is None
    connections = "select count(*) from pg_stat_activity where application_name = 'pgrisk-worker'"
    wait_until(lambda: firm.value(connections) == 0)


def test_a_signal_ends_a_stand_by_and_one_that_finds_no_server(db: Database, firm: Caller) -> None:
    unreachable = db.url.replace(f":{db.server.port}/", ":1/")
    with worker(db.url) as leader, worker(db.url) as stand_by, worker(unreachable) as lost:
        leader.wait_for("leading")
        lost.wait_for("connection_lost", 2)
        for process in (stand_by, lost):
            process.send(signal.SIGTERM)
            assert process.wait() == 0
        assert stand_by.events("leading") == []
        assert leader.events("deposed") == []


@contextmanager
def handling(db: Database, firm: Caller) -> Iterator[tuple[WorkerProcess, Caller]]:
    """A worker with a message in hand, which it cannot take off the queue before an unlock."""
    firm.rows(
        """create function public.wait() returns trigger language plpgsql as $$
             begin perform pg_advisory_xact_lock(42); return old; end $$;
           create trigger waits before delete on pgmq.q_risk_events
             for each row execute function public.wait();
           select pg_advisory_lock(42)"""
    )
    with worker(db.url) as process, callers(db, 1) as (sender,):
        sender.rows("select pgmq.send('risk_events', '{\"kind\": \"marks\"}')")
        waits = """select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                   and application_name = 'pgrisk-worker' and query ~ 'handle_events'"""
        wait_until(lambda: sender.value(waits) == 1)
        yield process, sender


def test_the_message_in_hand_is_finished_before_it_ends(db: Database, firm: Caller) -> None:
    with handling(db, firm) as (process, sender):
        process.send(signal.SIGTERM)
        firm.rows("select pg_advisory_unlock(42)")
        assert process.wait() == 0
        assert sender.value("select count(*) from pgmq.q_risk_events") == 0


def test_the_message_in_hand_of_a_killed_worker_is_handled_by_the_next(
    db: Database, firm: Caller
) -> None:
    with handling(db, firm) as (process, sender):
        process.kill()
        sender.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity where query ~ 'handle_events'"
            " and application_name = 'pgrisk-worker'"
        )
        firm.rows("select pg_advisory_unlock(42)")
        assert sender.value("select count(*) from pgmq.q_risk_events") > 0
        with worker(db.url):
            wait_until(lambda: sender.value("select count(*) from pgmq.q_risk_events") == 0)


def test_a_worker_dozes_until_it_is_notified(db: Database, firm: Caller) -> None:
    dozes = "select dozes from risk_private.worker_lease"
    with worker(db.url) as process:
        wait_until(lambda: firm.value(dozes))
        firm.hold("A1", "AAPL", 1)
        wait_until(lambda: not firm.value(dozes))
        wait_until(lambda: firm.value("select count(*) from pgmq.q_risk_events") == 0)
        wait_until(lambda: firm.value(dozes))
        process.send(signal.SIGTERM)
        assert process.wait() == 0
    assert firm.value(dozes) is False


def test_a_second_signal_kills_what_does_not_end(db: Database, firm: Caller) -> None:
    with handling(db, firm) as (process, _):
        process.send(signal.SIGTERM)
        status = Path(f"/proc/{process.pid}/status")

        def is_stopping() -> bool:
            (caught,) = re.findall(r"SigCgt:\s+(\w+)", status.read_text())
            return not int(caught, 16) & 1 << (signal.SIGTERM - 1)

        wait_until(is_stopping)
        process.send(signal.SIGINT)
        # 0 only where its own time-out ended the message before the second signal came.
        assert process.wait() == (0 if process.events("event_failed") else -signal.SIGINT)


@pytest.fixture
def served(db: Database, firm: Caller) -> Iterator[tuple[WorkerProcess, int]]:
    with worker(db.url, "--metrics-port", "0") as process:
        process.wait_for("leading")
        yield process, process.wait_for("metrics_served")["port"]


def metric(port: int, name: str) -> float:
    text = fetch(port, "/metrics")[1]
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def test_metrics_count_what_it_does_and_every_name_is_documented(
    firm: Caller, served: tuple[WorkerProcess, int]
) -> None:
    _, port = served
    firm.rows("select pgmq.send('risk_events', '{\"kind\": \"marks\"}')")
    firm.rows("select pgmq.send('risk_events', '{\"kind\": \"nonsense\"}')")

    def count(name: str) -> float:
        text = fetch(port, "/metrics")[1]
        return sum(
            float(value) for value in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        )

    wait_until(
        lambda: (
            count('pgrisk_worker_events_total{kind="marks",outcome="handled"}') >= 1
            and count('pgrisk_worker_events_total{kind="other",outcome="buried"}') == 1
            and count('pgrisk_worker_jobs_total{job="warnings",outcome="done"}') >= 1
        )
    )
    assert metric(port, "pgrisk_worker_leader") == 1
    assert metric(port, "pgrisk_worker_evaluations_total") > 0
    names = set(re.findall(r"^# HELP (pgrisk_\w+) ", fetch(port, "/metrics")[1], re.MULTILINE))
    assert names == set(re.findall(r"^\| `(pgrisk_\w+)`", OPERATIONS, re.MULTILINE))


def test_probes_tell_whether_it_is_alive_and_of_use(
    db: Database, served: tuple[WorkerProcess, int]
) -> None:
    _, port = served
    for path in ("/healthz", "/readyz"):
        code, body = fetch(port, path)
        answer = json.loads(body)
        assert (code, answer["ok"], answer["role"]) == (200, True, "leader")
    assert fetch(port, "/")[0] == 404
    with psycopg.connect(db.server.url(), autocommit=True) as connection:
        connection.execute(f"alter database {db.name} allow_connections false".encode())
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [db.name]
        )
    wait_until(lambda: fetch(port, "/readyz")[0] == 503)
    assert fetch(port, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_told(
    db: Database, served: tuple[WorkerProcess, int], empty_db: Database
) -> None:
    answer = run_once(empty_db.url, "--metrics-port", str(served[1]))
    assert answer.returncode == 1
    assert f"cannot answer on 127.0.0.1:{served[1]}" in answer.stderr


def test_it_keeps_trying_where_the_schema_is_missing(empty_db: Database) -> None:
    with worker(empty_db.url) as process:
        line: dict[str, Any] = process.wait_for("connection_lost", 2)
        assert "risk_private" in line["error"]
        process.send(signal.SIGTERM)
        assert process.wait() == 0
