"""`pgrisk db`: the schema of the engine's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import psycopg
from psycopg.rows import dict_row

from pgrisk import migrations
from pgrisk.cli.server import data_dir_option
from pgrisk.client.settings import database_url
from pgrisk.migrations import catalog

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def db() -> None:
    """Migrate the database, and check that it is sound.

    The database is the embedded server's, or PGRISK_DATABASE_URL.
    """


@db.command()
@data_dir_option
def migrate(data_dir: Path) -> None:
    """Bring the schema up to date, in one transaction.

    Safe at any time and from several places at once.

    \b
      pgrisk db migrate
      PGRISK_DATABASE_URL=postgresql://admin@db.example/risk pgrisk db migrate
    """
    url = database_url(data_dir)
    migrations.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        click.echo(f"the schema is at {migrations.current(connection)}")


@db.command()
@data_dir_option
def status(data_dir: Path) -> None:
    """Show the revision of the database and the one this version needs.

    Exit code 1 when they differ.

    \b
      pgrisk db status
    """
    with psycopg.connect(database_url(data_dir), autocommit=True) as connection:
        present = migrations.current(connection)
    click.echo(f"database  {present or 'none'}")
    click.echo(f"needed    {migrations.head()}")
    if present != migrations.head():
        raise click.exceptions.Exit(1)


@db.command()
@data_dir_option
def check(data_dir: Path) -> None:
    """Check that the schema is this version's, unchanged by hand, and that the counters are right.

    Prints one line for each thing found and exits with code 1; prints `ok` when nothing is.

    \b
      pgrisk db check
    """
    with psycopg.connect(database_url(data_dir), autocommit=True) as connection:
        found = problems(connection)
    for line in found or ["ok"]:
        click.echo(line)
    if found:
        raise click.exceptions.Exit(1)


def problems(connection: psycopg.Connection) -> list[str]:
    """What is wrong with the database, one sentence each."""
    present, needed = migrations.current(connection), migrations.head()
    if present != needed:
        return [f"the schema is at {present or 'no revision'}, not {needed}: pgrisk db migrate"]
    found = catalog.drift(connection)
    with connection.cursor(row_factory=dict_row) as cursor:
        for difference in cursor.execute("select * from risk.verify_counters()"):
            values = ", ".join(f"{name} {value}" for name, value in difference.items())
            found.append(f"a counter is wrong: {values}")
    return found
