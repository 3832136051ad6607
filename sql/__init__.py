"""The engine's SQL: the current truth, one file per subject, loaded in name order."""

from __future__ import annotations

from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg


def sources() -> dict[str, str]:
    """The engine's SQL files in the order in which they must run: name to text."""
    found = [entry for entry in files("pgrisk.sql").iterdir() if entry.name.endswith(".sql")]
    return {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in sorted(found, key=lambda entry: entry.name)
    }


def load(connection: psycopg.Connection) -> None:
    """Install pgmq where it is absent, then the engine, in one transaction.

    The database must not hold the engine yet. `load` records no revision: a database that is to be
    upgraded later is made by `pgrisk.migrations.upgrade` instead.

    Raises psycopg.Error, with a note that names the file, when a statement fails; nothing is left
    behind then.
    """
    with connection.transaction():
        install_pgmq(connection)
        for name, text in sources().items():
            try:
                connection.execute(text.encode())
            except Exception as error:
                error.add_note(f"while running sql/{name}")
                raise
        connection.execute("reset role")


def install_pgmq(connection: psycopg.Connection) -> None:
    """Install pgmq in the connection's database unless the schema `pgmq` exists.

    The extension is preferred, because `alter extension` can upgrade it; where the server does not
    offer it, the SQL packaged with the `pgmq` client is run.
    """
    if _is_true(connection, "select to_regnamespace('pgmq') is not null"):
        return
    if _is_true(
        connection, "select exists (select from pg_available_extensions where name = 'pgmq')"
    ):
        connection.execute("create extension pgmq")
    else:
        # Located by metadata: importing the client would take most of a second.
        packaged = distribution("pgmq").locate_file("pgmq/sql/pgmq.sql")
        connection.execute(Path(str(packaged)).read_bytes())


def _is_true(connection: psycopg.Connection, question: str) -> bool:
    return connection.execute(question.encode()).fetchone() == (True,)
