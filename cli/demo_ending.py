"""How the demo ends before its time."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """Whatever asks the process to end does so once, and lets it stop what it started.

    It raises KeyboardInterrupt at once, or, while threads are at work, between their steps: an
    exception at just any moment may leave a lock held that a thread waits for.
    """

    def __init__(self) -> None:
        self._is_asked = False
        self._waits_for_step = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._is_asked = True
        if not self._waits_for_step:
            raise KeyboardInterrupt

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """In this block it ends only where `step` is called."""
        self._waits_for_step = True
        try:
            yield
        finally:
            self._waits_for_step = False

    def step(self) -> None:
        """End here if that was asked for."""
        if self._is_asked:
            raise KeyboardInterrupt
