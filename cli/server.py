"""`pgrisk up`, `down` and `status`: the embedded server."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click
import psycopg
from psycopg import sql

from pgrisk import migrations
from pgrisk.client import embedded
from pgrisk.client.settings import DATABASE, database_url, default_data_dir, real_server_url

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_data_dir,
    show_default="pgrisk in the XDG data directory",
    help="Directory of the embedded server.",
)


@click.command()
@data_dir_option
@click.option(
    "--port",
    type=click.IntRange(1024, 65535),
    help="TCP port on 127.0.0.1.  [default: the one used before, else a free one]",
)
def up(data_dir: Path, port: int | None) -> None:
    """Start the server, migrate its database and print the URL.

    Finds the server when it runs already. The URL is the only output, and it contains the password:

    \b
      psql "$(pgrisk up)"
      pgrisk up --data-dir /srv/pgrisk --port 6432

    With PGRISK_DATABASE_URL set, that database is migrated and its URL printed instead.
    """
    url = real_server_url() or start_database(data_dir, port)
    migrations.upgrade(url)
    click.echo(url)


@click.command()
@data_dir_option
def down(data_dir: Path) -> None:
    """Stop the embedded server; its data stay.

    \b
      pgrisk down
      pgrisk down --data-dir /srv/pgrisk
    """
    server = embedded.find(data_dir)
    if server is None:
        click.echo(f"no server runs in {data_dir}", err=True)
        return
    server.stop()
    click.echo(f"stopped the server in {data_dir}", err=True)


@click.command()
@data_dir_option
def status(data_dir: Path) -> None:
    """Show where the database is and which revision it has.

    Exit code 1 when no embedded server runs, 5 when the database cannot be reached.

    \b
      pgrisk status
      pgrisk status --data-dir /srv/pgrisk
    """
    with psycopg.connect(database_url(data_dir), autocommit=True) as connection:
        info = connection.info
        version = info.parameter_status("server_version")
        revision = migrations.current(connection) or "none"
        note = "up to date" if revision == migrations.head() else "run `pgrisk db migrate`"
        click.echo(f"server     PostgreSQL {version} at {info.host}:{info.port}")
        click.echo(f"database   {info.dbname}")
        click.echo(f"revision   {revision} ({note})")
    if not real_server_url():
        click.echo(f"directory  {data_dir.resolve()}")


def start_database(data_dir: Path, port: int | None = None) -> str:
    """Start or find the embedded server, make the engine's database there, and return its URL."""
    server = embedded.start(data_dir, port)
    new = sql.SQL("create database {} template template0").format(sql.Identifier(DATABASE))
    # It may have been made before, or by another `pgrisk up` at this moment.
    with (
        suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation),
        psycopg.connect(server.url(), autocommit=True) as connection,
    ):
        connection.execute(new)
    return server.url(DATABASE)
