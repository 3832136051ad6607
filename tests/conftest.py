"""Fixtures that every test may use."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pgrisk.client import embedded
from pgrisk.migrations import upgrade
from tests.breaker_desk import Desk, open_desk
from tests.databases import FAST, TEST_MAJOR, Database, create_database, create_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LONG = ("tests/test_stateful.py", "tests/test_crash.py", "tests/test_storm.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, lest one process be left with it in the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path that does not exist yet; a server left running in it is stopped."""
    folder = Path(tempfile.mkdtemp(prefix="pgrisk-"))
    yield folder / "data"
    _remove(folder)


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.Server]:
    """A server without fsync, of the major version in PGRISK_TEST_POSTGRES (18 by default)."""
    folder = Path(tempfile.mkdtemp(prefix="pgrisk-"))
    try:
        yield embedded.start(
            folder / "data", binaries=embedded.find_binaries(TEST_MAJOR), settings=FAST
        )
    finally:
        _remove(folder)


@pytest.fixture(scope="session")
def template(server: embedded.Server) -> str:
    """The name of a database with the engine and a clock that can be set."""
    return create_template(server)


@pytest.fixture
def db(server: embedded.Server, template: str) -> Iterator[Database]:
    """A fresh database with the engine, for one test."""
    database = create_database(server, template)
    yield database
    database.drop()


@pytest.fixture
def desk(db: Database) -> Iterator[Desk]:
    """The small firm, with a clock that stands still until told."""
    with open_desk(db) as opened:
        yield opened


@pytest.fixture
def empty_db(server: embedded.Server) -> Iterator[Database]:
    """A fresh database with nothing in it, for one test."""
    database = create_database(server)
    yield database
    database.drop()


@pytest.fixture(scope="session")
def migrated_template(server: embedded.Server) -> str:
    """The name of a database that was brought to the newest revision."""
    database = create_database(server)
    upgrade(database.url)
    return database.name


@pytest.fixture
def migrated_db(server: embedded.Server, migrated_template: str) -> Iterator[Database]:
    """A fresh database at the newest revision, for one test; its clock is the real one."""
    database = create_database(server, migrated_template)
    yield database
    database.drop()


class DurableServer:
    """A server with fsync on that can be killed and started again in the same directory."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self.server = self.start()

    def start(self) -> embedded.Server:
        """Start the server; after a kill it recovers first."""
        self.server = embedded.start(
            self._data_dir,
            binaries=embedded.find_binaries(TEST_MAJOR),
            settings=self._settings,
        )
        return self.server

    def kill(self) -> None:
        """End every process of the server at once, with no chance to write anything."""
        postmaster = psutil.Process(self.server.pid)
        postmaster.suspend()  # so that it starts no further process while we list them
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.kill()
        while any(map(_is_alive, processes)):
            time.sleep(0.002)

    def create_database(self) -> Database:
        """A database with the engine and a clock that can be set."""
        return create_database(self.server, create_template(self.server))


@pytest.fixture
def durable_server() -> Iterator[Callable[..., DurableServer]]:
    """A function that starts a server of its own, with fsync on; arguments are server settings."""
    folders: list[Path] = []

    def start(**settings: str) -> DurableServer:
        folder = Path(tempfile.mkdtemp(prefix="pgrisk-"))
        folders.append(folder)
        return DurableServer(folder / "data", settings)

    yield start
    for folder in folders:
        _remove(folder)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _remove(folder: Path) -> None:
    running = embedded.find(folder / "data")
    if running:
        running.stop("immediate")
    shutil.rmtree(folder)
