"""What runs beside the demo's firm: its logins, the worker and the cache of limits."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgrisk.cli.demo_firm import AGENTS
from pgrisk.cli.demo_trader import DemoError
from pgrisk.client import embedded_cache
from pgrisk.client.cache import LimitCache
from pgrisk.client.limit_reader import LimitReader
from pgrisk.client.settings import cache_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from pgrisk.cli.demo_broker import Connection

WORKER = "demo_worker"
_SERVICES = {
    "demo_admin": "risk_admin",
    "demo_feed": "risk_feed",
    "demo_execution": "risk_execution",
    "demo_analyst": "risk_analyst",
    WORKER: "risk_worker",
}
_START_SECONDS = 60
_STOP_SECONDS = 20


@dataclass(frozen=True)
class Logins:
    """Logins of agents and services, all with one password that nobody else knows."""

    url: str = field(repr=False)
    password: str = field(repr=False)

    def url_of(self, login: str) -> str:
        """How that login connects."""
        return psycopg.conninfo.make_conninfo(self.url, user=login, password=self.password)

    def connect(self, login: str) -> Connection:
        """A connection of that login."""
        return psycopg.connect(self.url_of(login), autocommit=True)


def login_of(agent: str) -> str:
    """The login of an agent."""
    return "demo_" + agent.replace("-", "_")


@contextmanager
def logins(url: str, owner: psycopg.Connection[Any], keep: bool) -> Iterator[Logins]:
    """Make the logins; they are dropped at the end unless `keep`.

    Raises psycopg.errors.DuplicateObject when they exist.
    """
    made = Logins(url, secrets.token_urlsafe(18))
    roles = {**_SERVICES, **{login_of(agent.name): "risk_trader" for agent in AGENTS}}
    with owner.transaction():
        for login, role in roles.items():
            # Encrypted here, so that the password is in no log of the server.
            verifier = owner.pgconn.encrypt_password(
                made.password.encode(), login.encode(), b"scram-sha-256"
            )
            owner.execute(
                sql.SQL("create role {} login password {} in role {}").format(
                    sql.Identifier(login), verifier.decode(), sql.Identifier(role)
                )
            )
    try:
        yield made
    finally:
        if not keep:
            granted = owner.execute(
                "select role, scope from risk.trading_grants where role = any(%s)", [[*roles]]
            ).fetchall()
            for grant in granted:
                owner.execute("call risk.revoke_trading(role => %s, scope => %s)", grant)
            with owner.transaction():
                for login in roles:
                    owner.execute(sql.SQL("drop role {}").format(sql.Identifier(login)))


@dataclass(frozen=True)
class WorkerProcess:
    """`pgrisk worker run`, and what it writes."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def require_running(self) -> None:
        """Raises DemoError, with its last words, when it has ended."""
        if self.process.poll() is not None:
            self.output.seek(0)
            words = self.output.read().decode(errors="replace").strip().splitlines()
            raise DemoError(
                f"the worker ended with exit code {self.process.returncode}: "
                f"{words[-1] if words else 'it said nothing'}"
            )

    def wait_for_heartbeat(self, analyst: Connection, step: Callable[[], None]) -> None:
        """Wait until breakers are evaluated on fresh inputs; `step` is called meanwhile.

        Raises DemoError when they are not.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not _is_healthy(analyst):
            step()
            self.require_running()
            if time.monotonic() > deadline:
                raise DemoError(f"the worker gave no heartbeat within {_START_SECONDS} s")
            time.sleep(0.02)


def _is_healthy(analyst: Connection) -> bool:
    (found,) = analyst.execute(
        "select count(*) from risk.health as h"
        " where h.measure in ('heartbeat_age', 'heartbeat_inputs_age') and h.status = 'OK'"
    ).fetchone() or (0,)
    return bool(found == 2)


@contextmanager
def worker(logins: Logins) -> Iterator[WorkerProcess]:
    """The real worker as a process with a login of its own; stopped in the end."""
    with TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgrisk.cli", "worker", "run"],
            env=os.environ | {"PGRISK_DATABASE_URL": logins.url_of(WORKER)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a key that interrupts is for the demo, which stops it
        )
        try:
            yield WorkerProcess(process, output)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def limit_cache(logins: Logins) -> Iterator[LimitCache]:
    """The cache of limits for all agents: in PGRISK_REDIS_URL, else in a Valkey of its own."""
    url = cache_url()
    if url is None:
        with embedded_cache.running() as server, _cached(logins, server.url) as cache:
            yield cache
    else:
        with _cached(logins, url) as cache:
            yield cache


@contextmanager
def _cached(logins: Logins, url: str) -> Iterator[LimitCache]:
    with (
        LimitReader(logins.url_of("demo_analyst"), max_size=4) as reader,
        LimitCache(reader, url) as cache,
    ):
        yield cache
