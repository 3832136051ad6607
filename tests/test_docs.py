"""The documents agree with the SQL that they describe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgrisk.sql import sources
from tests.sql_reference import REFERENCE, render

if TYPE_CHECKING:
    from tests.databases import Database

ROOT = Path(__file__).parent.parent
MAP = (ROOT / "sql" / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "sql" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_is_made_from_the_catalog(db: Database) -> None:
    with db.connect() as connection:
        assert REFERENCE.read_text() == render(connection), "run `make docs`"


def test_the_map_names_every_file_and_what_is_public_in_it() -> None:
    rows = dict(re.findall(r"^\| `(\d\d_\w+\.sql)` \| .* \| (.*?) ?\|$", MAP, re.MULTILINE))
    kinds = "procedure|function|view|materialized view"
    public = {
        name: set(re.findall(rf"^create (?:{kinds}) risk\.(\w+)", text, re.MULTILINE))
        for name, text in sources().items()
    }
    assert {name: set(re.findall(r"`(\w+)`", text)) for name, text in rows.items()} == public


def test_the_map_lists_the_reasons_gravest_first() -> None:
    (array,) = re.findall(
        r"array\[('TRADING_HALTED'.*?)\], reason\)", sources()["45_decide.sql"], re.S
    )
    listed = MAP.partition("## Reasons")[2].partition("## Errors")[0]
    assert re.findall(r"^\| `(\w+)`", listed, re.MULTILINE) == re.findall(r"'(\w+)'", array)


def test_the_map_lists_every_error_of_our_own() -> None:
    raised = {code for text in sources().values() for code in re.findall(r"fail\('(\w+)'", text)}
    assert raised <= set(re.findall(r"^\| `(\w{5})`", MAP.partition("## Errors")[2], re.MULTILINE))


def test_every_condition_is_described_with_its_parameters_defaults_and_source(db: Database) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## Circuit breakers")[2]
    described = {row[0]: row for row in re.findall(
        r"^\| `(\w+)` \| (?:.*?) \| (.*?) ?\| (.*?) \|$", text, re.MULTILINE)}  # fmt: skip
    with db.connect() as connection:
        conditions = connection.execute(
            "select condition, parameters, source from risk.breaker_conditions"
        ).fetchall()
    assert list(described) == [condition for condition, _, _ in conditions]
    for condition, parameters, source in conditions:
        _, told, after = described[condition]
        assert after == source
        assert set(re.findall(r"`(\w+)`", told)) == set(parameters)
        for name, spec in parameters.items():
            if spec["default"] is not None:
                assert f"`{name}` {spec['default']}" in told


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / link).is_file(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_named_exists(document: Path, db: Database) -> None:
    named = set(re.findall(r"\brisk(?:_private)?\.[a-z_]+\b", document.read_text()))
    with db.connect() as connection:
        existing = connection.execute(
            "select n.nspname || '.' || o.name from pg_namespace as n join ("
            " select pronamespace, proname from pg_proc"
            " union select relnamespace, relname from pg_class"
            ") as o (namespace, name) on o.namespace = n.oid"
            " where n.nspname in ('risk', 'risk_private')"
        ).fetchall()
    assert named <= {name for (name,) in existing}
