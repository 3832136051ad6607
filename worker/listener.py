"""The connection that is notified of rare events; losing it costs milliseconds, never an event."""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from pgrisk.worker.session import connect

if TYPE_CHECKING:
    import structlog

CHANNEL = "pgrisk_events"
PROBE_SECONDS = 5.0
"""How often the listener is notified by its own worker, to see that it still hears."""
ANSWER_SECONDS = 2.0
"""How late the answer to that may be before the listener is replaced."""
RETRY_SECONDS = 1.0


class Listener:
    """Waits for notifications, and replaces its connection when that is lost or has gone deaf.

    It never waits for an answer of its server process, so a stalled one holds nobody up.
    """

    def __init__(self, url: str, log: structlog.stdlib.BoundLogger) -> None:
        self._url = url
        self._log = log
        self._connection: psycopg.Connection | None = None
        self._probed_at = 0.0
        self._heard_at = 0.0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that was not found deaf."""
        return self._connection is not None

    @property
    def backend_pids(self) -> list[int]:
        """The server process of its connection, when there is one."""
        return [self._connection.info.backend_pid] if self._connection else []

    def wait(self, seconds: float) -> bool:
        """Whether a notification came within that time."""
        if self._connection is None:
            time.sleep(seconds)
            return False
        readable, _, _ = select.select([self._connection.fileno()], [], [], seconds)
        return bool(readable) and self._receive()

    def probe(self, main: psycopg.Connection) -> None:
        """Now and then notify the listener over another connection; reopen it when need be."""
        now = time.monotonic()
        if self._connection is None:
            if now >= self._retry_at:
                self._open(now)
        elif self._probed_at > self._heard_at:
            if now > self._probed_at + ANSWER_SECONDS:
                self._drop("deaf")
        elif now > self._probed_at + PROBE_SECONDS:
            self._probed_at = now
            main.execute("select pg_catalog.pg_notify(%s, 'probe')", [CHANNEL])

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self, now: float) -> None:
        self._retry_at = now + RETRY_SECONDS
        with suppress(psycopg.Error):
            connection = connect(self._url)
            connection.execute(f"listen {CHANNEL}".encode())
            self._connection = connection
            self._probed_at = self._heard_at = now

    def _receive(self) -> bool:
        if self._connection is None:
            return False
        pgconn = self._connection.pgconn
        try:
            pgconn.consume_input()
        except psycopg.Error:
            self._drop("lost")
            return False
        count = 0
        while pgconn.notifies():
            count += 1
        if count:
            self._heard_at = time.monotonic()
        return count > 0

    def _drop(self, why: str) -> None:
        self._log.warning("listener_replaced", why=why)
        self.close()
