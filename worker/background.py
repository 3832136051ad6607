"""Jobs on a thread and a connection of their own, so that none of them delays an evaluation."""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

import psycopg

from pgrisk.worker.jobs import Context, Job
from pgrisk.worker.session import EPOCH_IS_OVER, Backoff, connect, is_lost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import structlog

    from pgrisk.worker.metrics import Metrics


STOP_SECONDS = 5.0
"""How long stopping waits for a job whose server process does not answer."""


class Background:
    """Runs jobs when they are due, for as long as one epoch lasts."""

    def __init__(
        self,
        url: str,
        epoch: int,
        jobs: Sequence[Job],
        metrics: Metrics,
        log: structlog.stdlib.BoundLogger,
        evaluate_soon: Callable[[], None],
    ) -> None:
        self._url = url
        self._epoch = epoch
        self._jobs = jobs
        self._metrics = metrics
        self._log = log
        self._evaluate_soon = evaluate_soon
        now = time.monotonic()
        self._due = {job.name: 0.0 if job.at_once else now + job.interval for job in jobs}
        self._not_before = dict.fromkeys(self._due, 0.0)
        self._wake = Event()
        self._is_stopping = False
        self._connection: psycopg.Connection | None = None
        self._thread = Thread(target=self._run, name="pgrisk-" + jobs[0].name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self, name: str) -> None:
        """Let a job run as soon as its share of the time allows, if it is one of these."""
        if name in self._due:
            self._due[name] = 0.0
            self._wake.set()

    def stop(self) -> None:
        """Finish, cancelling what runs: every job can be taken up again by the next leader.

        What hangs all the same is left behind: when the epoch is over it can do nothing.
        """
        self._is_stopping = True
        self._wake.set()
        given_up_at = time.monotonic() + STOP_SECONDS
        while self._thread.is_alive() and time.monotonic() < given_up_at:
            connection = self._connection
            if connection is not None:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=1)
            self._thread.join(0.2)

    @property
    def backend_pids(self) -> list[int]:
        """The server process of its connection, when there is one."""
        connection = self._connection
        return [] if connection is None else [connection.info.backend_pid]

    def _run(self) -> None:
        backoff = Backoff()
        while not self._is_stopping:
            try:
                # What a crash loses of it is found again: nothing here waits for the disk.
                self._connection = connect(
                    self._url, statement_timeout="60s", synchronous_commit="off"
                )
                backoff.reset()
                while not self._is_stopping:
                    self._run_due(self._connection)
                    next_at = min(map(self._next_at, self._due))
                    self._wake.wait(max(0.0, next_at - time.monotonic()))
                    self._wake.clear()
            except psycopg.Error as error:
                if error.sqlstate == EPOCH_IS_OVER:
                    break
                self._wake.wait(backoff.seconds())
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None

    def _run_due(self, connection: psycopg.Connection) -> None:
        context = Context(connection, self._epoch, self._log, self._metrics, self._evaluate_soon)
        for job in self._jobs:
            if self._is_stopping or self._next_at(job.name) > time.monotonic():
                continue
            began = time.monotonic()
            self._due[job.name] = began + job.interval
            run(job, context)
            self._not_before[job.name] = began + (time.monotonic() - began) / job.share

    def _next_at(self, name: str) -> float:
        return max(self._due[name], self._not_before[name])


def run(job: Job, context: Context) -> bool:
    """Run a job once; whether it succeeded. What fails is logged and tried again when it is due.

    Raises psycopg.Error when the connection or the epoch is lost.
    """
    began = time.monotonic()
    try:
        job.run(context)
    except psycopg.Error as error:
        if error.sqlstate == EPOCH_IS_OVER or is_lost(error, context.connection):
            raise
        context.metrics.jobs.labels(job.name, "failed").inc()
        if not isinstance(error, psycopg.errors.QueryCanceled):
            text = f"{error.sqlstate} {error.diag.message_primary}"
            context.log.error("job_failed", job=job.name, error=text)
        return False
    context.metrics.jobs.labels(job.name, "done").inc()
    context.metrics.job_seconds.labels(job.name).inc(time.monotonic() - began)
    return True
