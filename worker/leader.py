"""What the leader does under one epoch, until it is stopped or loses the lease or connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg

from pgrisk.worker.background import Background, run
from pgrisk.worker.jobs import BACKGROUND, Context
from pgrisk.worker.queue import Queue
from pgrisk.worker.session import EPOCH_IS_OVER, is_lost

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from pgrisk.worker.health import Status
    from pgrisk.worker.lease import Lease
    from pgrisk.worker.listener import Listener
    from pgrisk.worker.metrics import Metrics

POLL_SECONDS = 0.025
"""How often it looks for messages."""
DOZE_SECONDS = 1.0
"""When none has come for so long, it dozes: a notification, or the next sweep, wakes it."""
LEASE_SECONDS = 0.3
"""How often it sees to its lease."""
MOVES_SECONDS = 0.1
"""How often it lets positions follow marks that go on moving."""
CANCELS_SECONDS = 0.5
"""How often it looks for open orders to cancel, as long as a halt cancels them."""
SWEEP_SECONDS = 0.25
"""How often it evaluates all breakers, whether or not messages came."""
MOST_BATCHES = 100
"""How many batches of messages there can be when nothing has been handled for long."""
REST, URGENT_REST = 3, 1
"""After an evaluation, messages wait so many times as long as it took, and those that notify less:
they must not fill a CPU."""


class Leader:
    """Consumes events, evaluates all breakers, and gives the heartbeat."""

    def __init__(
        self,
        main: psycopg.Connection,
        epoch: int,
        metrics: Metrics,
        status: Status,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._main = main
        self._epoch = epoch
        self._metrics = metrics
        self._status = status
        self._log = log
        self._background: list[Background] = []
        self._queue = Queue(main, epoch, metrics, log, self._evaluated)
        self._lease_at = 0.0
        self._moves_at = self._cancels_at = 0.0
        self._sweep_at = 0.0
        self._events_at = self._urgent_at = 0.0
        self._busy_until = time.monotonic() + DOZE_SECONDS
        self._dozes = False
        self._failing: set[str] = set()

    def work_once(self, is_stopping: Callable[[], bool]) -> bool:
        """Everything that is due, once; whether all of it succeeded."""
        context = Context(self._main, self._epoch, self._log, self._metrics, self._evaluate_soon)
        for _ in range(MOST_BATCHES):
            if not self._queue.consume(is_stopping):
                break
        done = [run(job, context) for jobs in BACKGROUND for job in jobs]
        self._evaluate()
        return all(done)

    def lead(
        self, url: str, lease: Lease, listener: Listener, is_stopping: Callable[[], bool]
    ) -> None:
        """Work until stopped.

        Raises psycopg.Error when the connection or the epoch is lost.
        """
        self._background = [
            Background(url, self._epoch, jobs, self._metrics, self._log, self._evaluate_soon)
            for jobs in BACKGROUND
        ]
        try:
            for background in self._background:
                background.start()
            while not is_stopping():
                self._turn(lease, listener, is_stopping)
        finally:
            for background in self._background:
                background.stop()

    def _turn(self, lease: Lease, listener: Listener, is_stopping: Callable[[], bool]) -> None:
        now = time.monotonic()
        self._keep_lease(now, lease, listener)
        has_events, has_moves, has_cancels = self._queue.waiting()
        if has_events or has_moves:
            self._busy_until = now + DOZE_SECONDS
        if has_moves and now >= self._moves_at:
            self._moves_at = now + MOVES_SECONDS
            self._wake("revaluation")
        if has_cancels and now >= self._cancels_at:
            self._cancels_at = now + CANCELS_SECONDS
            self._wake("cancels")
        if has_events and now >= self._events_at:
            self._attempt("events", lambda: self._queue.consume(is_stopping))
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._attempt("evaluation", self._evaluate)
        listener.probe(self._main)
        self._status.hears = listener.is_open
        now = self._status.turned_at = time.monotonic()
        due = self._sweep_at
        if not self._dozes or now < self._busy_until:
            due = min(due, now + POLL_SECONDS)
        if self._events_at > now:
            due = min(due, self._events_at)
        if listener.wait(max(0.0, due - now)):
            self._events_at = min(self._events_at, self._urgent_at)

    def _keep_lease(self, now: float, lease: Lease, listener: Listener) -> None:
        """See to the lease when it is due, or when the leader begins or ends to doze."""
        dozes = listener.is_open and now >= self._busy_until
        if now < self._lease_at and dozes == self._dozes:
            return
        self._lease_at = now + LEASE_SECONDS
        pids = [self._main.info.backend_pid, *listener.backend_pids]
        for background in self._background:
            pids += background.backend_pids
        lease.keep(self._main, pids, dozes)
        self._dozes = dozes

    def _attempt(self, what: str, act: Callable[[], object]) -> None:
        """What fails is tried again when it is due, and logged when it begins to fail."""
        try:
            act()
        except psycopg.Error as error:
            if error.sqlstate == EPOCH_IS_OVER or is_lost(error, self._main):
                raise
            if what not in self._failing:
                text = f"{error.sqlstate} {error.diag.message_primary}"
                self._log.error("failing", what=what, error=text)
            self._failing.add(what)
            self._events_at = self._urgent_at = time.monotonic() + SWEEP_SECONDS
        else:
            self._failing.discard(what)

    def _evaluate(self) -> None:
        began = time.monotonic()
        row = self._main.execute("select risk_private.evaluate(%s)", [self._epoch]).fetchone()
        self._evaluated(began, row[0] if row else 0)

    def _evaluated(self, began: float, tripped: int) -> None:
        """Everything has been evaluated just now, for a message or by a sweep."""
        now = self._status.evaluated_at = time.monotonic()
        self._sweep_at = began + SWEEP_SECONDS
        self._events_at = now + REST * (now - began)
        self._urgent_at = now + URGENT_REST * (now - began)
        self._metrics.evaluations.inc()
        self._metrics.evaluation_seconds.observe(now - began)
        self._metrics.last_evaluation.set_to_current_time()
        if tripped:
            self._metrics.trips.inc(tripped)
            self._log.error("breakers_tripped", count=tripped, epoch=self._epoch)
            self._wake("cancels")

    def _evaluate_soon(self) -> None:
        self._sweep_at = min(self._sweep_at, self._events_at)

    def _wake(self, name: str) -> None:
        for background in self._background:
            background.wake(name)
