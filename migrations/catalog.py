"""Finds what was changed in the engine's schemas by other means than a revision."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg


def record(connection: psycopg.Connection) -> None:
    """Remember every object of the engine as it is now; for the end of an upgrade."""
    objects = fingerprints(connection)
    connection.execute(
        "create table if not exists risk_private.recorded_objects ("
        "  object text primary key, fingerprint text not null)"
    )
    connection.execute("delete from risk_private.recorded_objects")
    connection.execute(
        "insert into risk_private.recorded_objects select * from unnest(%s::text[], %s::text[])",
        [list(objects), list(objects.values())],
    )
    connection.execute(
        "grant select on risk_private.recorded_objects, risk_private.alembic_version to risk_owner"
    )


def drift(connection: psycopg.Connection) -> list[str]:
    """What differs from the last upgrade, one sentence for each object; empty when nothing does.

    Raises psycopg.errors.InsufficientPrivilege for a login that is not a member of risk_owner.
    """
    recorded: dict[str, str] = dict(
        connection.execute(
            "select object, fingerprint from risk_private.recorded_objects"
        ).fetchall()
    )
    present = fingerprints(connection)
    found = []
    for name in sorted(recorded.keys() | present.keys()):
        if name not in present:
            found.append(f"{name} is missing")
        elif name not in recorded:
            found.append(f"{name} is not part of the engine")
        elif recorded[name] != present[name]:
            found.append(f"{name} was changed")
    return found


def fingerprints(connection: psycopg.Connection) -> dict[str, str]:
    """Every object of the schemas `risk` and `risk_private`, and a fingerprint of it."""
    question = (files("pgrisk.migrations") / "objects.sql").read_bytes()
    with connection.transaction():
        connection.execute("set local search_path = ''")
        return dict(connection.execute(question).fetchall())
