"""The `pgrisk` command: what it offers, and what its failures look like."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click
import psycopg

from pgrisk.client.embedded import EmbeddedServerError
from pgrisk.client.settings import SettingsError
from pgrisk.migrations import MigrationError

_COMMANDS = {
    "up": "pgrisk.cli.server",
    "down": "pgrisk.cli.server",
    "status": "pgrisk.cli.server",
    "db": "pgrisk.cli.db",
    "cache": "pgrisk.cli.cache",
    "worker": "pgrisk.cli.worker",
    "demo": "pgrisk.cli.demo",
}


class Commands(click.Group):
    """Imports a command when it is used, and turns expected errors into one line and a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[cmd_name]), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (EmbeddedServerError, MigrationError, SettingsError) as error:
            raise click.ClickException(str(error)) from error
        except psycopg.Error as error:
            # A failed connection has no result, hence no SQLSTATE, or one of these classes.
            lost = isinstance(error, psycopg.OperationalError) and (
                not error.sqlstate or error.sqlstate[:2] in {"08", "28", "3D", "57"}
            )
            raise (Unreachable if lost else click.ClickException)(_explain(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pgrisk", message="%(prog)s %(version)s")
def main() -> None:
    """Pre-trade risk engine in PostgreSQL.

    Commands work on the embedded server that `pgrisk up` starts.

    \b
    Environment:
      PGRISK_DATABASE_URL  a database on a real server, to be used instead
      PGRISK_REDIS_URL     a Redis or Valkey to cache limits in for reading;
                           without it they are read from the database
      PGRISK_PG_BIN        the bin folder of another PostgreSQL (16 or later)
                           for the embedded server

    \b
    Exit codes:
      0  done; for a check: nothing is wrong
      1  refused, failed, or a check found something
      2  wrong usage
      5  the database cannot be reached
      6  another worker leads (worker run --once)
    """


class Unreachable(click.ClickException):
    """The database cannot be reached."""

    exit_code = 5


def _explain(error: psycopg.Error) -> str:
    message = error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__
    return f"{message} ({error.diag.message_hint})" if error.diag.message_hint else message
