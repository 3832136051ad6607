"""Hears of changes of limits as they are committed, and knows whether it would."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import dict_row

from pgrisk.client.connection import TimedConnection

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 0.5
"""How often the version is read although nothing was heard, in case a message was lost."""
DEAF_SECONDS = 3.0
"""Without any word from the database for so long, it no longer counts as listening."""

log = logging.getLogger(__name__)


class ChangeListener(threading.Thread):
    """A thread with a connection of its own.

    `version` is that of the newest change it knows of; `signing_key` the role's, once known.
    `heard` is called with every new version, `rested` after every look.
    """

    def __init__(
        self, url: str, heard: Callable[[int, str], None], rested: Callable[[str], None]
    ) -> None:
        super().__init__(name="pgrisk-limit-changes", daemon=True)
        self._url, self._heard, self._rested = url, heard, rested
        self._stop_asked = threading.Event()
        self.version = 0
        self._last_word = float("-inf")

    @property
    def is_live(self) -> bool:
        """Whether a change committed some seconds ago would be known by now."""
        return time.monotonic() - self._last_word < DEAF_SECONDS

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stop_asked.set()
        self.join()

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                with TimedConnection.connect(
                    self._url, autocommit=True, connect_timeout=2, row_factory=dict_row
                ) as connection:
                    self._listen(connection)
            except psycopg.Error as error:
                log.warning("not listening for changes of limits: %s", str(error).strip())
                self._stop_asked.wait(LOOK_SECONDS)

    def _listen(self, connection: TimedConnection) -> None:
        with connection.limited_to(DEAF_SECONDS):
            connection.execute("listen risk_limits")
        who = f"{connection.info.user}@{connection.info.dbname}"
        is_first = True
        while not self._stop_asked.is_set():
            asked_at = time.monotonic()
            with connection.limited_to(DEAF_SECONDS):
                (row,) = connection.execute("select * from risk.limit_cache()").fetchall()
            # A database restored from a backup, or failed over, starts again from what it knows.
            if is_first or row["version"] > self.version:
                self.version = row["version"]
                self._heard(row["version"], row["signing_key"])
            is_first = False
            self._last_word = asked_at
            self._rested(who)
            # Whoever may connect may notify: what is told is only a reason to look.
            for _ in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                pass
