"""Hot limits, read through a cache in Redis or Valkey, for pre-screens and displays.

What is given was read from the database at most two seconds ago and, once a change is heard of (a
few milliseconds after its commit), not before it. Where Redis is slow, full, empty, forged or not
there, the answer comes from the database. Decisions never read any of this.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from pgrisk.client.cache_store import Counts, Entry, Store, name_of
from pgrisk.client.change_listener import ChangeListener
from pgrisk.client.limits import HotLimits

if TYPE_CHECKING:
    from types import TracebackType

    from pgrisk.client.limit_reader import LimitReader

LIFE_SECONDS = 2.0
"""An entry is of no use any more this long after the database was read."""
WAIT_SECONDS = 0.05
"""How long to wait for another process that is loading the same entry."""
LOOK_AGAIN_SECONDS = 0.005


@dataclass(frozen=True)
class CacheStats:
    """What a LimitCache has counted since it was made.

    Of the reads: `hits` came from Redis, `misses` were loaded because Redis had nothing of use,
    `bypasses` went to the database because Redis did not answer or changes could not be heard of,
    `shared` took what another thread was loading. Beside that: entries `rejected` (forged, of
    another version, before the last change), time-outs and errors of Redis, entries stored and
    not stored (too late, or refused).
    """

    hits: int = 0
    misses: int = 0
    bypasses: int = 0
    shared: int = 0
    rejects: int = 0
    timeouts: int = 0
    errors: int = 0
    fills: int = 0
    refused_fills: int = 0


@dataclass
class _Flight:
    """A load under way in this process, for other threads to share."""

    done: threading.Event = field(default_factory=threading.Event)
    found: HotLimits | None = None


class LimitCache:
    """Reads of hot limits, for all threads of a process to share.

        with LimitReader(database_url()) as reader, LimitCache(reader, cache_url()) as cache:
            limits = cache.get("A1", "AAPL")

    Without a `redis_url` every read goes to the database. With one, a thread with a connection of
    its own listens for changes. Entries are signed with a key that the database gives to the role,
    so that nobody else can make one that is believed.
    """

    def __init__(self, reader: LimitReader, redis_url: str | None = None) -> None:
        self._reader, self._redis_url = reader, redis_url
        self._counts = Counts()
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}
        self._store: Store | None = None
        self._signing_key = ""
        # The database's clock, as a reading of it and of ours from before it was read.
        self._clock: tuple[float, float] | None = None
        self._listener: ChangeListener | None = None
        if redis_url is not None:
            self._listener = ChangeListener(reader.url, self._changed, self._rested)
            self._listener.start()

    def close(self) -> None:
        """Stop listening, and close the connections to Redis; the reader stays open."""
        if self._listener is not None:
            self._listener.stop()
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_used(self) -> bool:
        """Whether reads try Redis now: changes are heard of, and Redis answers."""
        store, listener = self._store, self._listener
        return (
            store is not None
            and listener is not None
            and (listener.is_live and not store.circuit.is_open)
        )

    def stats(self) -> CacheStats:
        """What was counted so far."""
        return CacheStats(**self._counts.all())

    def get(self, scope: str, symbol: str | None = None) -> HotLimits:
        """The limits that bind orders of `scope` in `symbol`, their use, and the state.

        Raises what LimitReader.hot_limits raises.
        """
        store, listener = self._store, self._listener
        if store is None or listener is None or not listener.is_live:
            self._counts.add("bypasses")
            return self._read(scope, symbol)[0]
        name = name_of(scope, symbol)
        entry = store.look(name)
        if entry is None:
            self._counts.add("bypasses")
            return self._load(scope, symbol, name, listener.version, store=None)
        oldest = max(listener.version, entry.floor)
        found = self._usable(entry, oldest)
        if found is not None:
            self._counts.add("hits")
            return found
        if entry.document is not None:
            self._counts.add("rejects")
        self._counts.add("misses")
        return self._load(scope, symbol, name, oldest, store)

    def _load(
        self, scope: str, symbol: str | None, name: str, oldest: int, store: Store | None
    ) -> HotLimits:
        """From the database, by one thread for all that ask for the same."""
        with self._lock:
            flight = self._flights.get(name)
            leads = flight is None
            if flight is None:
                flight = self._flights[name] = _Flight()
        if not leads:
            flight.done.wait(LIFE_SECONDS)
            # It may have been read before a change that was heard of since.
            if flight.found is not None and flight.found.version >= oldest:
                self._counts.add("shared")
                return flight.found
            return self._read(scope, symbol)[0]
        try:
            flight.found = (
                self._read(scope, symbol)[0]
                if store is None
                else self._read_and_fill(scope, symbol, name, oldest, store)
            )
            return flight.found
        finally:
            with self._lock:
                del self._flights[name]
            flight.done.set()

    def _read_and_fill(
        self, scope: str, symbol: str | None, name: str, oldest: int, store: Store
    ) -> HotLimits:
        holds_lease = store.lease(name)
        if holds_lease is False:
            loaded = self._wait_for_other(name, oldest, store)
            if loaded is not None:
                return loaded
        elif holds_lease:
            # Another process may have loaded it between the look and the lease.
            loaded = self._usable(store.look(name), oldest)
            if loaded is not None:
                store.release(name)
                return loaded
        found, document = self._read(scope, symbol)
        if found.version < oldest:
            # Read after that floor was seen, so the floor cannot be of this database.
            store.forget_floor()
        if holds_lease:
            life = LIFE_SECONDS * random.uniform(0.75, 1)  # noqa: S311
            if found.changes_at is not None:
                life = min(life, (found.changes_at - found.as_of).total_seconds())
            store.fill(name, found.version, document, max(1, int(life * 1000)))
        return found

    def _wait_for_other(self, name: str, oldest: int, store: Store) -> HotLimits | None:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN_SECONDS)
            entry = store.look(name)
            if entry is None:
                break
            found = self._usable(entry, oldest)
            if found is not None:
                return found
        return None

    def _read(self, scope: str, symbol: str | None) -> tuple[HotLimits, bytes]:
        before = time.monotonic()
        document = self._reader.hot_limits_document(scope, symbol)
        found = HotLimits.parse(document)
        self._clock = (before, found.as_of.timestamp())
        return found, document.encode()

    def _usable(self, entry: Entry | None, oldest: int) -> HotLimits | None:
        """What the entry holds, unless it is too old or from before a change."""
        if entry is None or entry.document is None or self._clock is None:
            return None
        try:
            found = HotLimits.parse(entry.document)
        except ValueError:
            return None
        before, as_of = self._clock
        now = as_of + time.monotonic() - before  # of the database, or slightly later
        oldest = max(oldest, entry.floor)
        if found.version < oldest or not 0 <= now - found.as_of.timestamp() <= LIFE_SECONDS:
            return None
        if found.changes_at is not None and found.changes_at.timestamp() <= now:
            return None
        return found

    def _changed(self, version: int, signing_key: str) -> None:
        if self._redis_url is not None and (
            self._store is None or signing_key != self._signing_key
        ):
            self._signing_key = signing_key
            self._store = Store(self._redis_url, signing_key, self._counts)
        if self._store is not None:
            self._store.raise_floor(version)

    def _rested(self, who: str) -> None:
        if self._store is not None:
            self._store.publish(who)
