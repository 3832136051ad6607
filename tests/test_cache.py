"""The cache of hot limits on a real Valkey: what it gives is right whatever happens to it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis

from pgrisk.client import embedded_cache
from pgrisk.client.cache import LimitCache
from pgrisk.client.cache_store import Store
from pgrisk.client.errors import NotAllowed
from pgrisk.client.limit_reader import LimitReader
from pgrisk.client.risk_client import RiskClient
from tests.orders import Caller, all_at_once, open_firm, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from decimal import Decimal

    from pgrisk.client.embedded_cache import CacheServer
    from pgrisk.client.limits import HotLimits
    from tests.databases import Database

Plain = Any  # a client of Valkey, whose methods are typed for both its forms at once
KEYS = "pgrisk:1:*:limits:A1:AAPL"


class CountingReader(LimitReader):
    """Counts what it reads, and can be kept from returning it."""

    reads = 0
    before_return: Callable[[], None] | None = None

    def hot_limits_document(self, scope: str, symbol: str | None) -> str:
        document = super().hot_limits_document(scope, symbol)
        self.reads += 1
        if self.before_return is not None:
            self.before_return()
        return document


class Client:
    """One process, so to speak: a reader and a cache of its own."""

    def __init__(self, url: str, redis_url: str) -> None:
        self.reader = CountingReader(url, timeout=20)
        self.cache = LimitCache(self.reader, redis_url)

    def get(self, symbol: str = "AAPL") -> HotLimits:
        return self.cache.get("A1", symbol)

    def limit(self) -> Decimal:
        """The account's limit on AAPL, which tests change."""
        (found,) = [k for k in self.get().limits if k.scope == "A1"]
        return found.limit_value

    @property
    def hits(self) -> int:
        return self.cache.stats().hits

    def listens(self) -> bool:
        return self.cache.is_used

    def becomes_used(self) -> bool:
        """Whether reads find their way to Valkey and are hits."""
        before = self.hits
        self.get()
        self.get()
        return self.hits > before

    def close(self) -> None:
        self.cache.close()
        self.reader.close()


@pytest.fixture(scope="module")
def valkey() -> Iterator[CacheServer]:
    with embedded_cache.running() as server:
        yield server


@pytest.fixture
def store(valkey: CacheServer) -> Iterator[Plain]:
    """A plain client of the server, which is empty."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        caller.limit("A1", "net_position", 100)
        yield caller


@contextmanager
def clients(db: Database, server: CacheServer, number: int) -> Iterator[list[Client]]:
    """So many processes that listen."""
    opened = [Client(db.url, server.url) for _ in range(number)]
    try:
        for client in opened:
            wait_until(client.listens)
        yield opened
    finally:
        for client in opened:
            client.close()


@pytest.fixture
def client(db: Database, firm: Caller, valkey: CacheServer, store: Plain) -> Iterator[Client]:
    with clients(db, valkey, 1) as (only,):
        yield only


def entry(store: Plain) -> bytes:
    (key,) = store.keys(KEYS)
    found: bytes = key
    return found


def but_for_time(limits: HotLimits) -> HotLimits:
    return replace(limits, as_of=datetime.min)


# In order -----------------------------------------------------------------------------------------


def test_what_is_cached_is_what_the_database_says(client: Client) -> None:
    first = client.get()
    assert client.get() == first
    assert but_for_time(client.reader.hot_limits("A1", "AAPL")) == but_for_time(first)
    stats = client.cache.stats()
    assert (stats.hits, stats.misses, stats.fills, stats.bypasses) == (1, 1, 1, 0)
    assert client.cache.get("D1").symbol is None
    assert client.cache.get("D1") != client.get()


def test_another_process_hits_what_one_has_loaded(
    db: Database, firm: Caller, valkey: CacheServer, store: Plain
) -> None:
    with clients(db, valkey, 2) as (one, two):
        two.get("MSFT")  # by which it knows the database's clock
        first = one.get()
        assert two.get() == first
        assert (one.reader.reads, two.reader.reads) == (1, 1)


def test_scopes_and_symbols_that_look_alike_are_kept_apart(
    client: Client, firm: Caller, store: Plain
) -> None:
    firm.call("create_scope", code="A:B", kind="firm")
    firm.call("upsert_instruments", instruments='[{"symbol": "A:AAPL", "kind": "stock"}]')
    for scope, symbol in (("A:B", "AAPL"), ("A:B", None), ("A1", "A:AAPL")):
        wait_until(lambda: client.cache.is_used)
        for _ in range(2):
            found = client.cache.get(scope, symbol)
            assert (found.scope, found.symbol) == (scope, symbol)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda f: f.limit("A1", "net_position", 7), lambda g: g.limits[0].limit_value == 7),
        (
            lambda f: f.call("set_trading_state", scope="F", state="HALTED", reason="stop"),
            lambda g: g.state == "HALTED",
        ),
        (
            lambda f: f.call("set_instrument_status", symbol="AAPL", status="BLOCKED", reason="x"),
            lambda g: g.instrument_status == "BLOCKED",
        ),
    ],
    ids=["limit", "state", "status"],
)
def test_a_change_shows_as_soon_as_it_is_heard_of(
    client: Client,
    firm: Caller,
    change: Callable[[Caller], None],
    shown: Callable[[HotLimits], bool],
) -> None:
    client.get()
    before = firm.value("select version from risk.limit_cache()")
    change(firm)
    version = firm.value("select version from risk.limit_cache()")
    assert version == before + 1
    wait_until(lambda: client.get().version == version)
    assert shown(client.get())


def test_a_change_whose_notice_is_lost_shows_too(client: Client, firm: Caller) -> None:
    client.get()
    firm.rows("alter table risk_private.limit_changes disable trigger all")
    firm.limit("A1", "net_position", 7)
    firm.rows("update risk_private.limit_version set version = version + 1")
    wait_until(lambda: client.limit() == 7)


def test_entries_do_not_outlive_two_seconds(client: Client, store: Plain) -> None:
    first = client.get()
    left = store.pttl(entry(store))
    assert isinstance(left, int)
    assert 0 < left <= 2000
    store.persist(entry(store))
    wait_until(lambda: client.get().as_of > first.as_of)


def test_nor_the_moment_at_which_a_limit_ends_by_itself(
    client: Client, firm: Caller, store: Plain
) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=1)
    firm.limit("A1", "net_position", 7, valid_until=ends)
    wait_until(lambda: client.limit() == 7 or datetime.now(UTC) > ends)
    for key in store.keys(KEYS):
        store.persist(key)
    wait_until(lambda: datetime.now(UTC) > ends)
    assert client.limit() == 100


def test_the_use_of_limits_is_at_most_two_seconds_old(client: Client, firm: Caller) -> None:
    client.get()
    firm.check("A1", "a", "AAPL", "buy", 10, 100)
    wait_until(lambda: client.get().limits[0].worst_case == 10)


def test_without_redis_everything_comes_from_the_database(db: Database, firm: Caller) -> None:
    threads = threading.active_count()
    with CountingReader(db.url) as reader, LimitCache(reader) as cache:
        assert not cache.is_used
        assert cache.get("A1", "AAPL").limits[0].limit_value == 100
        firm.limit("A1", "net_position", 7)
        assert cache.get("A1", "AAPL").limits[0].limit_value == 7
        assert (cache.stats().bypasses, reader.reads) == (2, 2)
        assert not [t for t in threading.enumerate() if t.name == "pgrisk-limit-changes"]
    assert threading.active_count() <= threads + 1


def test_a_role_is_given_nothing_that_another_may_see(
    db: Database, client: Client, firm: Caller, valkey: CacheServer
) -> None:
    client.get()
    firm.call("grant_trading", role=db.create_user("ann", "risk_trader"), scope="B1")
    ann = Client(db.url_for("ann"), valkey.url)
    try:
        wait_until(lambda: ann.cache.is_used)
        with pytest.raises(NotAllowed):
            ann.get()
        assert ann.cache.get("B1", "AAPL").scope == "B1"
    finally:
        ann.close()


# Races --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_late_fill_is_never_given_to_anybody(
    db: Database, firm: Caller, valkey: CacheServer, store: Plain, is_flushed: bool
) -> None:
    """One reads version n; the limit changes; all hear of it; only then the one stores what it
    has read."""
    with clients(db, valkey, 2) as (slow, other), ThreadPoolExecutor(1) as pool:
        has_read, may_store = threading.Event(), threading.Event()

        def stop() -> None:
            has_read.set()
            assert may_store.wait(60)

        slow.reader.before_return = stop
        late = pool.submit(slow.limit)
        assert has_read.wait(60)
        firm.limit("A1", "net_position", 7)
        version = firm.value("select version from risk.limit_cache()")
        wait_until(lambda: store.get(store.keys("*:floor")[0]) == str(version).encode())
        if is_flushed:
            store.flushall()
        may_store.set()
        assert late.result() == 100  # asked before the change
        assert slow.cache.stats().refused_fills == 1
        assert store.keys(KEYS) == []
        slow.reader.before_return = None
        wait_until(lambda: slow.limit() == 7)
        assert [other.limit(), slow.limit(), other.limit()] == [7, 7, 7]


def test_a_fill_older_than_what_is_there_is_refused(
    db: Database, firm: Caller, valkey: CacheServer, store: Plain
) -> None:
    """The slow one's lease has expired, another has loaded what is newer."""
    with clients(db, valkey, 2) as (slow, other), ThreadPoolExecutor(1) as pool:
        has_read, may_store = threading.Event(), threading.Event()

        def stop() -> None:
            has_read.set()
            assert may_store.wait(60)

        slow.reader.before_return = stop
        late = pool.submit(slow.limit)
        assert has_read.wait(60)
        (lease,) = store.keys("*:lease:A1:AAPL")
        token = store.get(lease)
        store.delete(lease)
        firm.limit("A1", "net_position", 7)
        wait_until(lambda: other.limit() == 7)
        wait_until(lambda: store.keys(KEYS) != [])
        newest = store.get(entry(store))
        store.set(lease, token)
        store.delete(*store.keys("*:floor"))
        may_store.set()
        late.result()
        assert slow.cache.stats().refused_fills == 1
        assert store.get(entry(store)) == newest


def test_what_others_were_reading_before_a_change_is_not_shared_after_it(
    client: Client, firm: Caller
) -> None:
    has_read, may_return = threading.Event(), threading.Event()

    def stop() -> None:
        has_read.set()
        assert may_return.wait(60)

    client.reader.before_return = stop
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(client.limit)
        assert has_read.wait(60)
        firm.limit("A1", "net_position", 7)
        version = firm.value("select version from risk.limit_cache()")
        listener: Any = client.cache._listener
        wait_until(lambda: listener.version == version)
        client.reader.before_return = None
        later = pool.submit(client.limit)
        may_return.set()
        assert early.result() == 100
        assert later.result() == 7


def test_many_threads_that_miss_together_read_once(client: Client) -> None:
    barrier = threading.Event()

    def stop() -> None:
        assert barrier.wait(60)

    client.reader.before_return = stop
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(client.get) for _ in range(16)]
        wait_until(lambda: client.reader.reads == 1)
        wait_until(lambda: client.cache.stats().misses == 16)
        barrier.set()
        assert len({answer.result() for answer in answers}) == 1
    stats = client.cache.stats()
    assert (client.reader.reads, stats.shared, stats.fills) == (1, 15, 1)


def test_processes_that_miss_together_read_once(
    db: Database,
    firm: Caller,
    valkey: CacheServer,
    store: Plain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All the patience they need: who waits too long reads for himself."""
    monkeypatch.setattr("pgrisk.client.cache.WAIT_SECONDS", 60)
    monkeypatch.setattr("pgrisk.client.cache_store.LEASE_MILLISECONDS", 60_000)
    monkeypatch.setattr("pgrisk.client.cache_store.TIMEOUT_SECONDS", 60)
    with clients(db, valkey, 4) as opened:
        for each in opened:
            each.get("MSFT")
        before = sum(each.reader.reads for each in opened)
        answers = all_at_once([each.get for each in opened])
        assert len(set(answers)) == 1
        assert sum(each.reader.reads for each in opened) == before + 1


def test_a_process_that_looked_before_another_had_loaded_reads_nothing(
    db: Database,
    firm: Caller,
    valkey: CacheServer,
    store: Plain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with clients(db, valkey, 2) as (early, late):
        late.get("MSFT")
        before = late.reader.reads
        lease = Store.lease

        def lease_late(self: Store, name: str) -> bool | None:
            monkeypatch.setattr(Store, "lease", lease)
            early.get()
            return lease(self, name)

        monkeypatch.setattr(Store, "lease", lease_late)
        assert late.get() == early.get()
        assert late.reader.reads == before
        assert store.keys("*lease*") == []


# Trouble ------------------------------------------------------------------------------------------


def forge(store: Plain, how: Callable[[bytes], bytes]) -> None:
    store.set(entry(store), how(store.get(entry(store))))


def other_entry(store: Plain) -> None:
    (other,) = store.keys("pgrisk:1:*:limits:A1:MSFT")
    store.set(entry(store), store.get(other))


def as_hash(store: Plain) -> None:
    for kind in ("limits:A1:AAPL", "lease:A1:AAPL", "floor"):
        key = entry(store).decode().replace("limits:A1:AAPL", kind)
        store.delete(key)
        store.hset(key, "a", "b")


FORGERIES: dict[str, Callable[[Plain], object]] = {
    "empty": lambda s: forge(s, lambda _: b""),
    "garbage": lambda s: forge(s, lambda _: b"\x00\xff garbage"),
    "plain document": lambda s: forge(s, lambda value: value.split(b" ", 2)[2]),
    "other amount": lambda s: forge(
        s, lambda v: v.replace(b'"limit_value": "100"', b'"limit_value": "999"')
    ),
    "later version": lambda s: forge(s, lambda v: b"9" * 15 + b" " + v.split(b" ", 1)[1]),
    "other format": lambda s: forge(s, lambda v: b"2 " + v),
    "other entry": other_entry,
    "other types": as_hash,
    "high floor": lambda s: s.set(entry(s).decode().replace("limits:A1:AAPL", "floor"), 10**15),
    "odd floor": lambda s: s.set(entry(s).decode().replace("limits:A1:AAPL", "floor"), "9e9x"),
    "foreign lease": lambda s: s.set(
        entry(s).decode().replace("limits:A1:AAPL", "lease:A1:AAPL"), "mine", px=200
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_is_forged_is_ignored_and_replaced(client: Client, store: Plain, forgery: str) -> None:
    client.get("MSFT")
    client.get()
    FORGERIES[forgery](store)
    if forgery == "foreign lease":
        store.delete(entry(store))
    for _ in range(3):
        assert client.limit() == 100
    store.delete(*[k for k in store.keys("*") if store.type(k) == b"hash"] or ["none"])
    wait_until(client.becomes_used)


def stall(server: CacheServer, store: Plain) -> None:
    psutil.Process(server.pid).suspend()


def kill(server: CacheServer, store: Plain) -> None:
    psutil.Process(server.pid).kill()
    psutil.Process(server.pid).wait(60) if psutil.pid_exists(server.pid) else None


def fill_up(server: CacheServer, store: Plain) -> None:
    store.flushall()
    store.config_set("maxmemory", int(store.info()["used_memory"]) + 200_000)
    with suppress(redis.OutOfMemoryError):
        for number in range(1000):
            store.set(f"junk {number}", b"x" * 10_000)
        raise AssertionError("it does not get full")


TROUBLES: dict[str, Callable[[CacheServer, Plain], object]] = {
    "none": lambda server, store: None,
    "flushed": lambda server, store: store.flushall(),
    "stalled": stall,
    "killed": kill,
    "full": fill_up,
    "forged": lambda server, store: FORGERIES["other amount"](store),
    "read-only": lambda server, store: store.replicaof("127.0.0.1", "1"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_in_any_trouble_reads_and_decisions_are_right(
    db: Database, firm: Caller, trouble: str
) -> None:
    settings = {"maxmemory-policy": "noeviction"}
    with (
        embedded_cache.running(settings) as server,
        redis.Redis.from_url(server.url) as plain,
        RiskClient(db.url) as risk,
        clients(db, server, 1) as (client,),
    ):
        client.get()
        TROUBLES[trouble](server, plain)
        decisions = [
            risk.check_order("A1", f"{number}", "AAPL", "buy", 40, 100) for number in range(4)
        ]
        assert [d.decision for d in decisions] == ["ACCEPTED", "ACCEPTED", "REJECTED", "REJECTED"]
        assert decisions[2].allowed_quantity == 20
        for _ in range(8):
            assert client.limit() == 100
        firm.limit("A1", "net_position", 7)
        wait_until(lambda: client.limit() == 7)
        wait_until(lambda: client.get().limits[0].worst_case == 80)
        if trouble in ("stalled", "killed"):
            assert not client.cache.is_used
            assert client.cache.stats().bypasses > 0
        if trouble == "stalled":
            assert client.cache.stats().timeouts >= 3
            psutil.Process(server.pid).resume()
            wait_until(client.becomes_used)
        if trouble in ("none", "flushed", "forged"):
            wait_until(client.becomes_used)


def test_a_listener_that_is_cut_off_comes_back(client: Client, firm: Caller) -> None:
    """Until then nothing can be known to be current: the database is read."""
    listening = (
        "select pid from pg_stat_activity where query ~ 'limit_cache' and pid <> pg_backend_pid()"
    )
    client.get()
    (before,) = firm.rows(listening)
    firm.rows("select pg_terminate_backend(%s)", before["pid"])
    firm.limit("A1", "net_position", 7)
    wait_until(lambda: client.limit() == 7)
    wait_until(lambda: firm.rows(listening) not in ([], [before]))
    wait_until(client.becomes_used)


def test_a_listener_that_hears_nothing_any_more_is_not_trusted(
    client: Client, firm: Caller
) -> None:
    (row,) = firm.rows(
        "select pid from pg_stat_activity where query ~ 'limit_cache' and pid <> pg_backend_pid()"
    )
    backend = psutil.Process(row["pid"])
    client.get()
    backend.suspend()
    try:
        wait_until(lambda: not client.cache.is_used)
        bypasses = client.cache.stats().bypasses
        firm.limit("A1", "net_position", 7)
        assert client.limit() == 7
        assert client.cache.stats().bypasses == bypasses + 1
    finally:
        backend.resume()
    wait_until(client.becomes_used)


def test_anybody_may_notify_and_nothing_happens(client: Client, firm: Caller) -> None:
    client.get()
    for payload in ("", "x", "9" * 30, "-1"):
        firm.rows("select pg_notify('risk_limits', %s)", payload)
    wait_until(client.becomes_used)


def test_a_cache_server_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(embedded_cache.EmbeddedCacheError, match="did not start"),
        embedded_cache.running({"no-such-setting": "1"}),
    ):
        pass


def test_the_embedded_server_is_its_owners_alone_and_ends_with_the_block() -> None:
    with embedded_cache.running() as server:
        process: Any = psutil.Process(server.pid)
        connections = process.net_connections(kind="inet")
        assert connections == []
    assert not psutil.pid_exists(server.pid)
