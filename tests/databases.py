"""Databases for tests: one server per test process, one template, a fresh copy for each test."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from pgrisk.sql import load

if TYPE_CHECKING:
    from datetime import datetime

    from pgrisk.client.embedded import Server

TEST_MAJOR = int(os.environ.get("PGRISK_TEST_POSTGRES", "18"))
FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
}
TEMPLATE = "pgrisk_template"

# Called inside views by analysts, who have no rights on the table: hence security definer.
FAKE_CLOCK = """
set role risk_owner;
create table risk_private.fake_clock (at timestamptz not null);
create or replace function risk_private.clock() returns timestamptz
language sql volatile security definer set search_path = ''
as 'select coalesce((select at from risk_private.fake_clock), pg_catalog.clock_timestamp())';
reset role;
"""

_numbers = itertools.count(1)


@dataclass
class Database:
    """One database that a test has for itself."""

    server: Server
    name: str
    _users: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The URL for the superuser."""
        return self.server.url(self.name)

    def url_for(self, user: str) -> str:
        """The URL for a login that `create_user` made."""
        return (
            f"postgresql://{quote(user)}:{self.server.password}"
            f"@127.0.0.1:{self.server.port}/{self.name}"
        )

    def connect(
        self, user: str | None = None, autocommit: bool = True, **options: Any
    ) -> psycopg.Connection:
        """A new connection as the superuser, or as a login that `create_user` made."""
        url = self.url_for(user) if user else self.url
        return psycopg.connect(url, autocommit=autocommit, **options)

    def create_user(self, user: str, *roles: str) -> str:
        """Make a login that is a member of `roles`; it lives as long as the database."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("create role {} login password {}").format(
                    sql.Identifier(user), self.server.password
                )
            )
            self._users.append(user)
            for role in roles:
                connection.execute(
                    sql.SQL("grant {} to {}").format(sql.Identifier(role), sql.Identifier(user))
                )
        return user

    def set_clock(self, at: datetime | None) -> None:
        """Stop the engine's clock at this moment; None lets it run again."""
        with self.connect() as connection, connection.transaction():
            connection.execute("delete from risk_private.fake_clock")
            if at is not None:
                connection.execute("insert into risk_private.fake_clock values (%s)", [at])

    def drop(self) -> None:
        """Drop the database, whoever is connected to it, and the logins made for it."""
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("drop database {} with (force)").format(sql.Identifier(self.name))
            )
            for user in self._users:
                connection.execute(sql.SQL("drop role {}").format(sql.Identifier(user)))


def create_database(server: Server, template: str = "template0") -> Database:
    """A new database, empty or a copy of `template`."""
    database = Database(server, f"test_{next(_numbers)}")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(database.name), sql.Identifier(template)
            )
        )
    return database


def create_template(server: Server) -> str:
    """The engine with a clock that tests can set, to be copied by `create_database`."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
    with psycopg.connect(server.url(TEMPLATE), autocommit=True) as connection:
        load(connection)
        connection.execute(FAKE_CLOCK)
    return TEMPLATE
