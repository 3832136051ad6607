"""Upgrading databases: empty, shared, contested, and changed by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import distribution
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from pgrisk import migrations
from pgrisk.client import embedded
from pgrisk.migrations import __main__ as freezing
from pgrisk.migrations import catalog
from pgrisk.sql import install_pgmq, sources
from tests.databases import FAST, TEST_MAJOR, Database, create_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess

ROOT = Path(__file__).parent.parent


def rows(database: Database, question: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute(question.encode()).fetchall()


def wait_for_lock_waits(connection: psycopg.Connection, count: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        waiting = connection.execute("select count(*) from pg_locks where not granted").fetchone()
        if waiting == (count,):
            return
        assert time.monotonic() < deadline, f"{waiting} of {count} migrators came to wait"
        time.sleep(0.02)


@contextmanager
def migrators(urls: list[str]) -> Iterator[list[BaseProcess]]:
    """Processes that upgrade one database each; they must all have succeeded at the end."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["pgrisk.migrations", "alembic.command", "sqlalchemy"])
    processes: list[BaseProcess] = [
        context.Process(target=migrations.upgrade, args=[url]) for url in urls
    ]
    for process in processes:
        process.start()
    try:
        yield processes
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * len(urls)
    finally:
        for process in processes:
            process.kill()


def test_twenty_simultaneous_migrators_do_the_work_once(empty_db: Database) -> None:
    with empty_db.connect() as first:
        first.execute("select pg_advisory_lock(%s)", [migrations.LOCK])
        with migrators([empty_db.url] * 20):
            wait_for_lock_waits(first, 20)
            first.execute("select pg_advisory_unlock(%s)", [migrations.LOCK])
    assert rows(empty_db, "select version_num from risk_private.alembic_version") == [
        (migrations.head(),)
    ]
    with empty_db.connect() as connection:
        assert catalog.drift(connection) == []


def test_databases_of_one_cluster_may_be_migrated_at_once(data_dir: Path) -> None:
    """Roles belong to the cluster, so the second database meets those of the first half made."""
    server = embedded.start(data_dir, binaries=embedded.find_binaries(TEST_MAJOR), settings=FAST)
    one, two = create_database(server), create_database(server)
    with one.connect(autocommit=False) as first, two.connect() as observer:
        first.execute("create role risk_owner nologin")
        with migrators([two.url]):
            wait_for_lock_waits(observer, 1)
            first.commit()
    migrations.upgrade(one.url)
    for database in (one, two):
        with database.connect() as connection:
            assert catalog.drift(connection) == []


def test_a_login_that_may_create_roles_needs_no_superuser(data_dir: Path) -> None:
    server = embedded.start(data_dir, binaries=embedded.find_binaries(TEST_MAJOR), settings=FAST)
    database = create_database(server)
    with database.connect() as connection:
        admin = database.create_user("admin")
        connection.execute("alter role admin createrole")
        connection.execute(f"alter database {database.name} owner to admin".encode())
    migrations.upgrade(database.url_for(admin))
    with database.connect(admin) as connection:
        assert catalog.drift(connection) == []


def test_a_second_upgrade_changes_nothing(migrated_db: Database) -> None:
    question = """
        select xmin::text, version_num from risk_private.alembic_version
        union all select xmin::text, object from risk_private.recorded_objects"""
    before = rows(migrated_db, question)
    migrations.upgrade(migrated_db.url)
    assert rows(migrated_db, question) == before
    assert len(before) > 100


def test_an_upgrade_keeps_the_queues_of_others(empty_db: Database) -> None:
    with empty_db.connect() as connection:
        install_pgmq(connection)
        connection.execute("select pgmq.create('theirs')")
        connection.execute("select pgmq.send('theirs', '{\"kept\": true}')")
    migrations.upgrade(empty_db.url)
    assert rows(empty_db, "select message from pgmq.read('theirs', 0, 1)") == [({"kept": True},)]


@pytest.mark.skipif(TEST_MAJOR < 18, reason="an extension outside the installation needs 18")
def test_the_extension_is_preferred_where_the_server_offers_it(data_dir: Path) -> None:
    offered = data_dir.parent / "offered" / "extension"
    offered.mkdir(parents=True)
    data_dir.parent.chmod(0o755)
    (offered / "pgmq.control").write_text(
        "default_version = '1.0'\nschema = 'pgmq'\nrelocatable = false\nsuperuser = true\n"
    )
    packaged = Path(str(distribution("pgmq").locate_file("pgmq/sql/pgmq.sql")))
    (offered / "pgmq--1.0.sql").write_text(packaged.read_text())
    server = embedded.start(
        data_dir,
        binaries=embedded.find_binaries(TEST_MAJOR),
        settings={**FAST, "extension_control_path": f"$system:{offered.parent}"},
    )
    database = create_database(server)
    migrations.upgrade(database.url)
    assert rows(database, "select extversion from pg_extension where extname = 'pgmq'") == [
        ("1.0",)
    ]


def test_a_failed_upgrade_leaves_nothing_behind(empty_db: Database) -> None:
    with empty_db.connect() as connection:
        connection.execute("create schema risk")
    with pytest.raises(psycopg.errors.DuplicateSchema):
        migrations.upgrade(empty_db.url)
    assert rows(
        empty_db,
        "select to_regnamespace('pgmq'), to_regnamespace('risk_private'), count(*) "
        "from pg_tables where tablename = 'alembic_version'",
    ) == [(None, None, 0)]


def test_a_stranger_cannot_upgrade(empty_db: Database) -> None:
    stranger = empty_db.create_user("stranger")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        migrations.upgrade(empty_db.url_for(stranger))


def test_a_database_of_a_newer_version_is_refused(migrated_db: Database) -> None:
    with migrated_db.connect() as connection:
        connection.execute("update risk_private.alembic_version set version_num = '9999_future'")
    with pytest.raises(migrations.MigrationError, match=r"9999_future.*newer pgrisk"):
        migrations.upgrade(migrated_db.url)


def test_an_unreachable_database_is_reported_by_the_driver() -> None:
    with pytest.raises(psycopg.OperationalError, match="refused"):
        migrations.upgrade("postgresql://127.0.0.1:1/nowhere")


def test_the_revision_of_an_unknown_database_is_none(empty_db: Database) -> None:
    with empty_db.connect() as connection:
        assert migrations.current(connection) is None


def alembic(database: Database | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name != "PGRISK_DATABASE_URL"
    }
    if database:
        environment["PGRISK_DATABASE_URL"] = database.url
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_alembic_itself_works_in_a_checkout(empty_db: Database) -> None:
    assert alembic(empty_db, "upgrade", "head").returncode == 0
    assert migrations.head() in alembic(empty_db, "current").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["downgrade", "base"], "cannot be undone without losing decisions and fills"),
        (["upgrade", "head", "--sql"], "there is no offline mode"),
    ],
)
def test_what_alembic_cannot_do_is_explained(
    migrated_db: Database, arguments: list[str], message: str
) -> None:
    answer = alembic(migrated_db, *arguments)
    assert answer.returncode != 0
    assert message in answer.stderr
    migrations.upgrade(migrated_db.url)


def test_alembic_is_told_which_database_it_lacks() -> None:
    answer = alembic(None, "upgrade", "head")
    assert answer.returncode != 0
    assert "set PGRISK_DATABASE_URL" in answer.stderr


def test_a_new_revision_is_made_from_the_template(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", str(tmp_path))
    made = command.revision(config, "Add a thing", rev_id="0002_add_thing", head="base")
    assert made is not None
    assert not isinstance(made, list)
    text = Path(made.path).read_text()
    compile(text, made.path, "exec")
    assert "run_frozen_sql(revision)" in text


# Freezing -----------------------------------------------------------------------------------------


def test_a_revision_is_frozen_from_today_s_sql(tmp_path: Path) -> None:
    (tmp_path / "0007_add_thing.py").touch()
    assert freezing.main(["freeze", "0007_add_thing"], tmp_path) is None
    frozen = (tmp_path / "0007_add_thing.sql").read_text()
    positions = [frozen.index(text) for text in sources().values()]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["freeze", "0008_typo"], "no revision 0008_typo"), ([], "usage"), (["thaw", "x"], "usage")],
)
def test_freezing_refuses_what_it_does_not_know(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in str(freezing.main(arguments, tmp_path))
    assert not list(tmp_path.iterdir())


# Drift --------------------------------------------------------------------------------------------


CHANGES = {
    "grant select on risk_private.orders to risk_trader": "table risk_private.orders was changed",
    "alter table risk_private.orders owner to postgres": "table risk_private.orders was changed",
    "grant update (client_order_id) on risk_private.orders to public": (
        "column risk_private.orders.client_order_id was changed"
    ),
    "alter table risk_private.orders add column note text": (
        "column risk_private.orders.note is not part of the engine"
    ),
    "alter table risk_private.orders drop constraint orders_pkey cascade": (
        "constraint orders_pkey on risk_private.orders is missing"
    ),
    "create index slow on risk_private.orders (client_order_id)": (
        "index risk_private.slow is not part of the engine"
    ),
    "create rule nothing as on delete to risk_private.orders do instead nothing": (
        "rule nothing on risk_private.orders is not part of the engine"
    ),
    "create policy everything on risk_private.orders": (
        "policy everything on risk_private.orders is not part of the engine"
    ),
    "create trigger late after insert on risk_private.orders "
    "execute function suppress_redundant_updates_trigger()": (
        "trigger late on risk_private.orders is not part of the engine"
    ),
    "create or replace function risk_private.clock() returns timestamptz "
    "language sql volatile return '2020-01-01'::timestamptz": (
        "function risk_private.clock() was changed"
    ),
    "alter function risk_private.clock() cost 7": "function risk_private.clock() was changed",
    "create table risk.mine (id int)": "table risk.mine is not part of the engine",
    "create sequence risk.mine": "sequence risk.mine is not part of the engine",
    "create type risk.mine as enum ('red')": "type risk.mine is not part of the engine",
    "grant create on schema risk to risk_admin": "schema risk was changed",
    "comment on schema risk is 'mine'": "schema risk was changed",
}


@pytest.mark.parametrize(("change", "found"), CHANGES.items(), ids=CHANGES)
def test_a_change_by_hand_is_found(migrated_db: Database, change: str, found: str) -> None:
    with migrated_db.connect() as connection:
        assert catalog.drift(connection) == []
        connection.execute(change.encode())
        assert found in catalog.drift(connection)


def test_only_the_owner_may_look_for_drift(migrated_db: Database) -> None:
    owner = migrated_db.create_user("owner", "risk_owner")
    with migrated_db.connect(owner) as connection:
        assert migrations.current(connection) == migrations.head()
        assert catalog.drift(connection) == []
    trader = migrated_db.create_user("trader", "risk_trader")
    with (
        migrated_db.connect(trader) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        catalog.drift(connection)
