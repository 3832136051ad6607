"""What days made of every scope, each number derived again from orders, executions and postings."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from pgrisk.worker.jobs import Context
from pgrisk.worker.jobs import day as roll
from pgrisk.worker.log import create_log
from pgrisk.worker.metrics import Metrics
from tests.orders import MARKS, Caller, Row, open_firm
from tests.test_money import post, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

D = Decimal
DAYS = [date(2026, 3, day) for day in (2, 3, 4)]
CLOSES = {DAYS[0]: {"AAPL": 103, "AAPL C100": 6}, DAYS[1]: {"AAPL": 98, "XOM": 85}}
CLOSES[DAYS[2]] = {"AAPL": 99, "AAPL C100": 4}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        caller.limit("F", "order_quantity", 50)
        yield caller
        assert caller.differences() == []


def live_through(firm: Caller) -> dict[date, dict[str, Row]]:
    """Three days of trading in several accounts; what risk.pnl showed at the end of each."""
    ends = {}
    for number, day in enumerate(DAYS):
        firm.call("open_day", day=day)
        for account, amount in (("A1", 10_000), ("A2", 5_000), ("S1", 7_000)):
            post(firm, account, amount, "deposit")
        post(firm, "A1", 100, "transfer")
        post(firm, "A2", -100, "transfer")
        post(firm, "A1", D("12.5") * number, "dividend") if number else None
        name = f"order {number}"
        firm.check("A1", name, "AAPL", "buy", 30, 100)
        firm.check("A1", name, "AAPL", "buy", 30, 100)  # the same again
        firm.fill("A1", name, f"e{number}", 20, 101, fee=D("0.7"))
        firm.replace("A1", name, f"{name} more", 40, 100)
        firm.check("A1", f"{name} large", "AAPL", "buy", 51, 100)
        firm.check("A2", name, "AAPL C100", "sell", 2 + number, 5)
        firm.fill("A2", name, f"e{number}", 2, 5, fee=1)
        trade(firm, "S1", "XOM", (10, -4, -9)[number], 80 + number)
        busted = trade(firm, "S1", "MSFT", 5, 50)
        firm.call("bust_fill", account="S1", exec_id=busted, reason="erroneous")
        trade(firm, "B1", "AAPL", 3, 100, kind="opening")
        firm.mark(CLOSES[day])
        ends[day] = {row["scope"]: row for row in firm.rows("select * from risk.pnl")}
    return ends


def executions(firm: Caller, account: str, day: date) -> list[Row]:
    return firm.rows(
        """select i.symbol, f.signed_quantity as quantity, f.price, f.fee, f.kind, i.multiplier,
           f.trading_day from risk_private.fills as f
           join risk_private.instruments as i using (instrument_id)
           join risk_private.scopes as s on s.scope_id = f.account_id
           where s.code = %s and f.trading_day <= %s and f.signed_quantity <> 0
           order by f.booking""",
        account,
        day,
    )


def postings(firm: Caller, account: str, day: date) -> list[Row]:
    return firm.rows(
        """select p.amount, p.reason, p.trading_day from risk_private.cash_postings as p
           join risk_private.scopes as s on s.scope_id = p.account_id
           where s.code = %s and p.trading_day <= %s""",
        account,
        day,
    )


def derived(firm: Caller, account: str, day: date) -> dict[str, Any]:
    """The money of an account in a day, from its executions and postings alone."""
    marks = {s: D(p) for s, p in MARKS.items()}
    for past in DAYS[: DAYS.index(day) + 1]:
        marks |= {s: D(p) for s, p in CLOSES[past].items()}
    held: dict[str, list[Decimal]] = {}
    found: dict[str, Any] = dict.fromkeys(
        ("end_equity", "realized", "unrealized", "fees", "income", "flows"), D(0)
    ) | {"fills": 0, "traded_notional": D(0)}
    for row in executions(firm, account, day):
        is_today = row["trading_day"] == day
        quantity, cost, multiplier = held.setdefault(row["symbol"], [D(0), D(0), row["multiplier"]])
        paid = row["quantity"] * row["price"] * multiplier
        closed = (
            min(abs(quantity), abs(row["quantity"])) if quantity * row["quantity"] < 0 else D(0)
        )
        removed = cost * closed / abs(quantity) if closed else D(0)
        proceeds = closed * row["price"] * multiplier * (1 if quantity > 0 else -1)
        held[row["symbol"]][:2] = [quantity + row["quantity"], cost - removed + paid + proceeds]
        if row["kind"] != "opening":
            found["end_equity"] -= paid
        found["end_equity"] -= row["fee"]
        if is_today:
            found["realized"] += proceeds - removed
            found["fees"] += row["fee"]
            found["fills"] += 1
            found["traded_notional"] += abs(paid)
            found["flows"] += paid if row["kind"] == "opening" else 0
    for row in postings(firm, account, day):
        found["end_equity"] += row["amount"]
        if row["trading_day"] == day:
            found["income" if row["reason"] == "dividend" else "flows"] += row["amount"]
    for symbol, (quantity, cost, multiplier) in held.items():
        found["end_equity"] += quantity * marks[symbol] * multiplier
        found["unrealized"] += quantity * marks[symbol] * multiplier - cost
    return found


def summary(firm: Caller) -> dict[tuple[str, date], Row]:
    firm.call("refresh_views")
    return {
        (row["scope"], row["day"]): row for row in firm.rows("select * from risk.daily_summary")
    }


def test_every_number_is_what_executions_and_postings_say(firm: Caller) -> None:
    ends = live_through(firm)
    rows = summary(firm)
    chains = firm.rows(
        """select c.code as scope, a.code as account from risk_private.scopes as a
           join risk_private.scopes as c on c.scope_id = any (a.chain) where a.is_leaf"""
    )
    assert set(rows) == {(row["scope"], day) for row in chains for day in DAYS}
    for (scope, day), row in rows.items():
        accounts = [chain["account"] for chain in chains if chain["scope"] == scope]
        parts = [derived(firm, account, day) for account in accounts]
        expected = {name: sum(part[name] for part in parts) for name in parts[0]}
        assert {name: row[name] for name in expected} == expected, (scope, day)
        before = rows.get((scope, DAYS[DAYS.index(day) - 1])) if day > DAYS[0] else None
        assert row["start_equity"] == (before["end_equity"] if before else 0)
        assert row["start_unrealized"] == (before["unrealized"] if before else 0)
        assert row["daily_pnl"] == row["end_equity"] - row["start_equity"] - row["flows"]
        assert row["currency_pnl"] == 0
        for name in ("peak_equity", "drawdown_pct", "daily_pnl"):
            assert row[name] == ends[day][scope][name], (scope, day, name)
        assert row["is_closed"] == (day < DAYS[2])


def test_orders_count_to_the_day_and_every_scope_above(firm: Caller) -> None:
    """A1 decides three a day, of which one is too large; A2 one."""
    live_through(firm)
    counts = ("decisions", "accepted", "rejected")
    for (scope, day), row in summary(firm).items():
        expected = {"A1": (3, 2, 1), "A2": (1, 1, 0), "D1": (4, 3, 1), "F": (4, 3, 1)}
        assert tuple(row[name] for name in counts) == expected.get(scope, (0, 0, 0)), (scope, day)


def test_a_day_that_has_ended_stays_as_it_was(firm: Caller) -> None:
    """What is busted the day after counts to that day: 10 bought at 100, marked at 103."""
    firm.call("open_day", day=DAYS[0])
    wrong = trade(firm, "A1", "AAPL", 10, 100, fee=1)
    firm.mark({"AAPL": 103})
    firm.call("open_day", day=DAYS[1])
    (before,) = firm.rows(
        "select * from risk.daily_summary where scope = 'A1' and day = %s", DAYS[0]
    )
    assert (before["fills"], before["traded_notional"], before["daily_pnl"]) == (1, 1000, 29)
    firm.call("bust_fill", account="A1", exec_id=wrong, reason="erroneous")
    rows = summary(firm)
    assert rows["A1", DAYS[0]] == before
    today = rows["A1", DAYS[1]]
    assert (today["fills"], today["fees"], today["daily_pnl"]) == (0, -1, -29)


def test_the_worker_keeps_the_day_that_it_ends(db: Database, firm: Caller) -> None:
    db.set_clock(datetime(2026, 3, 2, 15, tzinfo=UTC))
    firm.call("open_day", day=DAYS[0])
    trade(firm, "A1", "AAPL", 10, 100)
    db.set_clock(datetime(2026, 3, 3, 15, tzinfo=UTC))
    epoch = firm.value("select risk_private.take_lease('one', '{}')")
    roll(Context(firm.connection, epoch, create_log("one"), Metrics(), print))
    days = firm.rows("select day, fills from risk.daily_summary where scope = 'F' order by day")
    assert [tuple(row.values()) for row in days] == [(DAYS[0], 1), (DAYS[1], 0)]


def test_an_equity_that_is_not_known_is_not_made_up(firm: Caller) -> None:
    euro = {"symbol": "SAP", "kind": "stock", "currency": "EUR"}
    firm.call("upsert_instruments", instruments=Jsonb([euro]))
    firm.call("open_day", day=DAYS[0])
    trade(firm, "A1", "SAP", 10, 50)
    firm.call("open_day", day=DAYS[1])
    for scope in ("A1", "F"):
        row = summary(firm)[scope, DAYS[0]]
        names = ("end_equity", "unrealized", "daily_pnl", "fills")
        assert [row[name] for name in names] == [None, None, None, 1]
        assert summary(firm)[scope, DAYS[1]]["start_equity"] is None
