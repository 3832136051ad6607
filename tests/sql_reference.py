"""Writes docs/sql.md from the comments and grants in the catalog: `make docs`."""

from __future__ import annotations

import re
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from pgrisk.client import embedded
from pgrisk.sql import load
from tests.databases import FAST

if TYPE_CHECKING:
    Connection = psycopg.Connection[tuple[Any, ...]]

REFERENCE = Path(__file__).parent.parent / "docs" / "sql.md"

INTRODUCTION = """\
# SQL reference

Everything that may be called or read, made from the comments in the database by `make docs`.
`\\df+ risk.*` and `\\dv+ risk.*` show the same in psql.

A `CALL` changes something and commits, so it works outside a transaction block only: one call per
statement, with autocommit, and arguments by name. A `SELECT` only reads. Arguments marked `inout`
are results; leave them out. Errors have a SQLSTATE of class `RK`, listed in
[sql/README.md](../sql/README.md) with the reasons of rejections. Quantities, prices and money are
`numeric`; in JSON they are strings.
"""

SUBJECTS = {
    "Deciding": (
        "check_order check_combo check_orders replace_order confirm_replace reject_replace "
        "preview_order preview_combo"
    ),
    "What happened to an order": (
        "dispatch_order ack_order record_fill record_trade bust_fill correct_fill release_order "
        "cancel_orders"
    ),
    "Market data and the trading day": (
        "set_marks remark_underlying revalue set_fx set_indicator load_closes open_day post_cash"
    ),
    "Administration": (
        "create_scope upsert_instruments adjust_instrument set_instrument_status "
        "set_limit set_limits remove_limit load_position_limits apply_position_limits "
        "set_setting set_trading_state grant_trading revoke_trading"
    ),
    "Circuit breakers": "define_breaker remove_breaker trip_breaker reset_breaker",
    "What options are worth": "option_greeks implied_volatility",
    "Limits for caches": "hot_limits limit_cache",
    "Views of money": "pnl daily_summary cash",
    "Proof": "verify_counters",
    "Views of orders and positions": (
        "orders open_orders decisions violations fills fill_corrections positions"
    ),
    "Views of limits and exposure": (
        "limits limit_history limit_utilization exposure concentration same_side_positions "
        "position_limits"
    ),
    "Greeks of portfolios": "portfolio_greeks",
    "Returns and correlations": "return_history correlation_matrix refresh_views",
    "Views of what is set up": (
        "scopes instruments adjustments marks settings trading_grants trading_states"
    ),
    "Views of circuit breakers": "breakers breaker_events breaker_conditions indicators",
    "Views of health": "health queue_status",
}

ROUTINES = """
select p.proname, p.prokind = 'p', pg_get_function_arguments(p.oid),
  case when p.prokind = 'f' then pg_get_function_result(p.oid) end,
  obj_description(p.oid, 'pg_proc'), {}
from pg_proc as p where p.pronamespace = 'risk'::regnamespace"""

VIEWS = """
select p.relname, obj_description(p.oid, 'pg_class'), {},
  array(
    select array[a.attname, format_type(a.atttypid, null), col_description(p.oid, a.attnum)]
    from pg_attribute as a
    where a.attrelid = p.oid and a.attnum > 0 and not a.attisdropped order by a.attnum)
from pg_class as p where p.relnamespace = 'risk'::regnamespace and p.relkind in ('v', 'm')"""

GRANTED = """
array(
  select r.rolname::text
  from aclexplode(p.{}) as g join pg_roles as r on r.oid = g.grantee
  where g.grantee <> p.{} order by r.rolname)"""


def render(connection: Connection) -> str:
    """The reference of the engine in the connection's database, as Markdown.

    Raises ValueError for an object that stands under no subject, or the other way round.
    """
    entries: dict[str, str] = {}
    routines = connection.execute(ROUTINES.format(GRANTED.format("proacl", "proowner")).encode())
    for name, is_procedure, arguments, result, comment, roles in routines:
        entries[name] = _routine(name, is_procedure, arguments, result, comment, roles)
    views = connection.execute(VIEWS.format(GRANTED.format("relacl", "relowner")).encode())
    for name, comment, roles, columns in views:
        entries[name] = _view(name, comment, roles, columns)
    listed = {name for names in SUBJECTS.values() for name in names.split()}
    if listed != entries.keys():
        raise ValueError(f"put under a subject or take away: {sorted(listed ^ entries.keys())}")
    parts = [INTRODUCTION]
    for subject, names in SUBJECTS.items():
        parts += [f"## {subject}\n", *(entries[name] for name in names.split())]
    return "\n".join(parts)


def _routine(
    name: str,
    is_procedure: bool,
    arguments: str,
    result: str | None,
    comment: str,
    roles: list[str],
) -> str:
    given = [_argument(text) for text in arguments.split(", ")]
    results = [text[6:].split(" default ")[0] for text in given if text.startswith("inout ")]
    if result:
        results += re.sub(r"^TABLE\((.*)\)$", r"\1", result).split(", ")
    given = [text for text in given if not text.startswith("inout ")]
    verb = "call" if is_procedure else "select * from"
    code = "\n".join(
        [
            "```sql",
            *_fill(f"{verb} risk.{name}(", [*given[:-1], f"{given[-1]})"], "  "),
            *(_fill("-- ", results, "-- ") if results else []),
            "```",
        ]
    )
    return f"### risk.{name}\n\n{code}\n\n{_wrap(comment)}\n\n{_roles('Called', roles)}\n"


def _argument(text: str) -> str:
    text = re.sub(r"::[a-z ]+(\[\])?", "", text).replace("timestamp with time zone", "timestamptz")
    return re.sub(r"\b(DEFAULT|NULL|INOUT)\b", lambda word: word[0].lower(), text).removeprefix(
        "IN "
    )


def _fill(start: str, items: list[str], indent: str) -> list[str]:
    """Lines that are broken between items only."""
    text = start + ", ".join(items).replace(", ", ",\n").replace(" ", "\0").replace("\n", " ")
    lines = textwrap.wrap(text, 98, subsequent_indent=indent, break_long_words=False)
    return [line.replace("\0", " ") for line in lines]


def _view(name: str, comment: str, roles: list[str], columns: list[list[str]]) -> str:
    rows = [f"| `{column}` | {kind} | {_escape(text)} |" for column, kind, text in columns]
    table = "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])
    return f"### risk.{name}\n\n{_wrap(comment)}\n\n{_roles('Read', roles)}\n\n{table}\n"


def _wrap(text: str) -> str:
    return textwrap.fill(_escape(text), 100, break_long_words=False)


def _escape(text: str) -> str:
    return re.sub(r"([*|<])", r"\\\1", text)


def _roles(verb: str, roles: list[str]) -> str:
    names = ", ".join(f"`{role}`" for role in roles) or "the owner alone"
    return textwrap.fill(f"{verb} by: {names}.", 100)


def main() -> None:
    """Make an engine on a server of its own and write its reference."""
    with tempfile.TemporaryDirectory(prefix="pgrisk-") as folder:
        server = embedded.start(Path(folder) / "data", settings=FAST)
        try:
            with psycopg.connect(server.url(), autocommit=True) as connection:
                load(connection)
                REFERENCE.write_text(render(connection))
        finally:
            server.stop("immediate")


if __name__ == "__main__":
    main()
