"""The worker: leads or stands by, consumes events, evaluates breakers, gives the heartbeat."""

from __future__ import annotations

import time
from threading import Event

import psycopg

from pgrisk.worker.health import Status
from pgrisk.worker.leader import Leader
from pgrisk.worker.lease import Lease, holder_name
from pgrisk.worker.listener import Listener
from pgrisk.worker.log import create_log
from pgrisk.worker.metrics import Metrics
from pgrisk.worker.session import EPOCH_IS_OVER, Backoff, connect

STAND_BY_SECONDS = 0.25
"""How often a stand-by looks at the lease."""


class NotLeadingError(Exception):
    """Another worker leads, so a single run has nothing to do."""


class Worker:
    """One worker. Several may run against one database; one of them leads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = Event()
        self.metrics = Metrics()
        self.status = Status(turned_at=time.monotonic())
        self._lease = Lease(holder_name())
        self.log = create_log(self._lease.holder)

    def stop(self) -> None:
        """Finish the message in hand and return; safe to call from a signal handler."""
        self._stop.set()

    def run_once(self) -> bool:
        """Take the lease, do everything that is due once, and give it back; whether all succeeded.

        Raises NotLeadingError when another worker leads, psycopg.Error when the connection fails.
        """
        with connect(self._url, statement_timeout="60s") as main:
            epoch = self._lease.take(main, [main.info.backend_pid])
            if epoch is None:
                raise NotLeadingError("another worker leads")
            try:
                leader = Leader(main, epoch, self.metrics, self.status, self.log)
                return leader.work_once(self._stop.is_set)
            finally:
                self._release(main)

    def run_forever(self) -> None:
        """Serve until stop() is called, connecting again for ever when the connection is lost."""
        self.log.info("started")
        backoff = Backoff()
        while not self._stop.is_set():
            self.status.turned_at = time.monotonic()
            try:
                with connect(self._url) as main:
                    self._connected(True)
                    self._serve(main, backoff)
            except psycopg.Error as error:
                self.metrics.reconnects.inc()
                text = f"{error.sqlstate or ''} {error.diag.message_primary or error}".strip()
                self.log.warning("connection_lost", error=text)
            finally:
                self._connected(False)
            self._stop.wait(backoff.seconds())
        self.log.info("stopped")

    def _serve(self, main: psycopg.Connection, backoff: Backoff) -> None:
        """Stand by or lead on one connection, until stop() is called or it fails."""
        listener = Listener(self._url, self.log)
        try:
            while not self._stop.is_set():
                self.status.turned_at = time.monotonic()
                epoch = self._lease.take(main, [main.info.backend_pid])
                backoff.reset()
                if epoch is None:
                    self._stop.wait(STAND_BY_SECONDS)
                else:
                    self._lead(main, epoch, listener)
        finally:
            listener.close()

    def _lead(self, main: psycopg.Connection, epoch: int, listener: Listener) -> None:
        self._leading(epoch)
        leader = Leader(main, epoch, self.metrics, self.status, self.log)
        try:
            leader.lead(self._url, self._lease, listener, self._stop.is_set)
        except psycopg.Error as error:
            if error.sqlstate != EPOCH_IS_OVER:
                raise
            self.log.warning("deposed", epoch=epoch)
        finally:
            self._leading(None)
            self._release(main)

    def _release(self, main: psycopg.Connection) -> None:
        if not main.closed and not main.broken:
            self._lease.release(main)

    def _connected(self, is_connected: bool) -> None:
        self.status.is_connected = is_connected
        self.metrics.connected.set(is_connected)

    def _leading(self, epoch: int | None) -> None:
        self.status.epoch = epoch
        self.status.evaluated_at = time.monotonic()
        self.metrics.leader.set(epoch is not None)
        if epoch is not None:
            self.metrics.epoch.set(epoch)
            self.log.info("leading", epoch=epoch)
