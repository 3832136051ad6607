"""Reads of hot limits by 32 readers: through Valkey, and from the database."""

from __future__ import annotations

import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING

from pgrisk.client import embedded_cache
from pgrisk.client.cache import LimitCache
from pgrisk.client.limit_reader import LimitReader
from tests.bench.rows import Row

if TYPE_CHECKING:
    from tests.bench.firm import Firm

PROCESSES, THREADS = 4, 8
ACCOUNTS, SYMBOLS = 64, 4
WARM_UP = 1.0


def rows(firm: Firm, quick: bool) -> list[Row]:
    """The ratio of the medians; of interleaved pairs, the middle one."""
    seconds, pairs = (2.0, 1) if quick else (5.0, 3)
    ratios = []
    with embedded_cache.running() as server:
        for _ in range(pairs):
            cached = median(_latencies(firm.trader, server.url, seconds))
            ratios.append(cached / median(_latencies(firm.trader, None, seconds)))
    name = "cached limit read ÷ from the database, 32 readers, p50"
    return [Row(name, 0.7, 0.4, median(ratios), at_most=True)]


def _latencies(url: str, redis_url: str | None, seconds: float) -> list[float]:
    """Seconds that each read of each reader took."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=fresh) as pool:
        runs = [
            pool.submit(_process, url, redis_url, seconds, number) for number in range(PROCESSES)
        ]
        return [latency for run in runs for latency in run.result()]


def _process(url: str, redis_url: str | None, seconds: float, number: int) -> list[float]:
    with (
        LimitReader(url, min_size=THREADS, max_size=THREADS, timeout=30) as reader,
        LimitCache(reader, redis_url) as cache,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        start = time.monotonic() + WARM_UP
        readers = range(number * THREADS, (number + 1) * THREADS)
        runs = [pool.submit(_reader, cache, start, start + seconds, each) for each in readers]
        return [latency for run in runs for latency in run.result()]


def _reader(cache: LimitCache, start: float, end: float, number: int) -> list[float]:
    chance = random.Random(number)
    latencies = []
    while (before := time.monotonic()) < end:
        cache.get(f"A{chance.randint(1, ACCOUNTS)}", f"S{chance.randint(1, SYMBOLS)}")
        if before >= start:
            latencies.append(time.monotonic() - before)
    return latencies
