"""A PostgreSQL server of our own in one directory: TCP on 127.0.0.1 and a Unix socket, by password.

The directory holds `postgresql/` (the cluster), `password` (the superuser's, readable by its owner
alone), `port` (the last one used) and `lock` (held while a server is started or stopped).
"""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import signal
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from pgrisk.client.binaries import EmbeddedServerError, find_binaries
from pgrisk.client.cluster import START_SECONDS, SUPERUSER, Cluster, Launcher, Postmaster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["EmbeddedServerError", "Server", "find", "find_binaries", "start"]

_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_FIRST_PORT, _PORTS = 20000, 12000  # below what systems give to outgoing connections


@dataclass(frozen=True)
class Server:
    """A running server, as `start` and `find` return it."""

    data_dir: Path
    port: int
    pid: int
    """Process id of the postmaster."""
    password: str = field(repr=False)

    def url(self, database: str = "postgres") -> str:
        """The URL of `database` for the superuser. It contains the password."""
        name = quote(database, safe="")
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{name}"

    @property
    def socket_dir(self) -> Path:
        """The directory of the Unix socket, for clients to name as their host."""
        return Cluster(self.data_dir).path

    def is_running(self) -> bool:
        """Whether this very server, and not a later one, still runs."""
        postmaster = Cluster(self.data_dir).postmaster()
        return postmaster is not None and postmaster.pid == self.pid

    def stop(
        self, mode: Literal["smart", "fast", "immediate"] = "fast", timeout: float = 120
    ) -> None:
        """Stop the server and wait until it has stopped; do nothing when it does not run.

        `smart` waits for clients to leave, `fast` disconnects them, `immediate` skips the
        checkpoint, so that the next start recovers from the log.

        Raises EmbeddedServerError when it still runs after `timeout` seconds.
        """
        with _locked(self.data_dir):
            if not self.is_running():
                return
            os.kill(self.pid, _SIGNALS[mode])
            deadline = time.monotonic() + timeout
            while self.is_running():
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"the server in {self.data_dir} did not stop within {timeout:g} s"
                    )
                time.sleep(0.02)


def find(data_dir: Path) -> Server | None:
    """The server that runs in `data_dir` and accepts connections, or None.

    Raises EmbeddedServerError when it belongs to another user.
    """
    cluster = Cluster(data_dir.resolve())
    postmaster = cluster.postmaster()
    return _server(cluster, postmaster) if postmaster and postmaster.is_ready else None


def start(
    data_dir: Path,
    port: int | None = None,
    *,
    binaries: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Server:
    """Start a server in `data_dir`, or find the one that runs there already.

    An absent or empty directory gets a new cluster. Without `port` the last one is used again; the
    first time, a free one is chosen. `settings` are settings of the server for this start only.
    When root starts it, the server runs as the account `nobody`, or whoever owns the cluster.

    Raises EmbeddedServerError when the directory holds something else, belongs to another user or
    major version or cannot be written, when the port is taken, or when the server does not come up.
    """
    data_dir = data_dir.resolve()
    settings = settings or {}
    cluster = Cluster(data_dir)
    with _locked(data_dir):
        running = _settled(cluster)
        if running is None:
            launcher = Launcher(cluster, binaries or find_binaries())
            if not cluster.exists():
                launcher.initialise(sync=settings.get("fsync") != "off")
            launcher.require_version()
            port = _choose_port(data_dir, port)
            launcher.launch({**settings, "port": str(port)})
            (data_dir / "port").write_text(f"{port}\n")
            running = _settled(cluster)
            if running is None:
                raise EmbeddedServerError(f"the server in {data_dir} stopped right after its start")
        elif port not in (None, running.port):
            raise EmbeddedServerError(
                f"the server in {data_dir} already runs on port {running.port}: stop it first"
            )
        return _server(cluster, running)


def _server(cluster: Cluster, postmaster: Postmaster) -> Server:
    return Server(cluster.data_dir, postmaster.port, postmaster.pid, cluster.password())


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Makes the directory and keeps every other start and stop in it waiting."""
    try:
        # Others may pass through root's directory, since the server does not run as root.
        data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        Cluster(data_dir).require_ours()
        lock = (data_dir / "lock").open("a")
    except OSError as error:
        raise EmbeddedServerError(f"{data_dir} cannot be written: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _settled(cluster: Cluster) -> Postmaster | None:
    """The server once it is ready, or None once there is none."""
    deadline = time.monotonic() + START_SECONDS
    while (postmaster := cluster.postmaster()) and not postmaster.is_ready:
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"the server in {cluster.data_dir} is neither up nor down after {START_SECONDS} s"
            )
        time.sleep(0.02)
    return postmaster


def _choose_port(data_dir: Path, port: int | None) -> int:
    remembered = data_dir / "port"
    if port is None and remembered.exists():
        port = int(remembered.read_text())
    if port is None:
        free = (_FIRST_PORT + secrets.randbelow(_PORTS) for _ in itertools.count())
        return next(filter(_is_free, free))
    if not _is_free(port):
        raise EmbeddedServerError(
            f"port {port} is taken or not allowed: stop what uses it or choose another"
        )
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
