"""Measures every row of the table in docs/benchmarks.md; ratios within one run, on one server."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pgrisk.client import embedded
from tests.bench import breaker, cache, firm, load
from tests.bench.portfolio import Portfolio
from tests.bench.rows import Row, table


class Bench:
    """Runs on one server; every ratio is the median of interleaved pairs."""

    def __init__(self, server: embedded.Server, pgbench: Path, directory: Path, quick: bool):
        self.pgbench, self.directory = pgbench, directory
        self.seconds, self.pairs = (3, 1) if quick else (10, 3)
        self.firm = firm.create(server, "bench")
        self.grown = firm.create(server, "grown")
        firm.grow(self.grown)
        self.failed = 0
        self.rates: dict[str, float] = {}

    def run(
        self, name: str, of: firm.Firm, scripts: list[str], clients: int, **how: int | str
    ) -> float:
        """Calls per second of one run, remembered by name."""
        result = self.result(of, scripts, clients, **how)
        self.rates[name] = max(self.rates.get(name, 0), result.rate)
        return result.rate

    def result(
        self, of: firm.Firm, scripts: list[str], clients: int, **how: int | str
    ) -> load.Result:
        """What one run saw."""
        result = load.run(
            self.pgbench,
            of.trader,
            scripts,
            self.directory,
            clients=clients,
            seconds=self.seconds,
            rate=int(how["rate"]) if "rate" in how else None,
            mode=str(how.get("mode", "prepared")),
        )
        self.failed += result.failed
        return result

    def ratios(self) -> list[Row]:
        """Throughput beside the floor, one account beside many, batches, and growth."""
        check, floor = [load.script(load.CHECK)], [load.script(load.FLOOR)]
        narrow = [load.script(load.CHECK, symbols=20)]
        seen: dict[str, list[float]] = {}
        for _ in range(self.pairs):
            floor_8 = self.run("floor, 8 clients", self.firm, floor, 8)
            check_8 = self.run("check_order, 8 clients", self.firm, check, 8)
            one = [load.script(load.CHECK, accounts=1)]
            one_8 = self.run("one account, 8 clients", self.firm, one, 8)
            many = self.run(
                "batches of 100, 8 clients", self.firm, load.batches(True), 8, mode="simple"
            )
            mixed = self.run(
                "batches over all accounts, 8 clients",
                self.firm,
                load.batches(False),
                8,
                mode="simple",
            )
            floor_32 = self.run("floor, 32 clients", self.firm, floor, 32)
            check_32 = self.run("check_order, 32 clients", self.firm, check, 32)
            small = self.run("20 symbols, small", self.firm, narrow, 8)
            large = self.run("20 symbols, grown", self.grown, narrow, 8)
            for name, ratio in {
                "8": check_8 / floor_8,
                "32": check_32 / floor_32,
                "one": one_8 / check_8,
                "batch": many * load.BATCH / floor_8,
                "mixed": mixed * load.BATCH / floor_8,
                "grown": small / large,
            }.items():
                seen.setdefault(name, []).append(ratio)
        middle = {name: median(ratios) for name, ratios in seen.items()}
        return [
            Row("`check_order` ÷ floor, 8 clients", 0.25, 0.40, middle["8"]),
            Row("`check_order` ÷ floor, 32 clients", 0.18, 0.30, middle["32"]),
            Row("one account ÷ spread over 64, 8 clients", 0.6, 0.8, middle["one"]),
            Row("`check_orders`, batches of 100, orders ÷ floor", 1.3, 2.5, middle["batch"]),
            Row("the same, each batch over all accounts", 1.3, 2.5, middle["mixed"]),
            Row("cost with growth ÷ without", 1.2, 1.0, middle["grown"], at_most=True),
        ]

    def latencies(self) -> list[Row]:
        """Open loop, and many connections."""
        check = [load.script(load.CHECK)]
        turns = range(self.pairs)
        open_loop = median(self.result(self.firm, check, 32, rate=1000).p99 for _ in turns)
        closed = [self.result(self.firm, check, 100) for _ in turns]
        tail, rate = median(run.p99 for run in closed), median(run.rate for run in closed)
        return [
            Row("open loop 1,000/s, p99", 20, 5, open_loop, at_most=True, unit=" ms"),
            Row("100 connections, p99", 100, 60, tail, at_most=True, unit=" ms"),
            Row("100 connections, rate", 1000, 2500, rate, unit="/s"),
        ]


@dataclass(frozen=True)
class Report:
    """One table, and whether everything was sound when it was measured."""

    text: str
    is_sound: bool


def report(part: str, quick: bool) -> Report:
    """Runs one part on a server of its own."""
    binaries = embedded.find_binaries()
    with tempfile.TemporaryDirectory(prefix="pgrisk-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = embedded.start(directory / "server", binaries=binaries)
        try:
            logs = directory / "logs"
            logs.mkdir()
            return PARTS[part](server, binaries / "pgbench", logs, quick)
        finally:
            server.stop()


def decisions(server: embedded.Server, pgbench: Path, logs: Path, quick: bool) -> Report:
    """Deciding, beside one durable insert."""
    bench = Bench(server, pgbench, logs, quick)
    rows = bench.ratios() + bench.latencies()
    differences = firm.differences(bench.firm.owner) + firm.differences(bench.grown.owner)
    deadlocks = firm.deadlocks(bench.firm)
    rows.append(Row("`40P01` deadlocks", 0, 0, deadlocks, at_most=True))
    rates = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in bench.rates.items())
    text = (
        f"{table(rows)}\n\n{_machine()}. Best rates seen, absolute and so only an indication: "
        f"{rates} (batches: calls). Failed calls: {bench.failed}; counters that differ from orders "
        f"and fills afterwards: {differences}.\n"
    )
    return Report(text, bench.failed == 0 and differences == 0 and deadlocks == 0)


def portfolio(server: embedded.Server, pgbench: Path, logs: Path, quick: bool) -> Report:
    """Marks, revaluation, Greeks and limits on them."""
    measured = Portfolio(server, pgbench, logs, quick)
    rows = measured.rows()
    differences = sum(firm.differences(owner) for owner in measured.owners)
    text = (
        f"{table(rows)}\n\n{_machine()}. Failed calls: {measured.failed}; counters that differ "
        f"afterwards: {differences}.\n"
    )
    return Report(text, measured.failed == 0 and differences == 0)


def breakers(server: embedded.Server, pgbench: Path, logs: Path, quick: bool) -> Report:
    """Circuit breakers, the worker and the cache."""
    rows = breaker.rows(server, pgbench, logs, quick)
    rows += cache.rows(firm.create(server, "cache"), quick)
    return Report(f"{table(rows)}\n\n{_machine()}.\n", is_sound=True)


PARTS = {"decisions": decisions, "portfolio": portfolio, "breakers": breakers}


def _machine() -> str:
    return f"Machine: {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, fsync on"


def main() -> None:
    """Prints the reports; with --write puts each into a file between its two markers."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    parser.add_argument("--quick", action="store_true", help="a minute, one pair a measure")
    parser.add_argument("--write", type=Path, help="file whose reports are replaced")
    arguments = parser.parse_args()
    is_sound = True
    for part in arguments.parts or PARTS:
        done = report(part, arguments.quick)
        is_sound = is_sound and done.is_sound
        print(done.text, flush=True)
        if arguments.write:
            before, _, rest = arguments.write.read_text().partition(f"<!-- {part} -->\n")
            _, _, after = rest.partition("<!-- end -->\n")
            arguments.write.write_text(
                f"{before}<!-- {part} -->\n{done.text}<!-- end -->\n{after}", encoding="utf-8"
            )
    raise SystemExit(0 if is_sound else 1)


if __name__ == "__main__":
    main()
