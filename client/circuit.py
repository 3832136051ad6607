"""A circuit breaker for a server that one can do without."""

from __future__ import annotations

import random
import threading
import time

FAILURES = 3
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 30.0


class Circuit:
    """Opens after three failures in a row; then, every while, one caller tries again.

    The while doubles with each vain try, up to half a minute, and is of random length.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._opened = 0
        self._rests_until = 0.0

    def allows(self) -> bool:
        """Whether the caller may use the server now; if so, he reports how it went."""
        with self._lock:
            if self._failures < FAILURES:
                return True
            now = time.monotonic()
            if now < self._rests_until:
                return False
            self._rests_until = now + self._pause()  # for all but this caller
            return True

    def succeeded(self) -> None:
        with self._lock:
            self._failures = self._opened = 0

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= FAILURES:
                self._rests_until = time.monotonic() + self._pause()
                self._opened += 1

    @property
    def is_open(self) -> bool:
        """Whether the server is being left alone."""
        return self._failures >= FAILURES

    def _pause(self) -> float:
        longest: float = min(LONGEST_SECONDS, FIRST_SECONDS * 2**self._opened)
        return longest * (1 + random.random()) / 2  # noqa: S311
