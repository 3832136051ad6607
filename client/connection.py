"""A pool of connections whose calls end in time, and are repeated where that is safe."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import psycopg_pool
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from pgrisk.client.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    RiskError,
    Unavailable,
    is_passing,
    translate,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from psycopg.abc import PQGen

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
CANCEL_SECONDS = 0.5


class TimedOut(psycopg.OperationalError):
    """No answer came in time."""


class TimedConnection(psycopg.Connection[DictRow]):
    """A connection on which a statement may take so long and no longer, and then is given up."""

    deadline: float | None = None
    was_warned = False

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        return super().wait(self._until_deadline(gen), *args, **kwargs)

    def _until_deadline(self, gen: PQGen[T]) -> Generator[Any, Any, T]:
        # psycopg resumes the generator at least every tenth of a second, ready or not.
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and self.deadline is not None and time.monotonic() > self.deadline:
                    raise TimedOut("no answer came in time")
                wanted = gen.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result

    @contextmanager
    def limited_to(self, seconds: float) -> Iterator[None]:
        """Ends what runs inside after so many seconds; the connection is of no use after that."""
        self.deadline, self.was_warned = time.monotonic() + seconds, False
        try:
            yield
        except TimedOut:
            self.deadline = None
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_SECONDS)
            self.close()
            raise
        finally:
            self.deadline = None


class Pool:
    """Connections in autocommit mode, for threads to share.

    `ask` makes up to `attempts` attempts of at most `timeout` seconds each, with growing pauses of
    random length between them.
    """

    def __init__(
        self, url: str, *, min_size: int, max_size: int, timeout: float, attempts: int
    ) -> None:
        self.timeout, self.attempts = timeout, attempts
        self._pool: psycopg_pool.ConnectionPool[TimedConnection] = psycopg_pool.ConnectionPool(
            url,
            connection_class=TimedConnection,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "connect_timeout": max(2, round(timeout)),
            },
            configure=_notice_warnings,
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            open=False,
        )

    def open(self) -> None:
        """Start to connect, without waiting for it."""
        self._pool.open()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def ask(
        self, statement: bytes | sql.Composed, arguments: Any, *, changes: bool
    ) -> list[dict[str, Any]]:
        """The rows of a statement that may be repeated: it reads, or repeating it changes nothing.

        Raises a RiskError; OutcomeUnknown only where `changes`.
        """
        last: Exception | None = None
        was_sent = False
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(_pause(attempt))
            try:
                connection = self._pool.getconn()
            except (psycopg_pool.PoolTimeout, psycopg_pool.TooManyRequests) as error:
                last = error
                continue
            except psycopg_pool.PoolClosed as error:
                raise Unavailable("the client is closed") from error
            try:
                with connection.limited_to(self.timeout):
                    cursor = connection.execute(statement, arguments)
                    rows = cursor.fetchall() if cursor.description else []
                if not connection.was_warned:
                    return rows
                last, was_sent = None, True
            except UnicodeError as error:
                raise InvalidRequest(f"text that is not Unicode: {error}") from error
            except psycopg.Error as error:
                if not is_passing(error):
                    raise _definite(error, was_sent and changes) from error
                last, was_sent = error, True
                if connection.closed or error.sqlstate == "25006":
                    # Others of the pool were connected to the same server.
                    connection.close()
                    self._pool.drain()
            finally:
                self._pool.putconn(connection)
        raise self._gave_up(last, was_sent and changes) from last

    def _gave_up(self, last: Exception | None, may_have_happened: bool) -> RiskError:
        state = last.sqlstate if isinstance(last, psycopg.Error) else None
        reason = str(last or "a wait for the standby was cancelled").strip().partition("\n")[0]
        if may_have_happened:
            return OutcomeUnknown(
                f"no answer after {self.attempts} attempts: {reason}",
                sqlstate=state,
                hint="Do not send. Ask again with the same id and the same content.",
            )
        return Unavailable(f"no answer after {self.attempts} attempts: {reason}", sqlstate=state)


def _definite(error: psycopg.Error, may_have_happened: bool) -> RiskError:
    """What to raise for an error that stays.

    After an attempt without an answer, only errors that the first attempt must have met too say
    that nothing has happened.
    """
    known = translate(error)
    if may_have_happened and not isinstance(known, (InvalidRequest, NotFound, Conflict)):
        return OutcomeUnknown(
            f"an earlier attempt got no answer, a later one failed: {known.message}",
            sqlstate=known.sqlstate,
            detail=known.detail,
            hint="Do not send. Ask again with the same id and the same content.",
        )
    return known


def _pause(attempt: int) -> float:
    """Seconds before an attempt: doubling, between half and all of it, so that callers spread."""
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
    return longest * (1 + random.random()) / 2  # noqa: S311


def _notice_warnings(connection: TimedConnection) -> None:
    """PostgreSQL warns, and answers all the same, where a wait for a standby was cancelled.

    The engine raises no warnings itself, so any means: perhaps not durable, ask again.
    """

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            connection.was_warned = True

    connection.add_notice_handler(note)
