"""The leader's lease: taken over in SQL, where its epoch fences off whoever led before."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Sequence


def holder_name() -> str:
    """A name for this worker that no other has."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Lease:
    """One worker's view of the lease; `epoch` is what its effects are called with."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.epoch: int | None = None

    def take(self, connection: psycopg.Connection, backend_pids: Sequence[int]) -> int | None:
        """The epoch to lead with, if nobody leads; None otherwise.

        The connections of a leader that has not renewed in time are terminated.
        """
        try:
            row = connection.execute(
                "select risk_private.take_lease(%s, %s::integer[])",
                [self.holder, list(backend_pids)],
            ).fetchone()
        except psycopg.errors.LockNotAvailable:
            return None
        self.epoch = row[0] if row else None
        return self.epoch

    def keep(
        self, connection: psycopg.Connection, backend_pids: Sequence[int], dozes: bool
    ) -> None:
        """Renew the lease when need be, and tell whether the leader needs to be notified.

        Raises psycopg.Error with SQLSTATE RK409 when another worker leads.
        """
        connection.execute(
            "select risk_private.keep_lease(%s, %s::integer[], %s)",
            [self.epoch, list(backend_pids), dozes],
        )

    def release(self, connection: psycopg.Connection) -> None:
        """Let another worker lead at once."""
        if self.epoch is not None:
            connection.execute("select risk_private.release_lease(%s)", [self.epoch])
        self.epoch = None
