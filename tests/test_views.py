"""What the views show, number by number, and that verify_counters() finds what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, Row, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2015, 8, 10, 14, 0, tzinfo=UTC)

# Columns that others rely on, in the order of the contract.
CONTRACT = {
    "positions": """account symbol underlying quantity open_buy open_sell average_price mark
      market_value unrealized_pnl realized_pnl_today delta gamma vega theta rho as_of""",
    "limit_utilization": """scope limit_type symbol underlying sector limit_value used worst_case
      utilization_pct status version as_of""",
    "orders": """order_id account client_order_id agent symbol side quantity price filled_quantity
      remaining_quantity state decision reason decided_at""",
    "trading_states": "scope underlying own_state effective_state since changed_by reason",
}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """The small firm, with the superuser; its clock stands still."""
    db.set_clock(NOW)
    with open_firm(db) as caller:
        yield caller


def only(rows: list[Row], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


def utilization(firm: Caller, limit_type: str, *columns: str) -> list[tuple[Any, ...]]:
    rows = firm.rows("select * from risk.limit_utilization where limit_type = %s", limit_type)
    return only(rows, "scope", *columns)


@pytest.mark.parametrize("view", CONTRACT)
def test_columns_that_others_rely_on(firm: Caller, view: str) -> None:
    rows = firm.rows(
        """select column_name from information_schema.columns
           where table_schema = 'risk' and table_name = %s order by ordinal_position""",
        view,
    )
    columns = CONTRACT[view].split()
    assert [row["column_name"] for row in rows][: len(columns)] == columns


# -- orders and positions ----------------------------------------------------------------------


def test_an_order_is_one_row_per_leg(firm: Caller) -> None:
    combo = firm.combo("A1", "c", "buy 2 AAPL C110, sell 1 AAPL C100", 10, -3, agent="condor")
    firm.fill("A1", "c", "e1", 5, 5, symbol="AAPL C110")
    rows = firm.rows("select * from risk.orders order by symbol")
    columns = ("symbol", "side", "quantity", "price", "filled_quantity", "remaining_quantity")
    assert only(rows, *columns) == [
        ("AAPL C100", "sell", 10, -3, 0, 10),
        ("AAPL C110", "buy", 20, -3, 5, 15),
    ]
    assert set(only(rows, "order_id", "account", "client_order_id", "agent", "state")) == {
        (combo.order_id, "A1", "c", "condor", "PARTIALLY_FILLED")
    }
    assert set(only(rows, "decision", "reason", "decided_at")) == {("ACCEPTED", None, NOW)}


def test_a_closed_order_has_nothing_left(firm: Caller) -> None:
    firm.check("A1", "a", "AAPL", "buy", 10, 100)
    firm.fill("A1", "a", "e1", 4, 100)
    firm.call("release_order", account="A1", client_order_id="a", reason="cancelled")
    rows = firm.rows("select * from risk.orders")
    columns = ("state", "quantity", "filled_quantity", "remaining_quantity", "close_reason")
    assert only(rows, *columns) == [("CANCELLED", 10, 4, 0, "cancelled")]
    assert rows[0]["closed_at"] == NOW
    assert firm.rows("select * from risk.open_orders") == []


def test_a_pending_replace_is_reserved_once(firm: Caller) -> None:
    firm.check("A1", "old", "AAPL", "buy", 10, 100)
    firm.replace("A1", "old", "new", 15, 100)
    firm.fill("A1", "old", "e1", 4, 100)
    rows = firm.rows("select * from risk.open_orders order by decided_at, client_order_id desc")
    columns = ("client_order_id", "filled_quantity", "remaining_quantity", "reserved_quantity")
    assert only(rows, *columns) == [("old", 4, 6, 11), ("new", 4, 0, 0)]
    assert only(rows, "replace_pending", "replaces", "replaced_by") == [
        (True, None, "new"),
        (True, "old", None),
    ]
    firm.call("confirm_replace", account="A1", new_client_order_id="new")
    (row,) = firm.rows("select * from risk.open_orders")
    assert (row["client_order_id"], row["remaining_quantity"]) == ("new", 11)
    (row,) = firm.rows("select * from risk.orders where client_order_id = 'old'")
    assert (row["close_reason"], row["replaced_by"]) == ("replaced", "new")


def test_open_orders_tell_how_far_each_has_come(firm: Caller) -> None:
    for name in ("accepted", "sent", "known"):
        firm.check("A1", name, "AAPL", "buy", 1, 100)
    firm.call("dispatch_order", account="A1", client_order_id="sent")
    firm.call("dispatch_order", account="A1", client_order_id="known")
    firm.call("ack_order", account="A1", client_order_id="known", broker_order_id="B-7")
    rows = firm.rows("select * from risk.open_orders order by client_order_id")
    assert only(rows, "client_order_id", "state", "sent_at", "acknowledged_at") == [
        ("accepted", "ACCEPTED", None, None),
        ("known", "ACKNOWLEDGED", NOW, NOW),
        ("sent", "SENT", NOW, None),
    ]
    assert rows[1]["broker_order_id"] == "B-7"


def test_decisions_and_violations_tell_what_was_answered(firm: Caller) -> None:
    firm.limit("A1", "order_quantity", 5)
    firm.limit("D1", "gross_position", 4, sector="Tech")
    firm.check("A1", "fine", "AAPL", "buy", 1, 100)
    refused = firm.combo("A1", "no", "buy 2 AAPL C110, sell 1 AAPL C100", 3, agent="condor")
    fine, no = firm.rows("select * from risk.decisions order by client_order_id")
    assert fine["detail"] == {"violations": [], "warnings": []}
    assert (fine["decision"], fine["allowed_quantity"]) == ("ACCEPTED", 1)
    assert sorted(no["legs"], key=lambda leg: leg["side"]) == [
        {"symbol": "AAPL C110", "side": "buy", "ratio": 2},
        {"symbol": "AAPL C100", "side": "sell", "ratio": 1},
    ]
    assert (no["reason"], no["allowed_quantity"]) == (refused.reason, refused.allowed_quantity)
    assert tuple(no["detail"]["violations"]) == refused.violations
    assert no["decided_by"] == "postgres"
    rows = firm.rows("select * from risk.violations order by scope")
    assert {row["order_id"] for row in rows} == {refused.order_id}
    columns = ("limit_type", "scope", "dimension", "limit_value", "current_value")
    assert only(rows, *columns, "projected_value")[1:] == [
        ("gross_position", "D1", "sector:Tech", 4, 1, 10)
    ]
    assert only(rows, "limit_type", "projected_value")[0] == ("order_quantity", 6)


def test_fills_and_trades(firm: Caller) -> None:
    order = firm.check("A1", "a", "AAPL", "sell", 2, 100)
    firm.fill("A1", "a", "e1", 3, 101, fee=Decimal("1.5"))
    firm.hold("A1", "MSFT", 7, 50)
    rows = firm.rows("select * from risk.fills order by exec_id")
    columns = ("exec_id", "order_id", "symbol", "side", "quantity", "price", "fee", "kind", "flag")
    assert only(rows, *columns) == [
        ("e1", order.order_id, "AAPL", "sell", 3, 101, Decimal("1.5"), "fill", "over_fill"),
        ("opening 1", None, "MSFT", "buy", 7, 50, 0, "opening", None),
    ]
    assert only(rows, "recorded_by", "recorded_at")[0] == ("postgres", NOW)


def test_positions_are_valued_at_the_marks(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", 10, 4)
    firm.check("A1", "a", "AAPL C100", "buy", 3, 5)
    firm.check("A1", "b", "AAPL C100", "sell", 2, 5)
    firm.mark(
        {"AAPL C100": 6}, deltas=[0.5], gammas=[0.02], vegas=[0.1], thetas=[-0.05], rhos=[0.03]
    )
    (row,) = firm.rows("select * from risk.positions")
    assert only([row], "account", "symbol", "underlying", "quantity", "open_buy", "open_sell") == [
        ("A1", "AAPL C100", "AAPL", 10, 3, 2)
    ]
    money = ("average_price", "mark", "market_value", "unrealized_pnl", "realized_pnl_today")
    assert only([row], *money) == [(4, 6, 6000, 2000, 0)]
    greeks = [row[greek] for greek in ("delta", "gamma", "vega", "theta", "rho")]
    assert greeks == pytest.approx([500, 20, 100, -50, 30])
    assert row["as_of"] == NOW
    firm.fill("A1", "b", "e1", 2, 7, fee=1)
    (row,) = firm.rows("select * from risk.positions")
    assert only([row], "quantity", "open_sell", "market_value") == [(8, 0, 4800)]
    assert row["realized_pnl_today"] == 2 * 3 * 100 - 1


def test_a_position_without_mark_or_greeks_shows_null(firm: Caller) -> None:
    firm.call("upsert_instruments", instruments=Jsonb([{"symbol": "NEW", "kind": "stock"}]))
    firm.hold("A1", "NEW", 5, 20)
    (row,) = firm.rows("select * from risk.positions")
    unknown = ("mark", "market_value", "unrealized_pnl", "delta", "rho", "as_of")
    assert only([row], "quantity", "average_price", *unknown) == [(5, 20, *(None,) * 6)]


def test_an_expired_option_has_no_greeks(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", -1, 5)
    firm.mark({"AAPL C100": 5}, deltas=[0.5], gammas=[0.1])
    firm.call("open_day", day="2099-03-20")
    assert firm.value("select delta from risk.positions") == -50
    firm.call("open_day", day="2099-03-21")
    assert firm.value("select delta from risk.positions") == 0


def test_a_closed_position_disappears_with_the_day(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 5, 100)
    firm.hold("A1", "AAPL", -5, 110)
    assert firm.value("select realized_pnl_today from risk.positions") == 50
    firm.call("open_day", day="2099-01-01")
    assert firm.rows("select * from risk.positions") == []


def test_views_show_nothing_of_the_reading_transaction(firm: Caller) -> None:
    with firm.connection.transaction(force_rollback=True):
        firm.rows(
            """select risk_private.decide_order(
                 'A1', 'mine', '{AAPL}', '{buy}', '{1}', 5, 100, null, 'DAY', false)"""
        )
        firm.rows("select risk_private.record_fill('A1', 'mine', 'e1', 1, 100, null, 0, null)")
        assert firm.value("select count(*) from risk_private.orders") == 1
        assert firm.value("select count(*) from risk_private.fills") == 1
        for view in ("orders", "open_orders", "decisions", "fills"):
            assert firm.rows(f"select * from risk.{view}") == []


# -- limits ------------------------------------------------------------------------------------


def test_limits_in_force_and_their_history(firm: Caller) -> None:
    firm.limit("A1", "order_quantity", 10, symbol="AAPL", reason="start")
    firm.limit("A1", "order_quantity", 20, symbol="AAPL", valid_until=NOW + timedelta(hours=1))
    firm.limit("A1", "gross_notional", 5, sector="Tech", warn_pct=70)
    firm.limit("A1", "gross_notional", 6, underlying="MSFT", valid_from=NOW + timedelta(hours=1))
    query = "select * from risk.limits where scope = 'A1' order by limit_type desc"
    key = ("limit_type", "symbol", "underlying", "sector", "limit_value")
    assert only(firm.rows(query), *key, "warn_pct", "version", "valid_until") == [
        ("order_quantity", "AAPL", None, None, 20, 100, 2, NOW + timedelta(hours=1)),
        ("gross_notional", None, None, "Tech", 5, 70, 1, None),
    ]
    firm.call("remove_limit", scope="A1", limit_type="gross_notional", sector="Tech", reason="no")
    firm.connection.execute("update risk_private.fake_clock set at = at + interval '1 hour'")
    assert only(firm.rows(query), *key, "version", "reason") == [
        ("order_quantity", "AAPL", None, None, 10, 1, "start"),
        ("gross_notional", None, "MSFT", None, 6, 1, None),
    ]
    history = firm.rows("select * from risk.limit_history where scope = 'A1' order by request_id")
    assert only(history, "limit_type", "version", "limit_value") == [
        ("order_quantity", 1, 10),
        ("order_quantity", 2, 20),
        ("gross_notional", 1, 5),
        ("gross_notional", 1, 6),
        ("gross_notional", 2, None),
    ]
    assert only(history, "reason", "set_by", "set_at")[-1] == ("no", "postgres", NOW)


def test_a_default_shows_its_worst_instrument_and_leaves_out_what_has_its_own(
    firm: Caller,
) -> None:
    firm.limit("A1", "net_position", 100)
    firm.limit("A1", "net_position", 40, underlying="XOM")
    firm.limit("A1", "net_position", 1000, symbol="MSFT")
    firm.hold("A1", "AAPL", -50)
    firm.check("A1", "a", "AAPL", "sell", 10, 100)
    firm.hold("A1", "AAPL P90", 20)
    firm.hold("A1", "MSFT", 500)
    firm.hold("A1", "XOM", 30)
    columns = ("symbol", "underlying", "instrument", "used", "worst_case", "utilization_pct")
    found = utilization(firm, "net_position", *columns, "status")
    assert [row[1:] for row in found if row[0] == "A1"] == [
        (None, "XOM", "XOM", 30, 30, 75, "OK"),
        (None, None, "AAPL", 50, 60, 60, "OK"),
        ("MSFT", None, "MSFT", 500, 500, 50, "OK"),
    ]


def test_sides_of_a_position_net_across_the_accounts_below(firm: Caller) -> None:
    firm.limit("D1", "net_position", 100)
    firm.limit("D1", "long_position", 100)
    firm.limit("D1", "short_position", 100)
    firm.limit("A2", "short_position", 100)
    firm.hold("A1", "AAPL", 50)
    firm.hold("A2", "AAPL", -20)
    firm.check("A2", "a", "AAPL", "sell", 60, 100)
    both = ("used", "worst_case")
    assert ("D1", 30, 30) in utilization(firm, "net_position", *both)
    assert utilization(firm, "long_position", *both) == [("D1", 30, 30)]
    assert utilization(firm, "short_position", *both) == [("A2", 20, 80), ("D1", 0, 30)]


def test_sums_tell_what_is_filled_and_what_could_be(firm: Caller) -> None:
    for limit_type in (
        "gross_position",
        "gross_notional",
        "traded_notional",
        "open_orders",
        "open_positions",
    ):
        firm.limit("D1", limit_type, 10000)
        firm.limit("F", limit_type, 10000, sector="Tech")
        firm.limit("F", limit_type, 10000, underlying="XOM")
    firm.hold("A1", "AAPL", 10, 90)
    firm.hold("A2", "AAPL", -5, 90)
    firm.hold("B1", "MSFT", 3, 50)
    firm.check("A1", "a", "AAPL", "buy", 4, 101)
    firm.check("A1", "b", "XOM", "sell", 2, 80)
    columns = ("sector", "underlying", "used", "worst_case")
    expected = {
        "gross_position": [(15, 21), (18, 22), (0, 2)],
        "gross_notional": [(1500, 2060), (1650, 2050), (0, 160)],
        "traded_notional": [(1350, 1914), (1500, 1904), (0, 160)],
        "open_orders": [(2, 2), (1, 1), (1, 1)],
        "open_positions": [(2, 3), (3, 3), (0, 1)],
    }
    for limit_type, (desk, tech, xom) in expected.items():
        assert set(utilization(firm, limit_type, *columns)) == {
            ("D1", None, None, *desk),
            ("F", "Tech", None, *tech),
            ("F", None, "XOM", *xom),
        }, limit_type


def test_rates_show_the_window_that_ends_now(firm: Caller) -> None:
    firm.limit("F", "order_rate", 5)
    firm.limit("D1", "order_rate_minute", 50, underlying="AAPL")
    for number in range(4):
        firm.check("A1", f"a{number}", "AAPL", "buy", 1, 100)
        firm.connection.execute("update risk_private.fake_clock set at = at + interval '400 ms'")
    firm.check("B1", "b", "MSFT", "buy", 1, 100)
    both = ("used", "worst_case")
    assert utilization(firm, "order_rate", *both) == [("F", 3, 3)]
    assert utilization(firm, "order_rate_minute", *both) == [("D1", 4, 4)]
    firm.connection.execute("update risk_private.fake_clock set at = at + interval '59 seconds'")
    assert utilization(firm, "order_rate", *both) == [("F", 0, 0)]
    assert utilization(firm, "order_rate_minute", *both) == [("D1", 2, 2)]


def test_utilization_is_told_worst_first(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 90, 1)
    firm.limit("A1", "open_orders", 0)
    firm.limit("A1", "order_notional", 10)
    firm.limit("A1", "gross_position", 100, warn_pct=90)
    firm.limit("A1", "open_positions", 0)
    firm.limit("A1", "net_position", 60)
    firm.limit("A1", "long_position", 100, warn_pct=91)
    rows = firm.rows("select * from risk.limit_utilization where scope = 'A1'")
    assert only(rows, "limit_type", "worst_case", "utilization_pct", "status") == [
        ("open_positions", 1, None, "BREACH"),
        ("net_position", 90, 150, "BREACH"),
        ("gross_position", 90, 90, "WARN"),
        ("long_position", 90, 90, "OK"),
        ("open_orders", 0, 0, "OK"),
        ("order_notional", None, None, "OK"),
    ]
    assert only(rows, "as_of", "version")[0] == (NOW, 1)


def test_exposure_is_what_decisions_go_by(firm: Caller) -> None:
    firm.limit("D1", "gross_notional", 10**9, sector="Tech")
    firm.hold("A1", "AAPL", 10, 90)
    firm.hold("A2", "AAPL", -4, 90)
    firm.check("A2", "a", "MSFT", "buy", 5, 50)
    firm.mark({"MSFT": 60}, as_of=NOW + timedelta(seconds=1))
    rows = firm.rows("select * from risk.exposure where scope = 'D1'")
    by_key = {(row["sector"], row["symbol"]): row for row in rows}
    sums = ("gross_position", "gross_notional", "open_orders", "open_positions", "as_of")
    everything = [(19, 1700, 1, 3, NOW)]
    assert only([by_key[None, None]], *sums) == everything
    assert only([by_key["Tech", None]], *sums) == everything
    assert by_key[None, None]["quantity"] is None
    rows = firm.rows("select * from risk.exposure where scope = 'F' and symbol is not null")
    columns = ("symbol", "quantity", "open_buy", "open_sell", "gross_position", "as_of")
    assert sorted(only(rows, *columns)) == [
        ("AAPL", 6, 0, 0, 14, NOW),
        ("MSFT", 0, 5, 0, 5, NOW + timedelta(seconds=1)),
    ]


# -- reference data, health, queues ------------------------------------------------------------


def test_reference_data(firm: Caller) -> None:
    firm.call("set_setting", name="max_mark_age", value="7", scope="D2")
    firm.call("set_setting", name="required_limit_types", value="open_orders", scope="F")
    firm.call("grant_trading", role="risk_trader", scope="D1")
    (row,) = firm.rows("select * from risk.scopes where scope = 'S1'")
    assert only([row], "kind", "parent", "is_account") == [("strategy", "B2", True)]
    assert row["path"] == ["F", "D2", "B2", "S1"]
    assert row["max_mark_age"] == 7
    assert row["required_limit_types"] == ["net_position", "open_orders"]
    (row,) = firm.rows("select * from risk.instruments where symbol = 'AAPL P90'")
    assert only([row], "kind", "underlying", "sector", "strike", "option_right", "multiplier") == [
        ("option", "AAPL", "Tech", 90, "put", 100)
    ]
    firm.mark({"XOM": 81}, bids=[Decimal("80.9")], asks=[Decimal("81.1")], ivs=[0.3])
    (row,) = firm.rows("select * from risk.marks where symbol = 'XOM'")
    assert only([row], "price", "bid", "ask", "implied_volatility", "as_of") == [
        (81, Decimal("80.9"), Decimal("81.1"), 0.3, NOW)
    ]
    rows = firm.rows("select * from risk.settings where scope = 'D2'")
    assert only(rows, "name", "value", "set_by") == [("max_mark_age", "7", "postgres")]
    rows = firm.rows("select * from risk.trading_grants")
    assert only(rows, "role", "scope") == [("risk_trader", "D1")]


def health(firm: Caller) -> dict[str, tuple[Any, ...]]:
    rows = firm.rows("select * from risk.health")
    return {row["measure"]: (row["value"], row["status"]) for row in rows}


def test_health_tells_what_would_be_refused(firm: Caller) -> None:
    assert health(firm)["heartbeat_age"] == (None, None)
    firm.call("set_setting", name="max_heartbeat_age", value="3", scope="D1")
    firm.call("set_setting", name="max_mark_age", value="60", scope="D1")
    firm.hold("A1", "AAPL C100", 1)
    assert firm.check("A1", "a", "AAPL C100", "buy", 1, 5).reason == "STALE_DATA"
    found = health(firm)
    assert found["heartbeat_age"] == (None, "FAIL")
    assert found["oldest_mark_age"] == (0, "OK")
    assert found["missing_marks"] == (0, "OK")
    beat = "update risk_private.heartbeat set beat_at = %s, inputs_as_of = %s"
    firm.connection.execute(beat, [NOW - timedelta(seconds=3), NOW - timedelta(seconds=4)])
    found = health(firm)
    assert found["heartbeat_age"] == (3, "OK")
    assert found["heartbeat_inputs_age"] == (4, "FAIL")
    firm.mark({"AAPL": 100}, as_of=NOW)
    firm.connection.execute("update risk_private.fake_clock set at = at + interval '61 seconds'")
    firm.mark({"AAPL C100": 5})
    assert health(firm)["oldest_mark_age"] == (61, "FAIL")
    firm.call("upsert_instruments", instruments=Jsonb([{"symbol": "NEW", "kind": "stock"}]))
    firm.hold("B1", "NEW", 5, 20)
    firm.call("set_trading_state", scope="A2", state="HALTED", reason="a test")
    found = health(firm)
    assert found["missing_marks"] == (1, "FAIL")
    assert found["halted_scopes"] == (1, "WARN")


def test_health_counts_what_waits(firm: Caller) -> None:
    for name in ("a", "b", "c"):
        firm.check("A1", name, "AAPL", "buy", 1, 100)
    firm.call("dispatch_order", account="A1", client_order_id="a")
    firm.call("cancel_orders", scope="F", reason="a test")
    firm.rows("select pgmq.send('risk_dead', '{}')")
    found = health(firm)
    assert found["open_orders"] == (3, None)
    assert found["unsent_orders"] == (2, None)
    assert found["cancel_requests"] == (3, None)
    assert found["queued_alerts"] == (3, None)
    assert found["dead_messages"] == (1, "WARN")


def test_queues(db: Database, firm: Caller) -> None:
    db.set_clock(None)
    firm.check("A1", "a", "AAPL", "buy", 1, 100)
    firm.check("A1", "b", "AAPL", "buy", 1, 100)
    firm.call("cancel_orders", scope="F", reason="a test")
    firm.rows("select pgmq.read('risk_alerts', 60, 1)")
    rows = {row["queue"]: row for row in firm.rows("select * from risk.queue_status")}
    columns = ("length", "visible", "most_reads")
    assert only([rows["risk_alerts"]], *columns) == [(2, 1, 1)]
    assert 0 <= rows["risk_alerts"]["oldest_age"] < 60
    assert rows["risk_events"]["length"] > 0
    assert only([rows["risk_dead"]], *columns, "oldest_age") == [(0, 0, None, None)]


# -- verify_counters ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("positions set quantity = quantity + 1", {("position:AAPL", "quantity", 11, 10)}),
        ("positions set open_buy = 0", {("position:AAPL", "open_buy", 0, 2)}),
        ("positions set open_sell = 7", {("position:AAPL", "open_sell", 7, 3)}),
        ("counters set quantity = 9", {("instrument:AAPL", "quantity", 9, 10)}),
        ("counters set open_buy = 9", {("instrument:AAPL", "open_buy", 9, 2)}),
        ("counters set open_sell = 9", {("instrument:AAPL", "open_sell", 9, 3)}),
        (
            "counters set gross_position = 9",
            {("instrument:AAPL", "gross_position", 9, 12), ("all", "gross_position", 9, 12)},
        ),
        (
            "counters set gross_notional = 9",
            {("instrument:AAPL", "gross_notional", 9, 1200), ("all", "gross_notional", 9, 1200)},
        ),
        (
            "counters set traded_notional = 9",
            {("instrument:AAPL", "traded_notional", 9, 1400), ("all", "traded_notional", 9, 1400)},
        ),
        (
            "counters set open_orders = 9",
            {("instrument:AAPL", "open_orders", 9, 2), ("all", "open_orders", 9, 2)},
        ),
        (
            "counters set open_positions = 9",
            {("instrument:AAPL", "open_positions", 9, 1), ("all", "open_positions", 9, 1)},
        ),
    ],
)
def test_verify_counters_finds_every_kind_of_drift(
    firm: Caller, damage: str, found: set[tuple[Any, ...]]
) -> None:
    firm.hold("A1", "AAPL", 10, 90)
    firm.check("A1", "a", "AAPL", "buy", 2, 100)
    firm.check("A1", "b", "AAPL", "sell", 3, 100)
    assert firm.differences() == []
    where = "" if damage.startswith("positions") else " where scope_id = %s"
    ((scope_id,),) = firm.connection.execute(
        "select scope_id from risk_private.scopes where code = 'F'"
    )
    firm.connection.execute(
        f"update risk_private.{damage}{where}".encode(), [scope_id] if where else None
    )
    rows = firm.differences()
    differences = only(rows, "dimension", "measure", "stored", "expected")
    assert found <= set(differences)
    if where:
        assert set(differences) == found
        assert {row["scope"] for row in rows} == {"F"}


def test_verify_counters_finds_what_is_missing_or_too_many(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 10, 90)
    firm.connection.execute("delete from risk_private.counters where dimension = 3")
    found = only(firm.differences(), "scope", "dimension", "measure", "stored", "expected")
    assert ("F", "instrument:AAPL", "quantity", None, 10) in found
    firm.connection.execute("delete from risk_private.fills")
    found = only(firm.differences(), "scope", "dimension", "measure", "stored", "expected")
    assert ("A1", "position:AAPL", "quantity", 10, None) in found


def test_verify_counters_counts_a_combo_once_in_every_dimension(firm: Caller) -> None:
    """Legs that share a sector and an underlying, and legs that do not."""
    for scope in ("F", "D1", "A1"):
        for key in ({}, {"sector": "Tech"}, {"underlying": "AAPL"}, {"symbol": "MSFT"}):
            firm.limit(scope, "open_orders", 10, **key)
    firm.combo("A1", "a", "buy 1 AAPL C100, sell 1 AAPL C110, buy 1 MSFT", 1)
    firm.combo("A1", "b", "buy 1 MSFT, sell 1 XOM", 1)
    firm.check("A2", "c", "AAPL", "buy", 1, 100)
    assert firm.differences() == []
    rows = firm.rows("select * from risk.limit_utilization where limit_type = 'open_orders'")
    used = {(r["scope"], r["symbol"], r["underlying"], r["sector"]): r["used"] for r in rows}
    assert [used["A1", *key] for key in ((None,) * 3, (None, None, "Tech"))] == [2, 2]
    assert [used["D1", *key] for key in ((None, "AAPL", None), ("MSFT", None, None))] == [2, 2]
    assert used["F", None, None, None] == 3
