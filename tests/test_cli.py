"""The `pgrisk` command, as a person at a terminal meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner

from pgrisk import migrations
from pgrisk.cli.main import main
from pgrisk.client import embedded
from pgrisk.client.settings import default_data_dir
from tests.databases import TEST_MAJOR

if TYPE_CHECKING:
    from click.testing import Result

    from tests.databases import Database

PGRISK = Path(sys.executable).with_name("pgrisk")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    """No setting of the person who runs the tests reaches the command."""
    monkeypatch.delenv("PGRISK_DATABASE_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(data_dir.parent))
    monkeypatch.setenv("PGRISK_PG_BIN", str(embedded.find_binaries(TEST_MAJOR)))


def pgrisk(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def version_of(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select 1 from risk_private.alembic_version").fetchone()
        assert row == (1,)
        return connection.info.server_version // 10000


def test_up_prints_the_url_of_a_migrated_database_alone(data_dir: Path) -> None:
    first = pgrisk("up", "--data-dir", data_dir)
    assert first.exit_code == 0, first.output
    assert first.stderr == ""
    url = first.stdout.removesuffix("\n")
    assert "\n" not in url
    assert version_of(url) == TEST_MAJOR
    again = pgrisk("up", "--data-dir", data_dir)
    assert again.stdout == first.stdout


def test_up_twice_at_once_brings_up_one_server(data_dir: Path) -> None:
    def up(_: int) -> str:
        return subprocess.run(
            [PGRISK, "up", "--data-dir", data_dir], capture_output=True, text=True, check=True
        ).stdout

    with ThreadPoolExecutor(2) as pool:
        urls = set(pool.map(up, range(2)))
    assert len(urls) == 1
    assert version_of(urls.pop().strip()) == TEST_MAJOR


def test_up_down_and_status_tell_the_same_story(data_dir: Path) -> None:
    where = ("--data-dir", data_dir)
    before = pgrisk("status", *where)
    assert before.exit_code == 1
    assert f"no server runs in {data_dir}" in before.stderr
    server = embedded.start(data_dir)
    port = server.port
    server.stop()
    assert pgrisk("up", *where).exit_code == 0
    during = pgrisk("status", *where)
    assert during.exit_code == 0, during.output
    for expected in (f"PostgreSQL {TEST_MAJOR}.", f"127.0.0.1:{port}", "up to date", str(data_dir)):
        assert expected in during.stdout
    down = pgrisk("down", *where)
    assert (down.exit_code, down.stdout) == (0, "")
    assert "stopped" in down.stderr
    assert pgrisk("status", *where).exit_code == 1
    again = pgrisk("down", *where)
    assert again.exit_code == 0
    assert "no server runs" in again.stderr


def test_the_data_directory_follows_xdg(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_data_dir() == data_dir.parent / "pgrisk"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_data_dir() == Path.home() / ".local" / "share" / "pgrisk"


def test_a_directory_that_is_not_ours_is_refused_in_one_line(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "thesis.txt").touch()
    answer = pgrisk("up", "--data-dir", data_dir)
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert answer.stderr == (
        f"Error: {data_dir} holds other files: choose an empty directory or a new one\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [["up", "--port", "80"], ["up", "--port", "x"], ["sideways"], ["db", "x"], ["up", "extra"]],
)
def test_wrong_usage_has_its_own_exit_code(arguments: list[str]) -> None:
    answer = pgrisk(*arguments)
    assert answer.exit_code == 2
    assert "Usage: " in answer.stderr


# A real server instead ----------------------------------------------------------------------------


def test_a_real_server_is_migrated_instead(
    empty_db: Database, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRISK_DATABASE_URL", empty_db.url)
    assert pgrisk("db", "status").exit_code == 1
    assert "none (run `pgrisk db migrate`)" in pgrisk("status").stdout
    answer = pgrisk("up", "--data-dir", data_dir)
    assert answer.stdout == f"{empty_db.url}\n"
    assert not data_dir.exists()
    status = pgrisk("status").stdout
    assert f"database   {empty_db.name}\n" in status
    assert "up to date" in status
    assert pgrisk("db", "status").exit_code == 0
    assert pgrisk("db", "check").output == "ok\n"


def test_migrate_says_where_the_schema_is(
    empty_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRISK_DATABASE_URL", empty_db.url)
    for _ in range(2):
        answer = pgrisk("db", "migrate")
        assert answer.exit_code == 0, answer.output
        assert answer.stdout == f"the schema is at {migrations.head()}\n"


@pytest.mark.parametrize("command", [["status"], ["db", "status"], ["db", "migrate"], ["up"]])
def test_an_unreachable_database_has_its_own_exit_code(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRISK_DATABASE_URL", "postgresql://me:hush@127.0.0.1:1/nowhere")
    answer = pgrisk(*command)
    assert answer.exit_code == 5
    assert "Connection refused" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert "hush" not in answer.output


def test_a_wrong_password_and_a_missing_database_count_as_unreachable(
    empty_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (
        empty_db.url.replace(empty_db.server.password, "hush"),
        empty_db.server.url("nowhere"),
    ):
        monkeypatch.setenv("PGRISK_DATABASE_URL", url)
        answer = pgrisk("status")
        assert answer.exit_code == 5
        assert answer.stderr.startswith("Error: ")
        assert answer.stderr.count("\n") == 1


def test_a_malformed_url_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRISK_DATABASE_URL", "postgresql://me:hush@[::1")
    answer = pgrisk("status")
    assert answer.exit_code == 1
    assert "PGRISK_DATABASE_URL is malformed" in answer.stderr
    assert "hush" not in answer.output


def test_a_login_without_rights_is_told_so(
    migrated_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = migrated_db.create_user("stranger")
    monkeypatch.setenv("PGRISK_DATABASE_URL", migrated_db.url_for(stranger))
    answer = pgrisk("db", "check")
    assert answer.exit_code == 1
    assert "permission denied" in answer.stderr


# db check -----------------------------------------------------------------------------------------


def test_check_finds_an_old_schema(empty_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRISK_DATABASE_URL", empty_db.url)
    answer = pgrisk("db", "check")
    assert answer.exit_code == 1
    assert answer.stdout == (
        f"the schema is at no revision, not {migrations.head()}: pgrisk db migrate\n"
    )


def test_check_finds_a_change_by_hand(
    migrated_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRISK_DATABASE_URL", migrated_db.url)
    assert pgrisk("db", "check").output == "ok\n"
    with migrated_db.connect() as connection:
        connection.execute("grant select on risk_private.orders to public")
    answer = pgrisk("db", "check")
    assert answer.exit_code == 1
    assert answer.stdout == "table risk_private.orders was changed\n"


def test_check_finds_a_wrong_counter(
    migrated_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRISK_DATABASE_URL", migrated_db.url)
    with migrated_db.connect() as connection:
        connection.execute("call risk.create_scope(code => 'F', kind => 'firm')")
        connection.execute("call risk.create_scope(code => 'A', kind => 'account', parent => 'F')")
        connection.execute("update risk_private.counters set open_orders = open_orders + 1")
    answer = pgrisk("db", "check")
    assert answer.exit_code == 1
    assert answer.stdout.startswith("a counter is wrong: ")


# The command itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[PGRISK], [sys.executable, "-m", "pgrisk.cli"]])
def test_it_can_be_run_by_name_and_as_a_module(command: list[str | Path]) -> None:
    answer = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert answer.stdout == "pgrisk 0.1.0\n"


def test_help_documents_every_command_and_exit_code() -> None:
    answer = pgrisk("--help")
    for expected in ("up", "down", "status", "db", "demo", "Exit codes", "5  the database cannot"):
        assert expected in answer.stdout


@pytest.mark.parametrize(
    "command",
    [["up"], ["down"], ["status"], ["db", "migrate"], ["db", "status"], ["db", "check"]],
    ids=" ".join,
)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    answer = pgrisk(*command, "--help")
    assert answer.exit_code == 0
    assert f"pgrisk {' '.join(command)}" in answer.stdout.partition("\n")[2]
