"""concentration_pct: the dollar delta of an underlying, or a sector, in percent of the equity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests.orders import Answer, Caller, Number, callers, each_at_once, item, open_firm
from tests.test_money import code, post, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
EQUITIES = {"A1": 10_000, "A2": 10_000, "B1": 20_000}
DELTAS = {"AAPL C100": 0.5, "AAPL C110": 0.4, "AAPL P90": -0.3}
SAP = Jsonb([{"symbol": "SAP", "kind": "stock", "currency": "EUR"}])


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """A1 and A2 have 10,000 each, B1 20,000, S1 nothing; AAPL stands at 100, MSFT at 50."""
    db.set_clock(NOW)
    with open_firm(db) as caller:
        for account, amount in EQUITIES.items():
            post(caller, account, amount, "deposit")
        number = len(DELTAS)
        caller.mark(
            dict.fromkeys(DELTAS, 5),
            deltas=list(DELTAS.values()),
            gammas=[0.01] * number,
            vegas=[0.1] * number,
            thetas=[-0.1] * number,
        )
        yield caller
        assert caller.differences() == []


def order(
    firm: Caller, account: str, side: str, quantity: Number, symbol: str = "AAPL", price: int = 100
) -> Answer:
    return firm.check(account, firm.new_name(), symbol, side, quantity, price)


def outcome(answer: Answer) -> tuple[str, int]:
    return answer.reason or answer.decision, int(answer.allowed_quantity)


def utilization(firm: Caller, scope: str, **key: str) -> tuple[object, ...]:
    """Used, worst case, status and the underlying that it is about, of the only such limit."""
    (row,) = firm.rows(
        """select used, worst_case, status, instrument from risk.limit_utilization
           where limit_type = 'concentration_pct' and scope = %s
             and underlying is not distinct from %s and sector is not distinct from %s""",
        scope,
        key.get("underlying"),
        key.get("sector"),
    )
    return tuple(row.values())


# -- the boundary ------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "room"), [("A1", 20), ("D1", 40), ("F", 80)])
@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize("warn_pct", [100, 60])
def test_it_holds_at_the_boundary_on_both_sides(
    firm: Caller, scope: str, room: int, side: str, warn_pct: int
) -> None:
    """20 % of the equity of the very scope."""
    firm.limit(scope, "concentration_pct", 20, warn_pct=warn_pct)
    assert order(firm, "A1", side, room - 10).is_accepted
    answer = order(firm, "A1", side, 11)
    assert outcome(answer) == ("RISK_LIMIT_EXCEEDED", 10)
    assert answer.failed == {("concentration_pct", scope, "all")}
    (violation,) = answer.violations
    shown = [Decimal(violation[name]) for name in ("limit", "current", "projected")]
    assert shown == [20, Decimal(room - 10) * 20 / room, Decimal(room + 1) * 20 / room]
    last = order(firm, "A1", side, 10)
    assert last.is_accepted
    assert [w["limit_type"] for w in last.warnings] == ["concentration_pct"]
    assert outcome(order(firm, "A1", side, 1)) == ("RISK_LIMIT_EXCEEDED", 0)
    assert utilization(firm, scope) == (0, 20, "WARN", "AAPL")


def test_open_orders_never_net_but_each_side_is_judged_by_itself(firm: Caller) -> None:
    firm.limit("A1", "concentration_pct", 20)
    assert order(firm, "A1", "buy", 20).is_accepted
    assert order(firm, "A1", "sell", 20).is_accepted
    assert outcome(order(firm, "A1", "buy", 5)) == ("RISK_LIMIT_EXCEEDED", 0)
    assert outcome(order(firm, "A1", "sell", 5)) == ("RISK_LIMIT_EXCEEDED", 0)
    assert order(firm, "A1", "buy", 5, "MSFT").is_accepted


def test_fractions_are_not_rounded_in_the_orders_favour(firm: Caller) -> None:
    """A third of 10,000: 33.33 % has room for 3,333.00, and no cent more."""
    post(firm, "A2", -9_999, "withdrawal")  # of an equity of 1, 1 % is a cent
    firm.limit("A2", "concentration_pct", Decimal("10000.000001"))
    assert order(firm, "A2", "buy", 1).is_accepted
    firm.limit("A1", "concentration_pct", Decimal("33.33"))
    firm.mark({"MSFT": Decimal("33.33")})
    assert outcome(order(firm, "A1", "buy", 101, "MSFT", 33)) == ("RISK_LIMIT_EXCEEDED", 100)
    firm.mark({"MSFT": Decimal("33.3300001")})
    assert outcome(order(firm, "A1", "buy", 100, "MSFT", 33)) == ("RISK_LIMIT_EXCEEDED", 99)


def test_a_limit_of_nothing_permits_nothing_but_closing(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 5, 100)
    firm.limit("A1", "concentration_pct", 0)
    assert outcome(order(firm, "A1", "buy", 1, "MSFT", 50)) == ("RISK_LIMIT_EXCEEDED", 0)
    assert order(firm, "A1", "sell", 5).is_accepted


# -- what it is summed over --------------------------------------------------------------------


def test_it_is_per_underlying_and_the_most_specific_row_of_a_scope_holds(firm: Caller) -> None:
    firm.limit("A1", "concentration_pct", 20)
    firm.limit("A1", "concentration_pct", 30, underlying="AAPL")
    assert order(firm, "A1", "buy", 30).is_accepted
    answer = order(firm, "A1", "buy", 1)
    assert answer.failed == {("concentration_pct", "A1", "underlying:AAPL")}
    answer = order(firm, "A1", "buy", 41, "MSFT", 50)
    assert answer.failed == {("concentration_pct", "A1", "all")}
    assert outcome(answer) == ("RISK_LIMIT_EXCEEDED", 40)
    assert order(firm, "A1", "buy", 40, "MSFT", 50).is_accepted
    assert order(firm, "A1", "buy", 25, "XOM", 80).is_accepted
    assert utilization(firm, "A1", underlying="AAPL") == (0, 30, "WARN", "AAPL")
    assert utilization(firm, "A1") == (0, 20, "WARN", "MSFT")


def test_a_narrower_row_may_be_the_stricter_one(firm: Caller) -> None:
    firm.limit("A1", "concentration_pct", 50)
    firm.limit("A1", "concentration_pct", 5, underlying="AAPL")
    assert outcome(order(firm, "A1", "buy", 6)) == ("RISK_LIMIT_EXCEEDED", 5)
    assert order(firm, "A1", "buy", 5).is_accepted
    firm.call("remove_limit", scope="A1", limit_type="concentration_pct", underlying="AAPL")
    assert order(firm, "A1", "buy", 45).is_accepted
    assert order(firm, "A1", "buy", 1).reason == "RISK_LIMIT_EXCEEDED"


def test_a_sector_is_summed_and_holds_beside_the_row_for_all(firm: Caller) -> None:
    firm.limit("A1", "concentration_pct", 20)
    firm.limit("A1", "concentration_pct", 30, sector="Tech")
    assert order(firm, "A1", "buy", 18).is_accepted
    answer = order(firm, "A1", "buy", 50, "MSFT", 50)
    assert outcome(answer) == ("RISK_LIMIT_EXCEEDED", 24)
    dimensions = {dimension for _, _, dimension in answer.failed}
    assert dimensions == {"all", "sector:Tech"}
    assert order(firm, "A1", "sell", 10, "MSFT", 50).is_accepted  # which buys no room
    assert order(firm, "A1", "buy", 24, "MSFT", 50).is_accepted
    assert outcome(order(firm, "A1", "buy", 3)) == ("RISK_LIMIT_EXCEEDED", 0)
    assert order(firm, "A1", "buy", 25, "XOM", 80).is_accepted
    assert utilization(firm, "A1", sector="Tech") == (0, 30, "WARN", None)


def test_options_count_by_their_delta_and_a_combo_is_one_order(firm: Caller) -> None:
    firm.limit("A1", "concentration_pct", 100)
    assert outcome(order(firm, "A1", "buy", 3, "AAPL C100", 5)) == ("RISK_LIMIT_EXCEEDED", 2)
    legs = "buy 1 AAPL C100, sell 1 AAPL C110"  # +5,000 and -4,000
    assert outcome(firm.combo("A1", "many", legs, 11, 0)) == ("RISK_LIMIT_EXCEEDED", 10)
    assert firm.combo("A1", "some", legs, 10, 0).is_accepted
    assert utilization(firm, "A1") == (0, 100, "WARN", "AAPL")
    assert order(firm, "A1", "sell", 2, "AAPL C100", 5).is_accepted
    hedged = "buy 1 AAPL C100, buy 100 MSFT"
    firm.limit("A1", "concentration_pct", 200, underlying="AAPL")
    assert firm.combo("A1", "two", hedged, 3, 0).allowed_quantity == 2
    firm.limit("A1", "concentration_pct", 50, sector="Tech")
    answer = firm.combo("A1", "three", hedged, 1, 0)
    assert answer.failed == {("concentration_pct", "A1", "sector:Tech")}


def test_parents_net_over_their_accounts_and_are_judged_separately(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 60, 100)  # 6,000 of 16,000, and of 30,000 with the 4,000 short
    firm.hold("A2", "AAPL", -40, 100)  # 4,000 short of 6,000
    firm.limit("D1", "concentration_pct", 20)  # of 22,000: 4,400
    assert utilization(firm, "D1") == (Decimal("9.090909"), Decimal("9.090909"), "OK", "AAPL")
    assert order(firm, "B1", "buy", 500).is_accepted
    assert outcome(order(firm, "A2", "buy", 40)) == ("RISK_LIMIT_EXCEEDED", 24)  # an exit
    assert order(firm, "A2", "buy", 24).is_accepted
    assert order(firm, "A1", "sell", 60).is_accepted
    assert utilization(firm, "D1")[1] == Decimal("20")


# -- the equity --------------------------------------------------------------------------------


def test_a_fall_of_the_equity_alone_is_a_breach_that_only_lets_exposure_shrink(
    firm: Caller,
) -> None:
    trade(firm, "A1", "AAPL", 18, 100)
    trade(firm, "A1", "XOM", 25, 80)
    firm.limit("A1", "concentration_pct", 20)
    assert utilization(firm, "A1") == (20, 20, "WARN", "XOM")
    firm.mark({"XOM": 20})  # 10,000 - 1,500
    assert utilization(firm, "A1") == (Decimal("21.176471"), Decimal("21.176471"), "BREACH", "AAPL")
    assert outcome(order(firm, "A1", "buy", 1)) == ("RISK_LIMIT_EXCEEDED", 0)
    assert order(firm, "A1", "buy", 1, "XOM", 20).is_accepted
    flip = order(firm, "A1", "sell", 36)
    assert outcome(flip) == ("RISK_LIMIT_EXCEEDED", 35)  # 17 short are 20 % of 8,500
    assert order(firm, "A1", "sell", 35).is_accepted
    assert outcome(order(firm, "A1", "sell", 1)) == ("RISK_LIMIT_EXCEEDED", 0)
    post(firm, "A1", 1_000, "deposit")
    assert order(firm, "A1", "sell", 2).is_accepted


@pytest.mark.parametrize("scope", ["A1", "D1", "F"])
def test_of_no_equity_any_exposure_is_infinite(firm: Caller, scope: str) -> None:
    firm.limit(scope, "concentration_pct", 10**6)
    trade(firm, "A1", "AAPL", 50, 100)
    for account, equity in EQUITIES.items():
        post(firm, account, -equity, "withdrawal")
    answer = order(firm, "A1", "buy", 1, "MSFT", 50)
    assert outcome(answer) == ("RISK_LIMIT_EXCEEDED", 0)
    assert [violation["projected"] for violation in answer.violations] == ["Infinity"]
    assert utilization(firm, scope) == (Decimal("Infinity"), Decimal("Infinity"), "BREACH", "AAPL")
    assert order(firm, "A1", "sell", 1, "MSFT", 50).reason == "RISK_LIMIT_EXCEEDED"
    hedge = order(firm, "A1", "buy", 1, "AAPL P90", 5)  # smaller, but not by closing
    assert outcome(hedge) == ("RISK_LIMIT_EXCEEDED", 0)
    assert outcome(order(firm, "A1", "sell", 51)) == ("RISK_LIMIT_EXCEEDED", 50)
    assert order(firm, "A1", "sell", 50).is_accepted
    post(firm, "A1", -10, "fee")
    assert order(firm, "A1", "buy", 1).reason == "RISK_LIMIT_EXCEEDED"
    assert order(firm, "S1", "buy", 1).is_accepted is (scope != "F")
    batch = firm.batch([item("A1", firm.new_name(), "buy MSFT", 1, price=50)])
    assert batch[0].reason == "RISK_LIMIT_EXCEEDED"


def test_while_nothing_is_held_no_equity_is_no_breach(firm: Caller) -> None:
    firm.limit("S1", "concentration_pct", 10)
    assert utilization(firm, "S1") == (0, 0, "OK", None)
    assert order(firm, "S1", "buy", 1).reason == "RISK_LIMIT_EXCEEDED"


def test_an_unknown_equity_stops_all_but_reductions(firm: Caller) -> None:
    firm.limit("D1", "concentration_pct", 50)
    firm.limit("A1", "concentration_pct", 50)
    trade(firm, "A1", "AAPL", 5, 100)
    firm.call("upsert_instruments", instruments=SAP)
    trade(firm, "A2", "SAP", 1, 50)
    answer = order(firm, "A1", "buy", 1)
    assert outcome(answer) == ("STALE_DATA", 0)
    assert answer.failed == {("concentration_pct", "D1", "all")}
    assert firm.batch([item("A1", "b", "buy AAPL", 1, price=100)])[0].reason == "STALE_DATA"
    assert utilization(firm, "D1")[:3] == (None, None, "BREACH")
    assert utilization(firm, "A1")[2] == "OK"
    assert outcome(order(firm, "A1", "sell", 6)) == ("STALE_DATA", 5)
    assert order(firm, "A1", "sell", 5).is_accepted
    firm.call("set_fx", currency="EUR", rate=1)
    assert order(firm, "A1", "buy", 1).is_accepted


def test_a_stale_rate_leaves_the_equity_unknown(db: Database, firm: Caller) -> None:
    firm.call("upsert_instruments", instruments=SAP)
    firm.call("set_fx", currency="EUR", rate=1)
    firm.call("set_setting", name="max_mark_age", value="60")
    firm.limit("D1", "concentration_pct", 50)
    post(firm, "A1", 100, "deposit", currency="EUR")
    assert order(firm, "A2", "buy", 1).is_accepted
    db.set_clock(NOW + timedelta(seconds=61))
    firm.mark({"AAPL": 100})
    assert order(firm, "A2", "buy", 1).reason == "STALE_DATA"
    assert order(firm, "B1", "buy", 1).is_accepted
    firm.call("set_fx", currency="EUR", rate=1)
    assert order(firm, "A2", "buy", 1).is_accepted


def test_unknown_greeks_stop_all_but_reductions_in_their_underlying(firm: Caller) -> None:
    firm.limit("D1", "concentration_pct", 50)
    firm.call(
        "upsert_instruments",
        instruments=Jsonb(
            [
                {"symbol": "NEW", "kind": "stock", "sector": "New"},
                {"symbol": "N", "kind": "option", "underlying": "NEW", "expiry": "2099-03-20"}
                | {"strike": 9, "option_right": "put"},
            ]
        ),
    )
    firm.mark({"N": 2})
    firm.hold("A1", "N", 3)
    answer = order(firm, "A1", "buy", 1, "N", 2)
    assert (answer.reason, answer.failed) == ("STALE_DATA", {("concentration_pct", "D1", "all")})
    assert utilization(firm, "D1") == (None, None, "BREACH", "NEW")
    assert order(firm, "A1", "sell", 3, "N", 2).is_accepted
    assert order(firm, "A1", "buy", 1).is_accepted


# -- every way to ask --------------------------------------------------------------------------


def test_a_batch_is_judged_like_its_orders(firm: Caller) -> None:
    firm.limit("D1", "concentration_pct", 20)
    firm.limit("F", "concentration_pct", 15, sector="Tech", warn_pct=90)
    for account in EQUITIES:
        for symbol, price in (("AAPL", 100), ("MSFT", 50), ("XOM", 80)):
            assert order(firm, account, "buy", 1, symbol, price).is_accepted
    fine = [item(account, "fine", "buy AAPL", 9, price=100) for account in ("A1", "A2")]
    assert [answer.decision for answer in firm.batch(fine)] == ["ACCEPTED"] * 2
    orders = [
        item("A1", "b1", "buy AAPL", 20, price=100),
        item("A2", "b2", "buy AAPL", 1, price=100),
        item("A2", "b3", "sell AAPL", 5, price=100),
        item("B1", "b4", "buy MSFT", 36, price=50),
        item("B1", "b5", "buy MSFT", 35, price=50),
        item("B1", "b6", "buy XOM", 100, price=80),
    ]
    reasons = [answer.reason for answer in firm.batch(orders)]
    refused = "RISK_LIMIT_EXCEEDED"
    assert reasons == [None, refused, None, refused, None, None]
    assert utilization(firm, "F", sector="Tech")[1] == 15


def test_a_replace_is_judged_as_the_increment(firm: Caller) -> None:
    firm.limit("A1", "concentration_pct", 20)
    assert firm.check("A1", "old", "AAPL", "buy", 15, 100).is_accepted
    firm.fill("A1", "old", "e", 5, 100)
    assert outcome(firm.replace("A1", "old", "new", 21, 100)) == ("RISK_LIMIT_EXCEEDED", 20)
    assert firm.replace("A1", "old", "newer", 20, 100).is_accepted
    assert utilization(firm, "A1")[:2] == (5, 20)
    firm.call("confirm_replace", account="A1", new_client_order_id="newer")
    firm.call("release_order", account="A1", client_order_id="newer", reason="cancelled")
    assert utilization(firm, "A1")[:2] == (5, 5)


def test_a_preview_shows_it_in_percent(firm: Caller) -> None:
    firm.limit("A1", "concentration_pct", 20, warn_pct=50)
    firm.hold("A2", "AAPL", 1)
    rows = [
        tuple(row.values())
        for quantity in (5, 10, 30)
        for row in firm.rows(
            """select limit_value, current_value, projected_value, headroom, allowed_quantity,
                 status, reason
               from risk.preview_order('A1', 'AAPL', 'sell', %s, 100)
               where check_name = 'concentration_pct'""",
            quantity,
        )
    ]
    assert rows == [
        (20, 0, 5, 20, 5, "PASS", None),
        (20, 0, 10, 20, 10, "WARN", None),
        (20, 0, 30, 20, 20, "FAIL", "RISK_LIMIT_EXCEEDED"),
    ]


def test_hot_limits_show_what_limit_utilization_shows(firm: Caller) -> None:
    firm.limit("A1", "concentration_pct", 20)
    firm.limit("A1", "concentration_pct", 10, sector="Tech")
    firm.limit("F", "concentration_pct", 5, underlying="AAPL")
    order(firm, "A1", "buy", 10)
    order(firm, "A1", "sell", 4, "MSFT", 50)
    firm.mark({"AAPL": 200})
    limits = firm.value("select risk.hot_limits('A1', 'AAPL C100')")["limits"]
    shown: dict[tuple[str, str], tuple[object, ...]] = {
        (limit["scope"], limit["dimension"]): (Decimal(limit["worst_case"]), limit["status"])
        for limit in limits
        if limit["limit_type"] == "concentration_pct"
    }
    assert shown == {
        ("A1", "all"): utilization(firm, "A1")[1:3],
        ("A1", "sector:Tech"): utilization(firm, "A1", sector="Tech")[1:3],
        ("F", "underlying:AAPL"): utilization(firm, "F", underlying="AAPL")[1:3],
    }
    assert shown["F", "underlying:AAPL"] == (5, "WARN")
    assert shown["A1", "sector:Tech"] == (20, "BREACH")
    firm.call("upsert_instruments", instruments=SAP)
    trade(firm, "A1", "SAP", 1, 50)
    limits = firm.value("select risk.hot_limits('A1', 'AAPL')")["limits"]
    unknown = [k for k in limits if k["limit_type"] == "concentration_pct"]
    assert {(k["worst_case"], k["status"]) for k in unknown} == {(None, "BREACH")}


def test_it_can_be_required_and_is_not_for_single_symbols(firm: Caller) -> None:
    firm.call("set_setting", name="required_limit_types", value="concentration_pct", scope="A1")
    assert order(firm, "A1", "buy", 1).reason == "CONFIG_NOT_FOUND"
    firm.limit("D1", "concentration_pct", 10, sector="Tech")
    assert order(firm, "A1", "buy", 1).is_accepted
    assert order(firm, "A1", "buy", 1, "XOM", 80).reason == "CONFIG_NOT_FOUND"
    firm.limit("F", "concentration_pct", 10)
    assert order(firm, "A1", "buy", 1, "XOM", 80).is_accepted
    arguments = {"scope": "F", "limit_type": "concentration_pct", "amount": 1, "symbol": "AAPL"}
    assert code(firm, "set_limit", **arguments) == "RK400"


def test_a_limit_set_late_knows_what_is_held_and_open(firm: Caller) -> None:
    trade(firm, "A1", "AAPL", 10, 100)
    order(firm, "A1", "buy", 5)
    firm.combo("A1", "combo", "buy 1 AAPL C100, sell 40 AAPL", 1, 0)
    firm.limit("A1", "concentration_pct", 30)
    assert utilization(firm, "A1") == (10, 25, "OK", "AAPL")
    assert outcome(order(firm, "A1", "buy", 6)) == ("RISK_LIMIT_EXCEEDED", 5)


def test_a_temporary_limit_comes_and_goes(db: Database, firm: Caller) -> None:
    begin, end = NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)
    firm.limit("D1", "concentration_pct", 1, valid_from=begin, valid_until=end)
    assert order(firm, "A1", "buy", 10).is_accepted
    db.set_clock(begin)
    assert order(firm, "A1", "buy", 1).reason == "RISK_LIMIT_EXCEEDED"
    assert firm.batch([item("A1", "b", "buy AAPL", 1, price=100)])[0].reason is not None
    db.set_clock(end)
    assert order(firm, "A1", "buy", 1).is_accepted


def test_it_holds_while_many_trade_and_the_equity_moves(db: Database, firm: Caller) -> None:
    """Buyers of all accounts meet a firm's limit; meanwhile half of its equity goes and comes."""
    firm.limit("F", "concentration_pct", 10)  # 40 AAPL, or 20 with half of the equity
    with callers(db, 5) as workers:
        accounts = ("A1", "A2", "B1", "A1")

        def act(worker: Caller) -> list[Answer]:
            if worker.number < len(accounts):
                account = accounts[worker.number]
                return [order(worker, account, "buy", 1) for _ in range(30)]
            for _ in range(15):
                post(worker, "B1", -20_000, "withdrawal")
                post(worker, "B1", 20_000, "deposit")
            return []

        answers = [answer for each in each_at_once(workers, act) for answer in each]
        left = [order(firm, "A2", "buy", 1) for _ in range(41)]
    assert sum(answer.is_accepted for answer in answers + left) == 40
    assert utilization(firm, "F") == (0, 10, "WARN", "AAPL")


def test_quantities_of_many_digits_leave_nothing_behind(firm: Caller) -> None:
    token = {"symbol": "TOK", "kind": "stock", "lot": "0.00000001"}
    firm.call("upsert_instruments", instruments=Jsonb([token]))
    firm.mark({"TOK": Decimal("0.00001")})
    firm.limit("A1", "concentration_pct", 90)
    quantity = Decimal("12345678.12345679")
    for name in ("explained", "lean"):
        assert firm.check("A1", name, "TOK", "buy", quantity, 1).is_accepted
        assert firm.differences() == []
    for name in ("explained", "lean"):
        firm.call("release_order", account="A1", client_order_id=name, reason="cancelled")
        assert firm.differences() == []
