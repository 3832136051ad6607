"""Signed entries in Redis or Valkey, none of which replaces a newer one.

Keys, below `pgrisk:<format>:<namespace>`, where the namespace stands for one role of one database:

- `limits:<scope>[:<symbol>]`: `<version> <signature> <document>`, for at most two seconds;
- `lease:<the same>`: who is loading it, so that one process loads and a late one does not store;
- `floor`: the version of the last change that was heard of; entries of earlier ones are void;
- `stats`: what the clients of that role have counted.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pgrisk.client.circuit import Circuit

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
FORMAT = 1
PREFIX = f"pgrisk:{FORMAT}"
TIMEOUT_SECONDS = 0.05
LEASE_MILLISECONDS = 1000
FLOOR_MILLISECONDS = 10_000  # longer than any entry or lease of before may live
STATS_SECONDS = 7 * 24 * 3600

# Only who still holds the lease stores, and only what is not older than the last change heard of or
# what is there. A flush, a change or a second has taken the lease away from whoever was too slow.
_FILL = """
if redis.call('get', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('del', KEYS[2])
local version = tonumber(ARGV[2])
if (tonumber(redis.call('get', KEYS[3]) or 0) or 0) > version then return 0 end
local kept = redis.call('get', KEYS[1])
if kept and (tonumber(string.match(kept, '^(%d+) ')) or 0) > version then return 0 end
redis.call('set', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
"""
_RAISE = """
if (tonumber(redis.call('get', KEYS[1]) or 0) or 0) < tonumber(ARGV[1]) then
  redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
"""


@dataclass(frozen=True)
class Entry:
    """What a look into the cache found. Without a document: nothing that can be trusted."""

    document: bytes | None
    floor: int


class Store:
    """The entries of one role of one database, as its signing key tells."""

    def __init__(self, url: str, signing_key: str, counts: Counts) -> None:
        self._key = signing_key.encode()
        namespace = hashlib.sha256(b"namespace " + self._key).hexdigest()[:16]
        self._prefix = f"{PREFIX}:{namespace}"
        self._floor = f"{self._prefix}:floor"
        self._counts = counts
        self._token = secrets.token_hex(8)  # of this client: a restarted one holds no lease
        self.circuit = Circuit()
        self._redis = connect(url, TIMEOUT_SECONDS)
        self._fill = self._redis.register_script(_FILL)
        self._raise = self._redis.register_script(_RAISE)

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()

    def look(self, name: str) -> Entry | None:
        """What is there, or None where Redis does not answer in time."""
        found = self._ask(lambda: self._redis.mget(self._entry(name), self._floor))
        if found is None:
            return None
        value, floor = cast("list[bytes | None]", found)
        newest = int(floor) if floor and floor.isdigit() else 0
        if value is None:
            return Entry(None, newest)
        document = self._verified(name, value, newest)
        if document is None:
            self._counts.add("rejects")
            self._forget(self._entry(name))  # else it might keep a good one out
        return Entry(document, newest)

    def _verified(self, name: str, value: bytes, floor: int) -> bytes | None:
        version, _, signed = value.partition(b" ")
        signature, _, document = signed.partition(b" ")
        if not version.isdigit() or int(version) < floor:
            return None
        expected = self._signature(name, version, document)
        return document if hmac.compare_digest(signature, expected) else None

    def lease(self, name: str) -> bool | None:
        """Whether this client is the one to load the entry now; None where Redis does not say."""
        return self._ask(
            lambda: bool(
                self._redis.set(self._lease(name), self._token, nx=True, px=LEASE_MILLISECONDS)
            )
        )

    def release(self, name: str) -> None:
        """Gives back a lease under which nothing had to be loaded."""
        self._forget(self._lease(name))

    def fill(self, name: str, version: int, document: bytes, milliseconds: int) -> bool:
        """Stores what was loaded under a lease, unless it came too late."""
        number = str(version).encode()
        value = b" ".join([number, self._signature(name, number, document), document])
        stored = self._ask(
            lambda: self._fill(
                keys=[self._entry(name), self._lease(name), self._floor],
                args=[self._token, version, value, milliseconds],
            )
        )
        self._counts.add("fills" if stored else "refused_fills")
        return bool(stored)

    def raise_floor(self, version: int) -> None:
        """Makes every entry of an earlier version void."""
        self._ask(lambda: self._raise(keys=[self._floor], args=[version, FLOOR_MILLISECONDS]))

    def forget_floor(self) -> None:
        """Takes away a floor that cannot be right."""
        self._forget(self._floor)

    def publish(self, who: str) -> None:
        """Adds what was counted since the last time to what `pgrisk cache stats` shows."""
        counted = self._counts.take()
        if not counted:
            return
        key = f"{self._prefix}:stats"
        pipeline = self._redis.pipeline(transaction=False)
        for name, number in counted.items():
            pipeline.hincrby(key, name, number)
        pipeline.hset(key, "who", who)
        pipeline.expire(key, STATS_SECONDS)
        if self._ask(pipeline.execute) is None:
            self._counts.put_back(counted)

    def _ask(self, question: Callable[[], T]) -> T | None:
        """The answer of Redis, or None where it gives none."""
        if not self.circuit.allows():
            return None
        try:
            answer = question()
        except redis.TimeoutError:
            self._counts.add("timeouts")
            self.circuit.failed()
        except redis.ConnectionError:
            self._counts.add("errors")
            self.circuit.failed()
        except redis.RedisError:
            self._counts.add("errors")  # it answers, if only that it is full or read-only
            self.circuit.succeeded()
        else:
            self.circuit.succeeded()
            return answer
        return None

    def _forget(self, key: str) -> None:
        self._ask(lambda: self._redis.unlink(key))

    def _entry(self, name: str) -> str:
        return f"{self._prefix}:limits:{name}"

    def _lease(self, name: str) -> str:
        return f"{self._prefix}:lease:{name}"

    def _signature(self, name: str, version: bytes, document: bytes) -> bytes:
        signed = b"\n".join([str(FORMAT).encode(), name.encode(), version, document])
        return hmac.digest(self._key, signed, "sha256").hex().encode()


class Counts:
    """Counters of a cache: in all, and since they were last published."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: Counter[str] = Counter()
        self._new: Counter[str] = Counter()

    def add(self, name: str) -> None:
        with self._lock:
            self._all[name] += 1
            self._new[name] += 1

    def all(self) -> dict[str, int]:
        """Everything that was ever counted here."""
        with self._lock:
            return dict(self._all)

    def take(self) -> dict[str, int]:
        """What is new since the last time."""
        with self._lock:
            counted, self._new = self._new, Counter()
            return dict(counted)

    def put_back(self, counted: dict[str, int]) -> None:
        with self._lock:
            self._new.update(counted)


def connect(url: str, timeout: float) -> redis.Redis:
    """A client that gives up after so many seconds and never repeats anything."""
    client: redis.Redis = redis.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,
    )
    return client


def name_of(scope: str, symbol: str | None) -> str:
    """How a scope and a symbol are written in a key: no two pairs alike."""
    return ":".join(quote(part, safe="") for part in (scope, symbol) if part is not None)
