"""Portfolio risk: marks, ticks, revaluation, Greeks of the firm, and all limits at once."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING, Any

import psycopg

from tests.bench import book, breaker, firm, load
from tests.bench.rows import Row

if TYPE_CHECKING:
    from pathlib import Path

    from pgrisk.client.embedded import Server

    Connection = psycopg.Connection[tuple[Any, ...]]

BATCH = 1000
SYMBOLS = [f"S{number}" for number in range(1, firm.SYMBOLS + 1)]
STREAM_RATE, STREAM_BATCH = 10, 500
BARE_UPSERT = """
create table public.bare_marks (
  symbol text primary key, price numeric not null, bid numeric, ask numeric, iv float8,
  delta float8, gamma float8, vega float8, theta float8, rho float8, as_of timestamptz not null
) with (fillfactor = 50);
create procedure public.bare_upsert(symbols text[], prices numeric[], bids numeric[],
  asks numeric[], ivs float8[], deltas float8[], gammas float8[], vegas float8[],
  thetas float8[], rhos float8[])
language plpgsql as $$
begin
  perform set_config('synchronous_commit', 'off', true);  -- as set_marks does
  insert into public.bare_marks
  select t.*, now()
  from unnest(symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas, rhos) as t
  on conflict (symbol) do update set
    price = excluded.price, bid = excluded.bid, ask = excluded.ask, iv = excluded.iv,
    delta = excluded.delta, gamma = excluded.gamma, vega = excluded.vega,
    theta = excluded.theta, rho = excluded.rho, as_of = excluded.as_of;
end $$;
"""
BARE_GREEKS = """
select i.underlying_id, sum(p.quantity * i.multiplier * m.delta),
  sum(p.quantity * i.multiplier * m.gamma), sum(p.quantity * i.multiplier * m.vega),
  sum(p.quantity * i.multiplier * m.theta), sum(p.quantity * i.multiplier * m.rho),
  sum(p.quantity * i.multiplier * m.delta * s.price::float8), min(m.as_of)
from risk_private.positions as p
join risk_private.instruments as i on i.instrument_id = p.instrument_id
join risk_private.marks as m on m.instrument_id = p.instrument_id
join risk_private.marks as s on s.instrument_id = i.underlying_id
where p.quantity <> 0
group by i.underlying_id
"""
FIRM_GREEKS = "select * from risk.portfolio_greeks where scope = 'F'"
FIRM_DELTA = """
select g.dollar_delta from risk.portfolio_greeks as g where g.scope = 'F' and g.underlying is null
"""
# Every type of limit is in force once on each chain, beside those that the plain firm has on every
# level: orders, activity and obligations at accounts, Greeks at desks.
AT_ACCOUNTS = (
    *("order_quantity", "price_collar_pct", "long_position", "short_position", "gross_position"),
    *("open_positions", "duplicate_window", "self_cross", "order_rate", "order_rate_minute"),
    *("same_side", "max_loss", "buying_power", "daily_loss", "drawdown_pct"),
)
AT_DESKS = (
    *("delta", "gamma", "dollar_gamma", "vega", "theta"),
    *("gross_exposure", "net_exposure", "concentration_pct"),
)
# What a limit must not exceed where ten to the fourteenth makes no sense; the window is so short
# that chance repeats no order within it.
AMOUNTS = {"price_collar_pct": 50, "duplicate_window": 0.001, "self_cross": 1, "drawdown_pct": 100}
HELD = 200
"""Instruments in which every account has a position already."""
CHAINS, STRIKES = 5, range(80, 120, 4)
OPTIONS = 2 * CHAINS * len(STRIKES)
"""Calls and puts, all of which every account holds."""


class Portfolio:
    """Measures on one server."""

    def __init__(self, server: Server, pgbench: Path, directory: Path, quick: bool) -> None:
        self._server, self._pgbench, self._directory = server, pgbench, directory
        self._seconds, self._pairs = (3, 1) if quick else (10, 3)
        self.failed = 0
        self.owners: list[str] = []
        """The databases that were measured."""

    def rows(self) -> list[Row]:
        """Everything, on books made for it."""
        tick = book.create(self._server, "tick", 64, 1, 2000, 250)
        large = book.create(self._server, "large", 1000, 20, 2000, 100)
        plain = firm.create(self._server, "plain")
        limited = firm.create(self._server, "limited")
        _limit_everything(limited)
        _hold_options(limited)
        self.owners = [tick.owner, large.owner, plain.owner, limited.owner]
        marks = self._marks(plain)
        revaluation, greeks = self._revaluation_and_greeks(large)
        streaming = self._streaming(plain)
        shares, options = self._limited(limited)
        return [
            Row("`set_marks`, batches of 1,000 ÷ bare upsert", 0.4, 0.7, marks),
            Row(
                "tick: 2,000 options in 64 accounts (16,000 positions)",
                *(1000, 200, self._tick(tick)),
                at_most=True,
                unit=" ms",
            ),
            Row(
                "revaluation of 100,000 positions in 1,000 accounts",
                *(5, 1, revaluation),
                at_most=True,
                unit=" s",
            ),
            Row("`portfolio_greeks` of the firm ÷ bare sum", 2, 1.2, greeks, at_most=True),
            Row(
                "p99 of `check_order` at 1,000/s, 5,000 marks/s ÷ none",
                *(3, 1.5, streaming),
                at_most=True,
            ),
            Row("`check_order`, all limits ÷ floor, 8 clients", 0.22, 0.35, shares),
            Row("the same, orders in options", 0.22, 0.35, options),
        ]

    def _run(self, url: str, scripts: list[str], clients: int, **how: Any) -> load.Result:
        folder = self._directory / "feed" if how.pop("is_feed", False) else self._directory
        folder.mkdir(exist_ok=True)
        result = load.run(
            self._pgbench, url, scripts, folder, clients=clients, seconds=self._seconds, **how
        )
        self.failed += result.failed
        return result

    def _marks(self, of: firm.Firm) -> float:
        """Both are given the same arrays as text, 20 batches in turn, by one client.

        Nothing is held yet: what carrying positions costs is measured by itself.
        """
        with psycopg.connect(of.owner, autocommit=True) as connection:
            connection.execute(BARE_UPSERT.encode())
        bare = [_batch("public.bare_upsert", SYMBOLS, seed) for seed in range(20)]
        ours = [_batch("risk.set_marks", SYMBOLS, seed) for seed in range(20)]
        ratios = []
        for _ in range(self._pairs):
            floor = self._run(of.owner, bare, 1, mode="simple").rate
            ratios.append(self._run(of.owner, ours, 1, mode="simple").rate / floor)
        return median(ratios)

    def _tick(self, of: book.Book) -> float:
        """Milliseconds from the call until the view of the firm shows other Greeks."""
        taken = []
        with psycopg.connect(of.owner, autocommit=True) as connection:
            ivs = [0.2] * len(of.symbols)
            connection.execute(
                "call risk.set_marks(%s, %s::numeric[], ivs => %s)",
                [of.symbols, ["5"] * len(of.symbols), ivs],
            )
            for turn in range(2 + 3 * self._pairs):
                before = connection.execute(FIRM_DELTA.encode()).fetchone()
                started = time.perf_counter()
                connection.execute(f"call risk.remark_underlying('U0', {101 + turn})".encode())
                shown = connection.execute(FIRM_DELTA.encode()).fetchone()
                taken.append((time.perf_counter() - started) * 1000)
                assert shown != before, "the tick does not show"
        return median(taken[1:])

    def _revaluation_and_greeks(self, of: book.Book) -> tuple[float, float]:
        """Seconds to carry every position at a new mark; and the view beside the bare sum."""
        revaluations, ratios = [], []
        with psycopg.connect(of.owner, autocommit=True) as connection:
            for turn in range(1, 2 + self._pairs):
                book.mark(connection, of.symbols, turn)
                revaluations.append(_seconds(connection, "call risk.revalue()"))
                bare = _seconds(connection, BARE_GREEKS)
                ratios.append(_seconds(connection, FIRM_GREEKS) / bare)
        return median(revaluations[1:]), median(ratios[1:])

    def _streaming(self, of: firm.Firm) -> float:
        """Tails of decisions while a feed moves 5,000 marks a second in the same instruments.

        A worker runs, by which positions follow the marks: without one the feed would have to wait
        for that.
        """
        check = [load.script(load.CHECK)]
        marks = [_batch("risk.set_marks", SYMBOLS, seed, STREAM_BATCH) for seed in range(20)]
        ratios = []
        with breaker.worker(of), ThreadPoolExecutor(1) as pool:
            breaker.wait_for_leader(of)
            for _ in range(self._pairs):
                alone = self._run(of.trader, check, 32, rate=1000).p99
                feed = pool.submit(
                    self._run, of.owner, marks, 1, rate=STREAM_RATE, mode="simple", is_feed=True
                )
                ratios.append(self._run(of.trader, check, 32, rate=1000).p99 / alone)
                # Batches come at random, so how many came says little: one that is late, much.
                if feed.result().p99 > 1000:
                    raise SystemExit(f"the feed was {feed.result().p99:g} ms late")
        return median(ratios)

    def _limited(self, of: firm.Firm) -> tuple[float, float]:
        """Throughput with every type of limit in force, on a book of 12,800 positions in shares
        and 6,400 in options: of orders in the ones and in the others."""
        floor = [load.script(load.FLOOR, symbols=HELD)]
        shares = [load.script(load.CHECK, symbols=HELD)]
        options = [load.script(load.OPTION, symbols=OPTIONS)]
        ratios = []
        for _ in range(self._pairs):
            bare = self._run(of.trader, floor, 8).rate
            ratios.append(
                [self._run(of.trader, script, 8).rate / bare for script in (shares, options)]
            )
        with psycopg.connect(of.owner) as connection:
            refused = connection.execute(
                "select reason, count(*) from risk.decisions where decision = 'REJECTED' group by 1"
            ).fetchall()
        assert not refused, f"orders were refused: {refused}"
        in_shares, in_options = map(median, zip(*ratios, strict=True))
        return in_shares, in_options


def _seconds(connection: Connection, statement: str) -> float:
    started = time.perf_counter()
    cursor = connection.execute(statement.encode())
    if cursor.description:
        cursor.fetchall()
    return time.perf_counter() - started


def _batch(procedure: str, symbols: list[str], seed: int, size: int = BATCH) -> str:
    """A call with the marks and Greeks of so many of the instruments."""
    dice = random.Random(seed)
    some = dice.sample(symbols, size)
    prices = [round(dice.uniform(95, 105), 2) for _ in some]
    columns: list[list[Any]] = [
        some,
        prices,
        [round(price - 0.05, 2) for price in prices],
        [round(price + 0.05, 2) for price in prices],
        *([round(dice.uniform(0.1, 0.9), 6) for _ in some] for _ in range(6)),
    ]
    arrays = ["'{" + ",".join(map(str, column)) + "}'" for column in columns]
    return f"call {procedure}({', '.join(arrays)});\n"


def _limit_everything(of: firm.Firm) -> None:
    """Sets every type of limit, far away, on accounts with equity and positions."""
    firm.hold(of, HELD)
    with psycopg.connect(of.owner, autocommit=True) as connection:
        accounts = [f"A{number}" for number in range(1, firm.ACCOUNTS + 1)]
        for account in accounts:
            connection.execute("call risk.post_cash(%s, 1e12, 'deposit')", [account])
        connection.execute("call risk.open_day('2020-01-02')")
        types = connection.execute("select t.limit_type from risk_private.limit_types as t")
        assert {name for (name,) in types} == {*firm.LIMITS, *AT_ACCOUNTS, *AT_DESKS}
        desks = [f"D{number}" for number in range(1, firm.DESKS + 1)]
        limits = [
            {"scope": scope, "limit_type": name, "amount": AMOUNTS.get(name, 10**14)}
            for names, scopes in ((AT_ACCOUNTS, accounts), (AT_DESKS, desks))
            for name in names
            for scope in scopes
        ]
        connection.execute("call risk.set_limits(%s)", [json.dumps(limits)])
        connection.execute("vacuum analyze")


def _hold_options(of: firm.Firm) -> None:
    """Lists options on the first shares, and gives every account a position in each."""
    options = [
        {
            "symbol": f"O{number}",
            "kind": "option",
            "underlying": f"S{1 + number % CHAINS}",
            "expiry": "2099-12-18",
            "strike": STRIKES[number // CHAINS % len(STRIKES)],
            "option_right": "call" if number <= OPTIONS // 2 else "put",
        }
        for number in range(1, OPTIONS + 1)
    ]
    symbols = [option["symbol"] for option in options]
    with psycopg.connect(of.owner, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("call risk.upsert_instruments(%s)", [json.dumps(options)])
        connection.execute(
            "call risk.set_marks(%s, %s::numeric[], ivs => %s)",
            [symbols, ["5"] * OPTIONS, [0.3] * OPTIONS],
        )
        for account in range(1, firm.ACCOUNTS + 1):
            for symbol in symbols:
                connection.execute(
                    "call risk.record_trade(%s, %s, 'buy', 10, 5, %s)",
                    [f"A{account}", symbol, f"{account}-{symbol}"],
                )
        connection.execute("vacuum analyze")
