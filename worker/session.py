"""Connections of a worker, and what their failures mean."""

from __future__ import annotations

import random

import psycopg

APPLICATION = "pgrisk-worker"
"""The application_name of every connection of a worker: what a successor may terminate."""

EPOCH_IS_OVER = "RK409"
"""The SQLSTATE of every function that is called with an epoch that is over."""

_SETTINGS = {
    "default_transaction_isolation": "read committed",
    "statement_timeout": "5s",
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "5s",
}


def connect(url: str, **settings: str) -> psycopg.Connection:
    """A connection in autocommit, with such settings, that notices a dead network within seconds.

    Raises psycopg.OperationalError when the server cannot be reached.
    """
    connection = psycopg.connect(
        url,
        autocommit=True,
        application_name=APPLICATION,
        connect_timeout=5,
        keepalives_idle=5,
        keepalives_interval=1,
        keepalives_count=3,
        tcp_user_timeout=8000,
    )
    for name, value in {**_SETTINGS, **settings}.items():
        connection.execute("select pg_catalog.set_config(%s, %s, false)", [name, value])
    return connection


def is_lost(error: psycopg.Error, connection: psycopg.Connection) -> bool:
    """Whether the connection, and not the statement, is what failed."""
    return connection.broken or connection.closed or not error.sqlstate


class Backoff:
    """Waits between attempts: doubling from a twentieth of a second to one, less up to a half."""

    def __init__(self) -> None:
        self._next = 0.05

    def reset(self) -> None:
        """After a success, begin again with the shortest wait."""
        self._next = 0.05

    def seconds(self) -> float:
        """How long to wait before the next attempt."""
        seconds, self._next = self._next, min(1.0, self._next * 2)
        return seconds * random.uniform(0.5, 1)  # noqa: S311
