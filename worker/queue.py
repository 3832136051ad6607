"""The queue risk_events: each message is handled and deleted in one transaction, or buried."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from pgrisk.worker.session import EPOCH_IS_OVER, is_lost

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from pgrisk.worker.metrics import Metrics

BATCH = 100
TRIES = 3
"""A message whose handler has raised so often is buried, and its scope trips."""
READS = 5
"""So is one that was read more often than this: its handlers never came to an end."""
MALFORMED = {"RK400", "RK404"}


@dataclass(frozen=True)
class Event:
    """A message on risk_events as it was read."""

    msg_id: int
    read_count: int
    kind: str


class Queue:
    """Reads and handles messages under one epoch.

    `evaluated` is told when each evaluation began, and how many breakers it tripped.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        epoch: int,
        metrics: Metrics,
        log: structlog.stdlib.BoundLogger,
        evaluated: Callable[[float, int], None],
    ) -> None:
        self._connection = connection
        self._poll = connection.cursor()
        self._epoch = epoch
        self._metrics = metrics
        self._log = log
        self._evaluated = evaluated

    def waiting(self) -> tuple[bool, bool, bool]:
        """Whether messages wait, marks have moved, or a halt cancels: asked all the time."""
        row = self._poll.execute(
            "select has_events, has_moves, has_cancels from risk_private.waiting()", prepare=True
        ).fetchone()
        return row or (False, False, False)

    def consume(self, is_stopping: Callable[[], bool]) -> int:
        """Handle a batch of what waits; returns how many were handled. Stops between two messages.

        Raises psycopg.Error when the connection or the epoch is lost: what is not handled then
        comes again, to whoever leads.
        """
        events = self._read()
        worn = [event for event in events if event.read_count > READS]
        for event in worn:
            self._bury(event, f"read {event.read_count} times and never handled", trips=True)
        return self._handle([event for event in events if event not in worn], is_stopping)

    def _read(self) -> list[Event]:
        rows = self._connection.execute(
            "select msg_id, read_count, message from risk_private.read_events(%s, %s)",
            [self._epoch, BATCH],
        ).fetchall()
        return [Event(msg_id, count, _kind(message)) for msg_id, count, message in rows]

    def _handle(self, events: list[Event], is_stopping: Callable[[], bool]) -> int:
        """All at once; where that fails, each half by itself, down to the one that does."""
        if not events or is_stopping():
            return 0
        began = time.monotonic()
        try:
            row = self._connection.execute(
                "select risk_private.handle_events(%s, %s::bigint[])",
                [self._epoch, [event.msg_id for event in events]],
            ).fetchone()
        except psycopg.Error as error:
            if error.sqlstate == EPOCH_IS_OVER or is_lost(error, self._connection):
                raise
            if len(events) == 1:
                self._failed(events[0], error)
                return 0
            middle = len(events) // 2
            return self._handle(events[:middle], is_stopping) + self._handle(
                events[middle:], is_stopping
            )
        self._evaluated(began, row[0] if row else 0)
        for event in events:
            self._metrics.events.labels(event.kind, "handled").inc()
        return len(events)

    def _failed(self, event: Event, error: psycopg.Error) -> None:
        text = f"{error.sqlstate} {error.diag.message_primary or error}"
        if error.sqlstate in MALFORMED:
            self._bury(event, text, trips=False)
        elif event.read_count >= TRIES:
            self._bury(event, text, trips=True)
        else:
            self._metrics.events.labels(event.kind, "raised").inc()
            self._log.warning(
                "event_failed", msg_id=event.msg_id, tries=event.read_count, error=text
            )

    def _bury(self, event: Event, error: str, trips: bool) -> None:
        self._connection.execute(
            "select risk_private.bury_event(%s, %s, %s, %s)",
            [self._epoch, event.msg_id, error, trips],
        )
        self._metrics.events.labels(event.kind, "buried").inc()
        self._log.error("event_buried", msg_id=event.msg_id, error=error, trips=trips)


KINDS = {"breaker", "fill", "indicator", "limit", "marks", "state"}


def _kind(message: object) -> str:
    """For metrics, whose labels must be few whatever is sent."""
    kind = message.get("kind") if isinstance(message, dict) else None
    return kind if isinstance(kind, str) and kind in KINDS else "other"
