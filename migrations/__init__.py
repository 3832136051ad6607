"""The engine's schema, revision by revision: upgrade a database and see where it stands."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

if TYPE_CHECKING:
    import psycopg
    from alembic.config import Config


LOCK = 0x706772697368
"""The advisory lock that a migrator holds on its database; nobody else is likely to use it."""


class MigrationError(Exception):
    """A migration cannot be done; the message says why and what to do."""


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` to `revision`, in one transaction.

    Safe to run at any time and from many places at once: the first does the work, the others wait
    for it and find nothing to do.

    Raises MigrationError when the database has a revision this version does not know, and
    psycopg.Error when it cannot be reached or a statement fails; nothing changes then.
    """
    from alembic import command
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    try:
        command.upgrade(_config(url), revision)
    except CommandError as error:
        raise MigrationError(f"{error}: is a newer pgrisk in use here?") from error
    except DBAPIError as error:
        raise (error.orig or error) from error


def head() -> str:
    """The newest revision that this version knows."""
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory.from_config(_config()).get_current_head())


def current(connection: psycopg.Connection) -> str | None:
    """The revision of the connected database; None when `upgrade` never ran on it.

    Raises psycopg.errors.InsufficientPrivilege for a login that is not a member of risk_owner.
    """
    exists = connection.execute(
        "select pg_catalog.to_regclass('risk_private.alembic_version') is not null"
    ).fetchone()
    if exists != (True,):
        return None
    row = connection.execute("select version_num from risk_private.alembic_version").fetchone()
    return str(row[0]) if row else None


def run_frozen_sql(revision: str) -> None:
    """For a revision's `upgrade`: run the SQL frozen beside it, pgmq being there first."""
    from alembic import op

    from pgrisk.sql import install_pgmq

    frozen = (files("pgrisk.migrations") / "versions" / f"{revision}.sql").read_bytes()
    # The driver's own connection takes many statements at once and leaves % and : alone.
    connection = cast("psycopg.Connection", op.get_bind().connection.driver_connection)
    install_pgmq(connection)
    connection.execute(frozen)
    connection.execute("reset role")


def refuse_downgrade(revision: str) -> NoReturn:
    """For a revision's `downgrade`: an audit trail cannot be taken back."""
    raise MigrationError(
        f"{revision} cannot be undone without losing decisions and fills: "
        "restore a backup taken before the upgrade instead"
    )


def _config(url: str | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["url"] = url
    return config
