"""risk.hot_limits, and the version by which caches learn that it has changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.orders import MARKS, Caller, is_waiting, open_firm, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

Found = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller


def hot(caller: Caller, scope: str, symbol: str | None = None) -> dict[str, Any]:
    document: dict[str, Any] = caller.value("select risk.hot_limits(%s, %s)", scope, symbol)
    return document


def by_key(document: dict[str, Any]) -> Found:
    return {(k["scope"], k["limit_type"], k["dimension"]): k for k in document["limits"]}


def version(caller: Caller) -> int:
    number: int = caller.value("select version from risk.limit_cache()")
    return number


def test_every_limit_on_the_chain_is_there_with_its_use(firm: Caller) -> None:
    firm.limit("A1", "net_position", 100)
    firm.limit("A1", "long_position", 200)
    firm.limit("A1", "short_position", 50)
    firm.limit("D1", "net_position", 90, symbol="AAPL")
    firm.limit("D1", "gross_notional", 20_000, warn_pct=80, underlying="AAPL")
    firm.limit("D1", "gross_position", 1000)
    firm.limit("F", "traded_notional", 50_000)
    firm.limit("F", "open_orders", 5, sector="Tech")
    firm.limit("F", "open_positions", 5)
    firm.limit("F", "order_quantity", 70)
    firm.limit("A1", "order_rate", 3)
    firm.limit("A1", "order_rate_minute", 4)
    firm.limit("A2", "gross_notional", 10**6)
    firm.check("A1", "a", "AAPL", "buy", 60, 100)
    firm.fill("A1", "a", "e", 20, 100)
    firm.check("A2", "b", "AAPL", "buy", 25, 100)
    firm.check("A1", "c", "MSFT", "buy", 10, 50)
    document = hot(firm, "A1", "AAPL")
    used = {
        key: Decimal(limit["worst_case"])
        for key, limit in by_key(document).items()
        if limit["worst_case"] is not None and "rate" not in key[1]
    }
    assert used == {
        ("A1", "net_position", "all"): 60,
        ("A1", "long_position", "all"): 60,
        ("A1", "short_position", "all"): 0,
        ("D1", "net_position", "instrument:AAPL"): 85,
        ("D1", "gross_notional", "underlying:AAPL"): 8500,
        ("D1", "gross_position", "all"): 95,
        ("F", "net_position", "all"): 85,
        ("F", "traded_notional", "all"): 9000,
        ("F", "open_orders", "sector:Tech"): 3,
        ("F", "open_positions", "all"): 3,
    }
    assert {key for key, limit in by_key(document).items() if limit["worst_case"] is None} == {
        ("F", "order_quantity", "all")
    }
    assert (document["scope"], document["symbol"], document["underlying"]) == ("A1", "AAPL", "AAPL")
    for key, shown in by_key(document).items():
        if key[2] == "all" and key[1] in ("gross_position", "traded_notional", "open_positions"):
            (row,) = firm.rows(
                """select utilization_pct, status, version from risk.limit_utilization
                   where scope = %s and limit_type = %s""",
                key[0],
                key[1],
            )
            assert Decimal(shown["utilization_pct"]) == row["utilization_pct"]
            assert (shown["status"], shown["version"]) == (row["status"], row["version"])


def test_every_type_of_limit_shows_what_limit_utilization_shows(firm: Caller) -> None:
    """At an account, its desk and the firm, as narrow as the type allows; all in one instrument."""
    types = [row["limit_type"] for row in firm.rows("select * from risk_private.limit_types")]
    for scope in ("A1", "D1", "F"):
        for limit_type in types:
            amount = 1 if limit_type in ("self_cross", "duplicate_window") else 10**6
            for key in ({"symbol": "AAPL C100"}, {"underlying": "AAPL"}, {}):
                with suppress(psycopg.Error):
                    firm.limit(scope, limit_type, amount, **key)
                    break
    firm.call("post_cash", account="A1", amount=10**6, reason="deposit")
    firm.hold("A1", "AAPL C100", -3, 5)
    firm.check("A1", "a", "AAPL C100", "sell", 2, 5, agent="x")
    firm.mark(MARKS)
    shown = {
        (row["scope"], row["limit_type"]): row["worst_case"]
        for row in firm.rows("select * from risk.limit_utilization where scope <> 'A2'")
        if row["limit_type"] not in ("order_rate", "net_position")
    }
    hot_uses = {
        (limit["scope"], limit["limit_type"]): limit["worst_case"]
        for limit in hot(firm, "A1", "AAPL C100")["limits"]
    }
    assert {name for _, name in hot_uses} == set(types)
    assert {
        key: None if use is None else Decimal(use) for key, use in hot_uses.items() if key in shown
    } == shown


def test_rates_count_their_window(firm: Caller, db: Database) -> None:
    firm.limit("A1", "order_rate", 3)
    firm.limit("A1", "order_rate_minute", 4)
    start = datetime.now(UTC) + timedelta(days=1)
    for seconds in (0, 10):
        db.set_clock(start + timedelta(seconds=seconds))
        firm.check("A1", f"at {seconds}", "AAPL", "buy", 1, 100)
    found = by_key(hot(firm, "A1", "AAPL"))
    assert found["A1", "order_rate", "all"]["worst_case"] == "1"
    assert found["A1", "order_rate_minute", "all"]["worst_case"] == "2"


def test_status_and_percentage_tell_how_tight_a_limit_is(firm: Caller) -> None:
    firm.limit("A1", "net_position", 100, warn_pct=50)
    for amount, expected in ((200, ("25", "OK")), (100, ("50", "WARN")), (40, ("125", "BREACH"))):
        firm.limit("A1", "net_position", 100)
        firm.check("A1", "a", "AAPL", "buy", 50, 100)
        firm.limit("A1", "net_position", amount, warn_pct=50)
        shown = by_key(hot(firm, "A1", "AAPL"))["A1", "net_position", "all"]
        assert (shown["utilization_pct"], shown["status"]) == expected
    firm.limit("A1", "net_position", 0)
    shown = by_key(hot(firm, "A1", "AAPL"))["A1", "net_position", "all"]
    assert (shown["utilization_pct"], shown["status"]) == (None, "BREACH")


def test_without_a_symbol_it_shows_what_holds_for_all(firm: Caller) -> None:
    firm.limit("D1", "gross_position", 1000)
    firm.limit("D1", "gross_position", 500, symbol="AAPL")
    firm.check("A1", "a", "AAPL", "buy", 60, 100)
    document = hot(firm, "D1")
    assert set(by_key(document)) == {("D1", "gross_position", "all"), ("F", "net_position", "all")}
    assert by_key(document)["D1", "gross_position", "all"]["worst_case"] == "60"
    assert by_key(document)["F", "net_position", "all"]["worst_case"] is None
    assert (document["symbol"], document["instrument_status"]) == (None, None)


def test_the_state_is_the_most_severe_for_the_underlying(firm: Caller) -> None:
    assert hot(firm, "A1", "AAPL C100")["state"] == "ACTIVE"
    firm.call(
        "set_trading_state", scope="D1", state="REDUCE_ONLY", reason="calm", underlying="AAPL"
    )
    assert hot(firm, "A1", "AAPL C100")["state"] == "REDUCE_ONLY"
    assert hot(firm, "A1", "MSFT")["state"] == "ACTIVE"
    firm.call("set_trading_state", scope="F", state="HALTED", reason="stop")
    document = hot(firm, "A1", "AAPL C100")
    assert (document["state"], document["state_reason"]) == ("HALTED", "stop")
    firm.call("set_instrument_status", symbol="MSFT", status="BLOCKED", reason="news")
    assert hot(firm, "A1", "MSFT")["instrument_status"] == "BLOCKED"


def test_it_tells_when_a_limit_begins_or_ends_by_itself(firm: Caller) -> None:
    assert hot(firm, "A1", "AAPL")["changes_at"] is None
    now = datetime.now(UTC)
    ends, begins = now + timedelta(hours=2), now + timedelta(hours=1)
    firm.limit("A1", "net_position", 5, valid_until=ends)
    assert datetime.fromisoformat(hot(firm, "A1", "AAPL")["changes_at"]) == ends
    firm.limit("D1", "gross_notional", 5, underlying="AAPL", valid_from=begins)
    assert datetime.fromisoformat(hot(firm, "A1", "AAPL")["changes_at"]) == begins
    assert datetime.fromisoformat(hot(firm, "A1", "MSFT")["changes_at"]) == ends
    assert hot(firm, "B1", "AAPL")["changes_at"] is None


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "set_limit": ("set_limit", {"scope": "F", "limit_type": "net_position", "amount": 5}),
    "set_limits": (
        "set_limits",
        {"limits": '[{"scope": "A1", "limit_type": "order_quantity", "amount": 1}]'},
    ),
    "remove_limit": ("remove_limit", {"scope": "F", "limit_type": "net_position"}),
    "halt": ("set_trading_state", {"scope": "A1", "state": "HALTED", "reason": "stop"}),
    "status": ("set_instrument_status", {"symbol": "XOM", "status": "BLOCKED", "reason": "news"}),
    "terms": (
        "upsert_instruments",
        {"instruments": '[{"symbol": "XOM", "kind": "stock", "sector": "Oil"}]'},
    ),
    "grant": ("grant_trading", {"role": "risk_analyst", "scope": "A1"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_takes_one_version_and_tells_it(
    firm: Caller, db: Database, change: str
) -> None:
    before = version(firm)
    procedure, arguments = CHANGES[change]
    with db.connect() as listener:
        listener.execute("listen risk_limits")
        firm.call(procedure, **arguments)
        told = [note.payload for note in listener.notifies(timeout=10, stop_after=1)]
    assert told == [str(before + 1)]
    assert version(firm) == before + 1
    assert hot(firm, "A1", "AAPL")["version"] == before + 1


def test_orders_fills_and_marks_take_no_version(firm: Caller) -> None:
    before = version(firm)
    firm.check("A1", "a", "AAPL", "buy", 60, 100)
    firm.fill("A1", "a", "e", 20, 100)
    firm.mark({"AAPL": 101})
    with pytest.raises(psycopg.Error):
        firm.limit("A1", "net_position", -1)
    assert version(firm) == before


def test_versions_are_in_the_order_of_commits(firm: Caller, db: Database) -> None:
    """The version is taken in the commit: a change that is still under way has none yet, and
    keeps no other from taking one."""
    before = version(firm)
    with db.connect() as connection, connection.transaction():
        connection.execute(
            "select risk_private.set_trading_state('D1', 'REDUCE_ONLY', 'calm', null, false)"
        )
        firm.call("set_trading_state", scope="D2", state="HALTED", reason="stop")
        assert version(firm) == before + 1
        assert hot(firm, "A1", "AAPL")["state"] == "ACTIVE"
    assert version(firm) == before + 2
    assert hot(firm, "A1", "AAPL")["state"] == "REDUCE_ONLY"


def test_a_halt_does_not_wait_for_a_limit_that_waits_for_a_trader(
    firm: Caller, db: Database
) -> None:
    with db.connect(autocommit=False) as trader, db.connect() as connection:
        trader.execute(
            "select from risk_private.counters where counter_id = risk_private.counter_id("
            "(select scope_id from risk_private.scopes where code = 'A1')) for update"
        )
        admin = Caller(connection)
        with ThreadPoolExecutor(1) as pool:
            limit = pool.submit(admin.limit, "D1", "gross_position", 5, sector="Tech")
            wait_until(lambda: is_waiting(firm, admin))
            firm.call("set_trading_state", scope="F", state="REDUCE_ONLY", reason="calm")
            assert hot(firm, "A1", "AAPL")["state"] == "REDUCE_ONLY"
            assert not limit.done()
            trader.rollback()
            limit.result()


def test_whoever_may_trade_a_scope_sees_its_limits(db: Database, firm: Caller) -> None:
    firm.call("grant_trading", role=db.create_user("ann", "risk_trader"), scope="D1")
    with db.connect("ann") as connection:
        ann = Caller(connection)
        assert by_key(hot(ann, "A1", "AAPL")) == by_key(hot(firm, "A1", "AAPL"))
        for scope in ("B1", "F"):
            with pytest.raises(psycopg.Error) as caught:
                hot(ann, scope, "AAPL")
            assert caught.value.sqlstate == "RK403"
        with connection.transaction(force_rollback=True):
            ann.rows(
                """select risk_private.decide_order(
                     'A1', 'mine', '{AAPL}', '{buy}', '{1}', 5, 100, null, 'DAY', false)"""
            )
            with pytest.raises(psycopg.errors.ActiveSqlTransaction):
                hot(ann, "A1", "AAPL")
    with db.connect(db.create_user("ada", "risk_analyst")) as connection:
        assert by_key(hot(Caller(connection), "F", "AAPL"))


@pytest.mark.parametrize("arguments", [("nowhere", "AAPL"), ("A1", "nothing")])
def test_what_is_unknown_is_said_to_be(firm: Caller, arguments: tuple[str, str]) -> None:
    with pytest.raises(psycopg.Error) as caught:
        hot(firm, *arguments)
    assert caught.value.sqlstate == "RK404"


def test_signing_keys_differ_by_role_and_database(
    db: Database, firm: Caller, migrated_db: Database
) -> None:
    key = "select signing_key from risk.limit_cache()"
    db.create_user("ann", "risk_trader")
    with db.connect("ann") as connection, migrated_db.connect() as elsewhere:
        keys = {firm.value(key), Caller(connection).value(key), Caller(elsewhere).value(key)}
        assert Caller(connection).value(key) in keys
    assert len(keys) == 3
    assert all(len(each) == 64 for each in keys)
