"""One connection to the engine: statements, rows and errors, in the oracle's terms."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from tests.model import RiskError

if TYPE_CHECKING:
    from collections.abc import Iterator

Row = dict[str, Any]


@contextmanager
def errors_as_the_oracle_raises_them() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith("RK"):
            raise
        raise RiskError(str(error.sqlstate), str(error)) from error


class Calls:
    """One connection to the engine; every call is one statement in autocommit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.cursor = connection.cursor(row_factory=dict_row)

    def _call(self, statement: str, *arguments: object) -> Row:
        with errors_as_the_oracle_raises_them():
            self.cursor.execute(statement, arguments, prepare=True)
        return self.cursor.fetchone() or {} if self.cursor.description else {}

    def _rows(self, statement: str, *arguments: object) -> list[Row]:
        with errors_as_the_oracle_raises_them():
            return self.cursor.execute(statement, arguments, prepare=True).fetchall()

    def _tuples(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        connection = self.cursor.connection
        return connection.execute(statement, arguments, prepare=True).fetchall()
