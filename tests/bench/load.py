"""Load by pgbench, whose own cost is small and the same for everything that is compared."""

from __future__ import annotations

import os
import random
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BATCH = 100
WARM_UP = 2
"""Seconds at the start of a run that are not counted: connections plan their statements then."""
_ID = "\\set id random(1, 9000000000000000)\n"
_ORDER = """\\set account random(1, {accounts})
\\set symbol random(1, {symbols})
\\set quantity random(1, 100)
"""
FLOOR = (
    _ID
    + _ORDER
    + "call risk.insert_only(:account, 'c' || :id, :symbol, :quantity::numeric, 100);\n"
)
CHECK = (
    _ID
    + _ORDER
    + """call risk.check_order(account => 'A' || :account, client_order_id => 'c' || :id,
  symbol => 'S' || :symbol, side => 'buy', quantity => :quantity::numeric, price => 100);
"""
)
OPTION = CHECK.replace("'S' ||", "'O' ||").replace("price => 100", "price => 5")


@dataclass(frozen=True)
class Result:
    """What one run of pgbench saw."""

    rate: float
    """Calls per second."""
    p99: float
    """99th percentile of the latency in milliseconds, from when a call was due."""
    failed: int


def script(template: str, accounts: int = 64, symbols: int = 2000) -> str:
    """A pgbench script for so many accounts and symbols."""
    return template.format(accounts=accounts, symbols=symbols)


def batches(one_account: bool, count: int = 20) -> list[str]:
    """Scripts that each send a batch of 100 orders: for one account, or over all of them."""
    chance = random.Random(7)
    return [
        _ID
        + "\\set account random(1, 64)\n"
        + "call risk.check_orders('["
        + ", ".join(
            f'{{"account": "A{":account" if one_account else chance.randint(1, 64)}", '
            f'"client_order_id": "b:id-{number}", "symbol": "S{chance.randint(1, 2000)}", '
            f'"side": "buy", "quantity": "{chance.randint(1, 100)}", "price": "100"}}'
            for number in range(BATCH)
        )
        + "]');\n"
        for _ in range(count)
    ]


def run(
    pgbench: Path,
    url: str,
    scripts: Sequence[str],
    directory: Path,
    *,
    clients: int,
    seconds: int,
    rate: int | None = None,
    mode: str = "prepared",
) -> Result:
    """Runs pgbench for so many seconds: closed loop, or open loop at `rate` calls per second."""
    for log in directory.glob("log.*"):
        log.unlink()
    files = [directory / f"{number}.sql" for number in range(len(scripts))]
    for file, text in zip(files, scripts, strict=True):
        file.write_text(text)
    command = [str(pgbench), "-n", "-M", mode, "-c", str(clients), "-j", "2"]
    command += ["-T", str(seconds + WARM_UP), "-l", "--log-prefix", str(directory / "log")]
    command += ["-R", str(rate)] if rate else []
    for file in files:
        command += ["-f", str(file)]
    password = re.search(r":([^:@]+)@", url)
    assert password is not None
    done = subprocess.run(
        [*command, url.replace(f":{password[1]}@", "@")],
        env=os.environ | {"PGPASSWORD": password[1]},
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    calls = [
        line.split() for log in directory.glob("log.*") for line in log.read_text().splitlines()
    ]
    if not calls:
        raise SystemExit(f"pgbench failed: {done.stderr.strip()[-500:]}")
    start = min(int(call[4]) for call in calls) + WARM_UP
    # The first and the last of the seconds counted are whole ones.
    latencies = sorted(
        int(call[2])
        for call in calls
        if start <= int(call[4]) < start + seconds and call[2].isdecimal()
    )
    failed = sum(not call[2].isdecimal() for call in calls)
    aborted = len(re.findall(r"aborted", done.stderr))
    return Result(
        rate=len(latencies) / seconds,
        p99=latencies[int(len(latencies) * 0.99)] / 1000,
        failed=failed + aborted,
    )
