"""Worker processes for tests: started, waited for, killed, stopped and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from tests.orders import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PGRISK = Path(sys.executable).with_name("pgrisk")


class WorkerProcess:
    """`pgrisk worker run` as a process of its own, and what it has logged."""

    def __init__(self, url: str, *arguments: str) -> None:
        self.log: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [PGRISK, "worker", "run", *arguments],
            env=os.environ | {"PGRISK_DATABASE_URL": url},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def events(self, event: str) -> list[dict[str, Any]]:
        """What it has logged under that name."""
        return [line for line in self.log if line["event"] == event]

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """The latest of so many lines of that name, once they are there."""
        wait_until(lambda: len(self.events(event)) >= count)
        return self.events(event)[-1]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with no chance to do anything more."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Its exit code, once it has ended and its log is read."""
        code = self._process.wait(60)
        self._reader.join(60)
        return code

    def close(self) -> None:
        """End it whatever its state."""
        if self._process.poll() is None:
            self.send(signal.SIGCONT)
            self.kill()
        self._reader.join(60)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.log.append(json.loads(line))


@contextmanager
def worker(url: str, *arguments: str) -> Iterator[WorkerProcess]:
    """A worker that has begun to lead, or to stand by; gone in the end."""
    process = WorkerProcess(url, *arguments)
    try:
        process.wait_for("started")
        yield process
    finally:
        process.close()
