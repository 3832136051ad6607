"""Measures every row of the table in docs/benchmarks.md; ratios within one run, on one server."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
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
        open_loop = self.result(self.firm, check, 32, rate=1000)
        closed = self.result(self.firm, check, 100)
        return [
            Row("open loop 1,000/s, p99", 20, 5, open_loop.p99, at_most=True, unit=" ms"),
            Row("100 connections, p99", 100, 60, closed.p99, at_most=True, unit=" ms"),
            Row("100 connections, rate", 1000, 2500, closed.rate, unit="/s"),
        ]


def report(quick: bool) -> tuple[str, bool]:
    """Runs everything; the report as Markdown, and whether all is sound."""
    binaries = embedded.find_binaries()
    with tempfile.TemporaryDirectory(prefix="pgrisk-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = embedded.start(directory / "server", binaries=binaries)
        try:
            logs = directory / "logs"
            logs.mkdir()
            bench = Bench(server, binaries / "pgbench", logs, quick)
            portfolio = Portfolio(server, binaries / "pgbench", logs, quick)
            rows = bench.ratios() + bench.latencies() + portfolio.rows()
            rows += cache.rows(bench.firm, quick)
            rows += breaker.rows(server, binaries / "pgbench", logs, quick)
            owners = [bench.firm.owner, bench.grown.owner, *portfolio.owners]
            differences = sum(firm.differences(owner) for owner in owners)
            deadlocks = firm.deadlocks(bench.firm)
        finally:
            server.stop()
    failed = bench.failed + portfolio.failed
    rows.append(Row("`40P01` deadlocks", 0, 0, deadlocks, at_most=True))
    rates = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in bench.rates.items())
    machine = f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, fsync on"
    text = (
        f"{table(rows)}\n\nMachine: {machine}. Best rates seen, absolute and so only an "
        f"indication: {rates} (batches: calls). Failed calls: {failed}; counters that "
        f"differ from orders and fills afterwards: {differences}.\n"
    )
    return text, failed == 0 and differences == 0 and deadlocks == 0


def main() -> None:
    """Prints the report; with --write puts it into a file between its two markers."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute, one pair a measure")
    parser.add_argument("--write", type=Path, help="file whose report is replaced")
    arguments = parser.parse_args()
    text, is_sound = report(arguments.quick)
    print(text)
    if arguments.write:
        before, _, rest = arguments.write.read_text().partition("<!-- report -->\n")
        _, _, after = rest.partition("<!-- end -->\n")
        arguments.write.write_text(
            f"{before}<!-- report -->\n{text}<!-- end -->\n{after}", encoding="utf-8"
        )
    raise SystemExit(0 if is_sound else 1)


if __name__ == "__main__":
    main()
