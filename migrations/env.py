"""Runs the revisions on one database, in one transaction, one migrator at a time."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, cast

import psycopg
from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from pgrisk.migrations import LOCK, MigrationError, catalog, current

if TYPE_CHECKING:
    from sqlalchemy import Connection

SCHEMA = "risk_private"


def run() -> None:
    """Bring the database to the revision that was asked for, and record what it then holds."""
    if context.is_offline_mode():
        raise MigrationError("revisions ask the database what it has: there is no offline mode")
    url = context.config.attributes.get("url") or os.environ.get("PGRISK_DATABASE_URL")
    if not url:
        raise MigrationError("set PGRISK_DATABASE_URL to the URL of the database to migrate")
    # The driver reads the URL itself, so that it means here what it means everywhere else.
    engine = create_engine(
        "postgresql+psycopg://", creator=partial(psycopg.connect, url), poolclass=NullPool
    )
    with engine.connect() as connection, connection.begin():
        migrate(connection)


def migrate(connection: Connection) -> None:
    """Run the revisions inside the transaction that is open."""
    connection.exec_driver_sql("set local search_path = public")
    connection.exec_driver_sql(f"select pg_advisory_xact_lock({LOCK})")
    # The roles that a migrator without superuser rights makes are its own to act as.
    connection.exec_driver_sql("set local createrole_self_grant = 'set, inherit'")
    # Orders must not queue for long behind a revision that waits for a table.
    connection.exec_driver_sql("set local lock_timeout = '10s'")
    driver = cast("psycopg.Connection", connection.connection.driver_connection)
    before = current(driver)
    # The first revision makes the schema that the version table is to live in.
    schema = SCHEMA if before else None
    context.configure(connection=connection, version_table_schema=schema)
    context.run_migrations()
    if before is None:
        connection.exec_driver_sql(f"alter table alembic_version set schema {SCHEMA}")
    if current(driver) != before:
        catalog.record(driver)


run()
