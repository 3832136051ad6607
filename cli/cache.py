"""`pgrisk cache`: the cache of hot limits in Redis or Valkey."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click
import redis

from pgrisk.client import cache_store
from pgrisk.client.cache import CacheStats
from pgrisk.client.settings import cache_url

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 2.0
BATCH = 500


@click.group()
def cache() -> None:
    """Look into and empty the cache of hot limits.

    It is the Redis or Valkey that PGRISK_REDIS_URL names. Decisions never read it, and everything
    works without it.
    """


@cache.command()
def stats() -> None:
    """Show what the cache holds, and what its clients have counted in the last week.

    One line per login and database. hits came from the cache, misses were loaded into it, bypasses
    went to the database because the cache did not answer or changes could not be heard of.

    Exit code 1 when no cache is set, or it does not answer.

    \b
      pgrisk cache stats
      PGRISK_REDIS_URL=redis://cache.example:6379/0 pgrisk cache stats
    """
    with _connection() as server:
        asked_at = time.perf_counter()
        server.ping()
        milliseconds = (time.perf_counter() - asked_at) * 1000
        info = server.info()
        entries = sum(1 for _ in server.scan_iter(f"{cache_store.PREFIX}:*:limits:*", BATCH))
        clients = [
            {name.decode(): value.decode() for name, value in server.hgetall(key).items()}
            for key in server.scan_iter(f"{cache_store.PREFIX}:*:stats", BATCH)
        ]
    version = info.get("valkey_version") or info.get("redis_version")
    most = info.get("maxmemory_human") if info.get("maxmemory") else "no limit"
    click.echo(f"server   {info.get('server_name', 'redis')} {version}, {milliseconds:.1f} ms")
    click.echo(f"memory   {info.get('used_memory_human')} of {most}")
    click.echo(f"entries  {entries}")
    names = [field.name for field in fields(CacheStats)]
    rows = [["login@database", *names, "hit %"]]
    for counted in sorted(clients, key=lambda each: each.get("who", "")):
        numbers = {name: int(counted.get(name, 0)) for name in names}
        tried = numbers["hits"] + numbers["misses"]
        share = f"{100 * numbers['hits'] / tried:.1f}" if tried else ""
        rows.append([counted.get("who", "?"), *map(str, numbers.values()), share])
    if clients:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            click.echo("  ".join(cells).rstrip())


@cache.command()
def flush() -> None:
    """Take away everything that pgrisk has put into the cache, its counters too.

    Safe at any time: the next reads load from the database. Other keys of the server stay.

    Exit code 1 when no cache is set, or it does not answer.

    \b
      pgrisk cache flush
      PGRISK_REDIS_URL=redis://cache.example:6379/0 pgrisk cache flush
    """
    taken = 0
    with _connection() as server:
        keys = []
        for key in server.scan_iter("pgrisk:*", BATCH):
            keys.append(key)
            if len(keys) == BATCH:
                taken += server.unlink(*keys)
                keys = []
        if keys:
            taken += server.unlink(*keys)
    click.echo(f"{taken} keys taken away")


@contextmanager
def _connection() -> Iterator[Any]:
    url = cache_url()
    if url is None:
        raise click.ClickException(
            "no cache is set: PGRISK_REDIS_URL should name a Redis or Valkey, "
            "like redis://host:6379/0"
        )
    server = cache_store.connect(url, SECONDS)
    try:
        yield server
    except redis.RedisError as error:
        raise click.ClickException(f"the cache does not answer: {error}") from error
    finally:
        server.close()
