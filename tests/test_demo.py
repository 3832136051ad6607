"""`pgrisk demo`: a plausible firm, decided and accounted for to the last share."""

from __future__ import annotations

import io
import math
import tempfile
from collections import Counter
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from rich.console import Console

from pgrisk.cli import demo as command
from pgrisk.cli.demo import replay, require_no_scopes, verify
from pgrisk.cli.demo_chart import area
from pgrisk.cli.demo_firm import AGENTS, DESKS
from pgrisk.cli.demo_market import SECTOR_OF, Market, black_scholes, sessions
from pgrisk.cli.demo_play import Plan
from pgrisk.cli.demo_trader import DemoError
from pgrisk.cli.main import main
from pgrisk.client import embedded
from tests.databases import TEST_MAJOR

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tests.databases import Database


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches the command."""
    monkeypatch.delenv("PGRISK_DATABASE_URL", raising=False)
    monkeypatch.setenv("PGRISK_PG_BIN", str(embedded.find_binaries(TEST_MAJOR)))


def pgrisk(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def count(database: Database, query: str) -> int:
    with database.connect() as connection:
        (number,) = connection.execute(query.encode()).fetchone() or (0,)
    return int(number)


def test_the_crash_of_august_24(db: Database) -> None:
    days = {date(2015, 8, 21), date(2015, 8, 24), date(2015, 8, 25)}
    output = io.StringIO()
    plan = Plan([session for session in sessions() if session.day in days], orders=4)
    replay(db.url, plan, Console(file=output, width=120))

    with db.connect() as connection:
        decisions = connection.execute(
            "select coalesce(reason, decision), account, decided_by from risk.decisions"
        ).fetchall()
        assert connection.execute("select * from risk.verify_counters()").fetchall() == []
    reasons = Counter(reason for reason, _, _ in decisions)
    assert len(decisions) > 600
    assert 0.15 < 1 - reasons["ACCEPTED"] / len(decisions) < 0.6
    assert len(reasons) >= 8
    assert {"TRADING_HALTED", "REDUCE_ONLY", "RATE_LIMIT_EXCEEDED", "INSTRUMENT_EXPIRED"} <= set(
        reasons
    )
    accounts = {agent.account for agent in AGENTS}
    assert {account for _, account, _ in decisions} == accounts
    assert len({login for _, _, login in decisions}) == len(AGENTS)

    assert (
        count(
            db,
            "select count(*) from risk.decisions where cardinality(array(select "
            "jsonb_array_elements(legs))) > 1",
        )
        > 50
    )
    for state in ("FILLED", "CANCELLED", "EXPIRED", "BROKER_REJECTED"):
        assert count(db, f"select count(*) from risk.orders where state = '{state}'") > 0, state
    assert count(db, "select count(*) from risk.orders where close_reason = 'replaced'") > 0
    assert count(db, "select count(*) from risk.fills where kind in ('assignment', 'exercise')") > 0
    assert (
        count(
            db,
            "select count(*) from risk.positions as p join risk.instruments as i using "
            "(symbol) where i.expiry < '2015-08-24' and p.quantity <> 0",
        )
        == 0
    )
    assert count(db, "select count(*) from pg_roles where rolname like 'demo%'") == 0
    assert count(db, "select count(*) from risk.trading_grants") == 0

    text = output.getvalue()
    for reason in reasons:
        assert reason in text, reason
    assert f"{reasons['ACCEPTED']:,}" in text
    for name in (*accounts, *DESKS, "risk.verify_counters(): 0 differences"):
        assert name in text, name
    pnl = text.partition("Profit and loss by desk")[2].partition("Equity of the firm")[0]
    for day in days:
        assert f"{day}" in pnl
    with db.connect() as connection:
        for equity, daily_pnl in connection.execute(
            "select equity, daily_pnl from risk.pnl where scope = 'FIRM'"
        ):
            assert f"{round(equity):,}" in pnl
            assert f"{round(daily_pnl):,}" in pnl
    assert "█" in text.partition("Drawdown, % below the peak")[2]
    assert text.endswith(" s\n")
    assert f"{len(decisions):,} decisions in " in text
    assert "…" not in text
    assert "\x1b" not in text


def test_areas_are_drawn_to_scale() -> None:
    assert area([0, 1, 2, 4, 8, 9, -1], 2, 0, 8) == ["    ██ ", " ▂▄███ "]
    assert area([0, 0.01], 1, 0, 8) == [" ▁"]  # whatever is above the bottom shows
    assert area([0, 3, 6], 1, 0, 6, is_unicode=False) == [" :|"]
    assert area([5, 5], 1, 5, 5) == ["  "]


def test_a_terminal_gets_a_progress_bar(db: Database) -> None:
    output = io.StringIO()
    console = Console(file=output, width=120, force_terminal=True)
    replay(db.url, Plan(sessions()[:1], orders=1), console)
    assert "━" in output.getvalue()
    assert "2015-08-10" in output.getvalue()


def test_a_database_in_use_is_left_alone(
    migrated_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with migrated_db.connect() as connection:
        connection.execute("call risk.create_scope('F', 'firm')")
        with pytest.raises(DemoError, match="has scopes already"):
            require_no_scopes(connection)
    monkeypatch.setenv("PGRISK_DATABASE_URL", migrated_db.url)
    answer = pgrisk("demo")
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("Error: the database has scopes already")
    assert answer.stderr.count("\n") == 1
    assert count(migrated_db, "select count(*) from risk.scopes") == 1
    assert count(migrated_db, "select count(*) from pg_roles where rolname like 'demo%'") == 0


def test_wrong_counters_and_lost_decisions_are_failures(db: Database) -> None:
    console = Console(file=io.StringIO())
    with db.connect() as connection:
        verify(console, connection, 0)
        with pytest.raises(DemoError, match="1 orders were asked about, but 0 decisions"):
            verify(console, connection, 1)
        connection.execute("call risk.create_scope('F', 'firm')")
        connection.execute("update risk_private.counters set open_orders = 1")
        with pytest.raises(DemoError, match="1 counters are wrong"):
            verify(console, connection, 0)


def test_keep_leaves_a_server_to_connect_to(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_ORDERS", 1)
    answer = pgrisk("demo", "--days", "1", "--keep", "--data-dir", data_dir)
    assert answer.exit_code == 0, answer.output
    server = embedded.find(data_dir)
    assert server is not None
    assert f"psql {server.url('pgrisk')}\n" in answer.stdout
    assert f"pgrisk down --data-dir {data_dir}\n" in answer.stdout

    again = pgrisk("demo", "--data-dir", data_dir)
    assert again.exit_code == 1
    assert "has scopes already" in again.stderr
    assert embedded.find(data_dir) == server


def test_nothing_is_left_of_a_temporary_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(command, "_ORDERS", 1)
    answer = pgrisk("demo", "--days", "1")
    assert answer.exit_code == 0, answer.output
    assert list(tmp_path.iterdir()) == []


def test_sessions_are_the_closes_of_august_2015() -> None:
    days = sessions()
    assert len(days) == 15
    assert (days[0].day, days[-1].day) == (date(2015, 8, 10), date(2015, 8, 28))
    crash = days[10]
    assert (crash.day, crash.spx, crash.vix) == (date(2015, 8, 24), 1893.21, 40.74)
    assert crash.closes["AAPL"] == Decimal("23.432")
    assert crash.change("AAPL") == pytest.approx(23.432 / 24.032 - 1)
    assert set(crash.closes) == set(SECTOR_OF)
    assert len(crash.closes) == 20


def test_options_are_priced_by_black_scholes() -> None:
    call = black_scholes("call", 100, 100, 1, 0.2)
    assert call == pytest.approx(7.965567, abs=1e-6)
    put = black_scholes("put", 100, 110, 0.5, 0.3)
    assert black_scholes("call", 100, 110, 0.5, 0.3) - put == pytest.approx(100 - 110)
    assert math.isclose(black_scholes("call", 100, 1, 0.1, 0.2), 99)


def test_the_market_lists_and_quotes_what_agents_trade() -> None:
    market = Market()
    for session in sessions():
        market.open(session)
        for option in market.options.values():
            quote = market.quotes.get(option.symbol)
            assert (quote is None) == (option.expiry < session.day)
            if quote:
                assert 0 < quote.bid <= quote.price <= quote.ask
                assert quote.price + Decimal("0.01") >= option.intrinsic(
                    session.closes[option.stock]
                )
    symbol = market.option("AAPL", date(2015, 9, 18), "call", 0)
    assert symbol == "AAPL 150918C00025500"
    assert market.option("AAPL", date(2015, 9, 18), "call", 50) is None
