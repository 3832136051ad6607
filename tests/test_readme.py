"""The README is short, and what it shows works as written."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.databases import Database

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def connection(db: Database) -> Iterator[psycopg.Connection]:
    """To a database where the README's SQL has run."""
    with db.connect() as connection:
        for statement in "".join(blocks("sql")).split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())
        yield connection


def run_python(driver: str, url: str) -> dict[str, Any]:
    """The names after running the block that imports that driver, with `url` given."""
    (source,) = [block for block in blocks("python") if f"import {driver}" in block]
    names: dict[str, Any] = {"url": url}
    exec(compile(source, f"README.md ({driver})", "exec"), names)
    return names


def decision_on(connection: psycopg.Connection, client_order_id: str) -> tuple[Any, ...] | None:
    return connection.execute(
        "select decision, reason, allowed_quantity from risk.decisions where client_order_id = %s",
        [client_order_id],
    ).fetchone()


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_its_sql_decides_as_shown(connection: psycopg.Connection) -> None:
    expected = ("REJECTED", "RISK_LIMIT_EXCEEDED", Decimal(266))
    assert decision_on(connection, "A1-1") == expected
    assert " REJECTED | RISK_LIMIT_EXCEEDED |              266 |" in README


def test_psycopg_as_written(db: Database, connection: psycopg.Connection) -> None:
    names = run_python("psycopg", db.url)
    assert (names["decision"], names["reason"], names["allowed"]) == ("ACCEPTED", None, 200)
    assert decision_on(connection, "A1-2") == ("ACCEPTED", None, Decimal(200))


def test_the_client_as_written(db: Database, connection: psycopg.Connection) -> None:
    assert run_python("RiskClient", db.url)["may_send"] is True
    assert decision_on(connection, "A1-5") == ("ACCEPTED", None, Decimal(5))


def test_asyncpg_as_written(db: Database, connection: psycopg.Connection) -> None:
    order = ["A1", "A1-3", "AAPL", "buy", 200, Decimal("187.40")]
    answer = asyncio.run(run_python("asyncpg", db.url)["check"](db.url, order))
    assert answer["decision"] == "ACCEPTED"
    assert decision_on(connection, "A1-3") == ("ACCEPTED", None, Decimal(200))


def test_sqlalchemy_as_written(db: Database, connection: psycopg.Connection) -> None:
    names = run_python("sqlalchemy", db.url)
    names["engine"].dispose()
    assert names["decision"] == "ACCEPTED"
    assert decision_on(connection, "A1-4") == ("ACCEPTED", None, Decimal(100))
