"""A database made from sql/ and one brought to the newest revision are the same database."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from pgrisk.client import embedded
from pgrisk.sql import load
from tests.databases import TEST_MAJOR

if TYPE_CHECKING:
    from tests.databases import Database


def dump(database: Database) -> list[str]:
    """Structure and contents, less what is random and what only migrations keep."""
    answer = subprocess.run(
        [
            embedded.find_binaries(TEST_MAJOR) / "pg_dump",
            "--inserts",
            "--exclude-table=risk_private.alembic_version",
            "--exclude-table=risk_private.recorded_objects",
            database.url,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+\d\d", "MOMENT", answer.stdout)
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "SECRET", text)
    return [
        line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    ]


@pytest.fixture
def loaded_db(empty_db: Database) -> Database:
    with empty_db.connect() as connection:
        load(connection)
    return empty_db


def test_sql_and_migrations_make_the_same_database(
    loaded_db: Database, migrated_db: Database
) -> None:
    from_sql, from_migrations = dump(loaded_db), dump(migrated_db)
    assert from_migrations == from_sql, "sql/ was changed: write a revision, or `make freeze`"


def test_the_comparison_sees_owners_grants_comments_and_contents(loaded_db: Database) -> None:
    text = "\n".join(dump(loaded_db))
    for pattern in (
        r"^ALTER \w+ risk\.\w+\(.* OWNER TO risk_owner;$",
        r"^GRANT ALL ON \w+ risk\.\w+\(.* TO risk_trader;$",
        r"^REVOKE ALL ON \w+ risk\.\w+\(.* FROM PUBLIC;$",
        r"^COMMENT ON \w+ risk\.\w+",
        r"^INSERT INTO risk_private\.",
    ):
        assert re.search(pattern, text, re.MULTILINE), pattern


@pytest.mark.parametrize(
    "change",
    [
        "revoke all on schema risk from public, risk_trader",
        "comment on schema risk is 'another'",
        "alter table risk_private.orders add column note text",
        "alter function risk_private.clock() security definer",
        "delete from risk_private.limit_types where limit_type = 'order_quantity'",
    ],
)
def test_the_comparison_sees_a_single_change(loaded_db: Database, change: str) -> None:
    before = dump(loaded_db)
    with loaded_db.connect() as connection:
        connection.execute(change.encode())
    assert dump(loaded_db) != before
