"""`pgrisk cache`, and what names the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis
from click.testing import CliRunner

from pgrisk.cli.main import main
from pgrisk.client import embedded_cache
from pgrisk.client.cache import LimitCache
from pgrisk.client.limit_reader import LimitReader
from pgrisk.client.settings import SettingsError, cache_url
from tests.orders import open_firm, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

    from pgrisk.client.embedded_cache import CacheServer
    from tests.databases import Database


@pytest.fixture
def valkey(monkeypatch: pytest.MonkeyPatch) -> Iterator[CacheServer]:
    with embedded_cache.running() as server:
        monkeypatch.setenv("PGRISK_REDIS_URL", server.url)
        yield server


def pgrisk(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cache", *arguments])


def test_stats_count_what_clients_did_and_flush_takes_our_keys_alone(
    db: Database, valkey: CacheServer
) -> None:
    plain: Any = redis.Redis.from_url(valkey.url)
    plain.set("somebody else's", "value")
    assert pgrisk("stats").output.splitlines()[-1] == "entries  0"
    with (
        open_firm(db),
        LimitReader(db.url) as reader,
        LimitCache(reader, cache_url()) as cache,
    ):
        wait_until(lambda: cache.is_used)
        for _ in range(4):
            cache.get("A1", "AAPL")
        wait_until(lambda: len(plain.keys("pgrisk:*:stats")) == 1)
        assert cache.stats().hits == 3
    shown = pgrisk("stats")
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0].startswith("server   valkey ")
    assert lines[1].endswith("of 64.00M")
    counted = dict(zip(lines[-2].replace("hit %", "hit").split(), lines[-1].split(), strict=True))
    assert counted["login@database"] == f"postgres@{db.name}"
    assert (counted["hits"], counted["misses"], counted["hit"]) == ("3", "1", "75.0")
    assert (counted["fills"], counted["errors"]) == ("1", "0")
    flushed = pgrisk("flush")
    assert flushed.exit_code == 0
    assert "keys taken away" in flushed.output
    assert plain.keys("*") == [b"somebody else's"]
    plain.close()


def test_flush_takes_any_number_of_keys(valkey: CacheServer) -> None:
    plain: Any = redis.Redis.from_url(valkey.url)
    plain.mset({f"pgrisk:0:old:{number}": "x" for number in range(1201)})
    assert pgrisk("flush").output == "1201 keys taken away\n"
    assert plain.dbsize() == 0
    plain.close()


@pytest.mark.parametrize("command", ["stats", "flush"])
def test_without_a_cache_they_say_so(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGRISK_REDIS_URL", raising=False)
    assert cache_url() is None
    answer = pgrisk(command)
    assert answer.exit_code == 1
    assert "PGRISK_REDIS_URL" in answer.stderr
    monkeypatch.setenv("PGRISK_REDIS_URL", "redis://:hush@127.0.0.1:1/0")
    answer = pgrisk(command)
    assert answer.exit_code == 1
    assert "does not answer" in answer.stderr
    assert "hush" not in answer.output


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "http://localhost",
        "redis://",
        "redis://:hush@[::1",
        "redis://h:hush",
        "redis://h:0",
        "unix://",
    ],
)
def test_a_malformed_address_is_not_repeated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRISK_REDIS_URL", url)
    with pytest.raises(SettingsError) as caught:
        cache_url()
    assert "malformed" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert pgrisk("stats").exit_code == 1


@pytest.mark.parametrize(
    "url",
    ["redis://h", "rediss://u:p@h:6379/1", "unix:///run/valkey.sock", "redis://[::1]:6379"],
)
def test_every_kind_of_address_is_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRISK_REDIS_URL", url)
    assert cache_url() == url


@pytest.mark.parametrize("command", ["stats", "flush"])
def test_help_has_examples_and_exit_codes(command: str) -> None:
    answer = pgrisk(command, "--help")
    assert f"pgrisk cache {command}\n" in answer.output
    assert "Exit code 1" in answer.output
