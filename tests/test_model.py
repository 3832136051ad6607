"""The oracle itself, checked against examples worked out by hand from the definitions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.desk import START, TODAY, D, Desk, limits_hit, outcome
from tests.model import LimitKey, LimitVersion, RiskError, Violation


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_open_orders_never_net_against_each_other(desk: Desk) -> None:
    desk.limit("A1", "net_position", 10)
    assert desk.check("A1", "buy 10 X").decision == "ACCEPTED"
    assert desk.check("A1", "sell 10 X").decision == "ACCEPTED"
    assert desk.check("A1", "sell 1 X").allowed_quantity == 0
    assert desk.check("A1", "buy 1 X").reason == "RISK_LIMIT_EXCEEDED"


def test_a_limit_is_inclusive_and_the_allowed_quantity_is_what_is_left(desk: Desk) -> None:
    desk.limit("A1", "net_position", 10)
    desk.hold("A1", X=4)
    answer = desk.check("A1", "buy 7 X")
    assert outcome(answer) == ("RISK_LIMIT_EXCEEDED", 6)
    assert desk.check("A1", "buy 6 X").decision == "ACCEPTED"


def test_a_passive_breach_does_not_block_a_reduction(desk: Desk) -> None:
    desk.hold("A1", X=100)
    desk.limit("A1", "net_position", 30)
    assert desk.check("A1", "sell 40 X").decision == "ACCEPTED"
    assert desk.check("A1", "buy 1 X").decision == "REJECTED"


def test_a_reduction_that_crosses_zero_is_judged_on_the_far_side(desk: Desk) -> None:
    desk.hold("A1", X=100)
    desk.limit("A1", "net_position", 30)
    answer = desk.check("A1", "sell 131 X")
    assert outcome(answer) == ("RISK_LIMIT_EXCEEDED", 130)


def test_an_exit_that_raises_a_parent_past_its_limit_is_refused(desk: Desk) -> None:
    desk.hold("A1", X=-50)
    desk.hold("A2", X=60)
    desk.limit("D1", "net_position", 20)
    answer = desk.check("A1", "buy 20 X")
    assert limits_hit(answer) == {("net_position", "D1")}
    assert answer.allowed_quantity == 10


def test_the_most_specific_limit_of_a_scope_wins_and_every_scope_applies(desk: Desk) -> None:
    desk.limit("A1", "order_quantity", 5)
    desk.limit("A1", "order_quantity", 20, underlying="X")
    desk.limit("A1", "order_quantity", 3, symbol="C100")
    desk.limit("D1", "order_quantity", 10)
    assert desk.check("A1", "buy 10 X").decision == "ACCEPTED"
    assert limits_hit(desk.check("A1", "buy 11 X")) == {("order_quantity", "D1")}
    assert desk.check("A1", "buy 4 C100", 5).allowed_quantity == 3
    assert desk.check("A1", "buy 6 Y").allowed_quantity == 5


def test_without_a_net_position_limit_nothing_may_be_traded(desk: Desk) -> None:
    desk.oracle.remove_limit(LimitKey("F", "net_position"))
    desk.limit("D1", "net_position", 10, underlying="X")
    assert desk.check("A1", "buy 1 C100", 5).decision == "ACCEPTED"
    answer = desk.check("A1", "buy 1 Y")
    assert outcome(answer) == ("CONFIG_NOT_FOUND", 0)
    assert desk.check("A3", "buy 1 X").reason == "CONFIG_NOT_FOUND"


def test_a_required_type_is_looked_for_like_net_position(desk: Desk) -> None:
    desk.world.settings["D1", "required_limit_types"] = "order_quantity, order_rate"
    desk.limit("A1", "order_quantity", 10)
    assert limits_hit(desk.check("A1", "buy 1 X")) == {("order_rate", "A1")}
    assert desk.check("A3", "buy 1 X").decision == "ACCEPTED"


def test_gross_notional_sums_the_worst_cases_at_their_marks(desk: Desk) -> None:
    desk.limit("F", "gross_notional", 5000, sector="Tech")
    desk.hold("A1", X=20)
    desk.hold("A3", X=-20)
    assert desk.check("A2", "buy 3 C100", 5).allowed_quantity == 2
    assert desk.check("A2", "buy 30 Y").decision == "ACCEPTED"
    desk.oracle.set_mark("X", D(50))
    assert desk.check("A2", "buy 6 C100", 5).decision == "ACCEPTED"


def test_traded_notional_gives_back_what_is_released_and_never_blocks_closing(desk: Desk) -> None:
    desk.limit("A1", "traded_notional", 1000)
    assert desk.check("A1", "buy 6 X").decision == "ACCEPTED"
    order = desk.last_id()
    desk.oracle.record_fill("A1", order, "e1", D(2), D(110))
    assert desk.check("A1", "buy 5 X").allowed_quantity == 3
    desk.oracle.release("A1", order, "cancelled")
    assert desk.check("A1", "buy 7 X").decision == "ACCEPTED"
    assert desk.check("A1", "sell 2 X").decision == "ACCEPTED"


def test_a_new_day_forgets_what_was_traded_and_expires_day_orders(desk: Desk) -> None:
    desk.limit("A1", "traded_notional", 1000)
    desk.check("A1", "buy 5 X")
    day_order = desk.last_id()
    desk.oracle.record_fill("A1", day_order, "e1", D(1), D(100))
    good_till_cancelled = desk.order("A1", "buy 5 X", 99)
    good_till_cancelled.time_in_force = "GTC"
    assert desk.oracle.check(good_till_cancelled).decision == "ACCEPTED"
    desk.oracle.open_day(TODAY + timedelta(days=1))
    assert desk.oracle.order("A1", day_order).state == "EXPIRED"
    assert good_till_cancelled.state == "ACCEPTED"
    assert desk.check("A1", "buy 6 X").allowed_quantity == 5
    with pytest.raises(RiskError, match="forward"):
        desk.oracle.open_day(TODAY)


def test_order_notional_of_a_sell_uses_the_reference_when_it_is_higher(desk: Desk) -> None:
    desk.limit("A1", "order_notional", 1000)
    desk.oracle.set_mark("X", D(100), D(120), D(121))
    assert desk.check("A1", "sell 9 X", 100).allowed_quantity == 8
    assert desk.check("A1", "buy 10 X", 100).decision == "ACCEPTED"
    assert desk.check("A1", "buy 9 X", None).allowed_quantity == 8


def test_a_combo_is_measured_at_the_sum_of_its_legs_references(desk: Desk) -> None:
    desk.limit("A1", "order_notional", 2000)
    answer = desk.check("A1", "3: buy 1 C110, sell 1 C100", "-1")
    assert outcome(answer) == ("RISK_LIMIT_EXCEEDED", 2)


@pytest.mark.parametrize(
    ("side", "price", "decision"),
    [
        ("buy", "105", "ACCEPTED"),
        ("buy", "105.01", "REJECTED"),
        ("buy", "1", "ACCEPTED"),
        ("sell", "95", "ACCEPTED"),
        ("sell", "94.99", "REJECTED"),
        ("sell", "900", "ACCEPTED"),
    ],
)
def test_the_collar_binds_the_aggressive_side_only(
    desk: Desk, side: str, price: str, decision: str
) -> None:
    desk.limit("F", "price_collar_pct", 5)
    assert desk.check("A1", f"{side} 1 X", price).decision == decision


def test_the_collar_of_a_combo_has_a_floor_per_option_leg(desk: Desk) -> None:
    desk.limit("F", "price_collar_pct", 5)
    assert desk.check("A1", "1: buy 1 C110, sell 1 C100", "0.20").decision == "ACCEPTED"
    answer = desk.check("A1", "1: buy 1 C110, sell 1 C100", "0.21")
    assert outcome(answer) == ("PRICE_OUT_OF_BAND", 0)


def hold_condor(desk: Desk) -> None:
    desk.hold("A1", C100=-1, C110=1, P90=-1, P80=1)
    desk.oracle.set_trading_state("A1", "REDUCE_ONLY")


def test_closing_a_condor_whole_or_by_its_shorts_is_reducing(desk: Desk) -> None:
    hold_condor(desk)
    close = "1: buy 1 C100, sell 1 C110, buy 1 P90, sell 1 P80"
    assert desk.check("A1", close, 0).decision == "ACCEPTED"
    assert desk.check("A1", "buy 1 C100", 5).reason == "REDUCE_ONLY"
    desk.oracle.release("A1", "o5", "cancelled")
    assert desk.check("A1", "buy 1 C100", 5).decision == "ACCEPTED"
    assert desk.check("A1", "1: buy 1 P90, sell 1 P80", 0).decision == "ACCEPTED"


def test_selling_the_wing_of_a_condor_uncovers_its_short_and_is_not_reducing(desk: Desk) -> None:
    hold_condor(desk)
    assert desk.check("A1", "sell 1 C110", 5).reason == "REDUCE_ONLY"
    assert desk.check("A1", "sell 1 P80", 5).reason == "REDUCE_ONLY"


def test_stock_covers_calls_and_a_near_call_does_not_cover_a_far_one(desk: Desk) -> None:
    desk.hold("A1", C100=-1, C100_NEAR=1, X=150)
    desk.oracle.set_trading_state("F", "REDUCE_ONLY")
    assert desk.check("A1", "sell 1 C100-NEAR", 5).decision == "ACCEPTED"
    assert desk.check("A1", "sell 51 X").allowed_quantity == 50


def test_reduce_only_allows_what_can_be_closed(desk: Desk) -> None:
    desk.hold("A1", X=10)
    desk.oracle.set_trading_state("D1", "REDUCE_ONLY", underlying="X")
    desk.check("A1", "sell 4 X")
    answer = desk.check("A1", "sell 9 X")
    assert outcome(answer) == ("REDUCE_ONLY", 6)
    assert desk.check("A1", "buy 1 Y").decision == "ACCEPTED"


def test_a_halt_refuses_everything_and_asks_for_the_cancel_of_open_orders(desk: Desk) -> None:
    desk.hold("A1", X=10)
    resting = desk.order("A1", "sell 5 X")
    desk.oracle.check(resting)
    desk.oracle.set_trading_state("F", "HALTED", underlying="X")
    answer = desk.check("A1", "sell 1 X")
    assert outcome(answer) == ("TRADING_HALTED", 0)
    assert resting.cancel_requested
    assert resting.is_live
    assert desk.check("A1", "buy 1 Y").decision == "ACCEPTED"


@pytest.mark.parametrize(
    ("status", "text", "decision"),
    [
        ("NO_NEW_SHORTS", "sell 10 X", "ACCEPTED"),
        ("NO_NEW_SHORTS", "sell 11 X", "REJECTED"),
        ("NO_NEW_SHORTS", "buy 11 X", "ACCEPTED"),
        ("RESTRICTED", "sell 10 X", "ACCEPTED"),
        ("RESTRICTED", "buy 1 X", "REJECTED"),
        ("BLOCKED", "sell 1 X", "REJECTED"),
    ],
)
def test_instrument_status(desk: Desk, status: str, text: str, decision: str) -> None:
    desk.hold("A1", X=10)
    desk.oracle.set_instrument_status("X", status)
    answer = desk.check("A1", text)
    assert answer.decision == decision
    assert answer.reason in (None, "RESTRICTED_INSTRUMENT")


def test_stale_marks_let_reducing_orders_pass(desk: Desk) -> None:
    desk.hold("A1", X=10, C100=2)
    desk.world.now += timedelta(seconds=61)
    desk.oracle.set_mark("C100", D(5))
    assert desk.check("A1", "buy 1 C100", 5).reason == "STALE_DATA"
    assert desk.check("A1", "sell 3 C100", 5).allowed_quantity == 2
    assert desk.check("A1", "sell 10 X").decision == "ACCEPTED"
    desk.world.settings["F", "max_mark_age"] = "0"
    assert desk.check("A1", "buy 1 C100", 5).decision == "ACCEPTED"


def test_a_symbol_without_a_mark_has_no_reference_price(desk: Desk) -> None:
    del desk.world.marks["Y"]
    desk.world.settings["F", "max_mark_age"] = "0"
    answer = desk.check("A1", "buy 1 Y", None)
    assert {v.reason for v in answer.violations} == {"STALE_DATA", "REFERENCE_PRICE_UNAVAILABLE"}
    assert desk.check("A1", "buy 1 Y").reason == "STALE_DATA"


def test_a_limit_in_time_gives_way_to_the_earlier_one(desk: Desk) -> None:
    key = desk.limit("A1", "order_quantity", 5)
    until = START + timedelta(seconds=30)
    desk.oracle.set_limit(LimitVersion(key, D(50), START, until))
    assert desk.check("A1", "buy 50 X").decision == "ACCEPTED"
    desk.world.now = until
    assert desk.check("A1", "buy 50 X").allowed_quantity == 5
    desk.oracle.remove_limit(key)
    assert desk.check("A1", "buy 51 X").decision == "ACCEPTED"


def test_rates_count_accepted_orders_in_a_window_that_excludes_its_start(desk: Desk) -> None:
    desk.limit("D1", "order_rate", 2)
    assert desk.check("A1", "buy 1 X", 101).decision == "ACCEPTED"
    assert desk.check("A2", "buy 1 X", 102).decision == "ACCEPTED"
    assert desk.check("A1", "buy 1 X", 103).reason == "RATE_LIMIT_EXCEEDED"
    assert desk.check("A3", "buy 1 X", 104).decision == "ACCEPTED"
    desk.world.now += timedelta(seconds=1)
    assert desk.check("A1", "buy 1 X", 105).decision == "ACCEPTED"


def test_the_same_order_may_not_be_repeated_within_the_window(desk: Desk) -> None:
    desk.limit("F", "duplicate_window", 5)
    assert desk.check("A1", "buy 1 X").decision == "ACCEPTED"
    answer = desk.check("A1", "buy 1 X")
    assert outcome(answer) == ("DUPLICATE_ORDER", 0)
    assert desk.check("A1", "buy 1 X", 99).decision == "ACCEPTED"
    assert desk.check("A2", "buy 1 X").decision == "ACCEPTED"
    desk.world.now += timedelta(seconds=5)
    assert desk.check("A1", "buy 1 X").decision == "ACCEPTED"


@pytest.mark.parametrize(
    ("agent", "price", "decision"),
    [
        ("b", 99, "ACCEPTED"),
        ("b", 100, "REJECTED"),
        ("b", None, "REJECTED"),
        ("a", 100, "ACCEPTED"),
    ],
)
def test_an_order_may_not_trade_against_another_agents_order(
    desk: Desk, agent: str, price: float | None, decision: str
) -> None:
    desk.limit("F", "self_cross", 1)
    resting = desk.order("A3", "sell 5 X", 100)
    resting.agent = "a"
    desk.oracle.check(resting)
    order = desk.order("A1", "buy 1 X", price)
    order.agent = agent
    answer = desk.oracle.check(order)
    assert answer.decision == decision
    assert answer.reason in (None, "SELF_CROSS")


def test_open_orders_and_positions_count_a_combo_once_and_its_legs_each(desk: Desk) -> None:
    desk.limit("A1", "open_orders", 1)
    desk.limit("A1", "open_positions", 3)
    assert desk.check("A1", "1: buy 1 C110, sell 1 C100", 0).decision == "ACCEPTED"
    answer = desk.check("A1", "1: buy 1 X, buy 1 Y", 0)
    assert limits_hit(answer) == {("open_orders", "A1"), ("open_positions", "A1")}


def test_a_replace_reserves_the_larger_total_until_it_is_settled(desk: Desk) -> None:
    desk.limit("A1", "net_position", 15)
    desk.check("A1", "buy 10 X")
    assert desk.oracle.replace("A1", "o1", "n1", D(12), D(100)).decision == "ACCEPTED"
    assert desk.check("A1", "buy 4 X").allowed_quantity == 3
    desk.oracle.reject_replace("A1", "n1")
    assert desk.check("A1", "buy 4 X", 99).decision == "ACCEPTED"
    answer = desk.oracle.replace("A1", "o1", "n2", D(14), D(100))
    assert outcome(answer) == ("RISK_LIMIT_EXCEEDED", 11)
    assert desk.oracle.replace("A1", "o1", "n3", D(3), D(100)).decision == "ACCEPTED"
    with pytest.raises(RiskError):
        desk.oracle.replace("A1", "o1", "n4", D(3), D(100))
    desk.oracle.confirm_replace("A1", "n3")
    assert desk.oracle.order("A1", "o1").state == "CANCELLED"
    assert desk.check("A1", "buy 9 X", 98).allowed_quantity == 8


def test_fills_under_either_id_reduce_both_and_late_ones_follow_the_replacement(
    desk: Desk,
) -> None:
    desk.check("A1", "buy 10 X")
    desk.oracle.replace("A1", "o1", "n1", D(12), D(100))
    desk.oracle.record_fill("A1", "o1", "e1", D(3), D(100))
    desk.oracle.record_fill("A1", "n1", "e2", D(2), D(100))
    assert desk.oracle.book().open_buy["A1", "X"] == 7
    with pytest.raises(RiskError):
        desk.oracle.replace("A1", "o1", "n2", D(20), D(100))
    desk.oracle.confirm_replace("A1", "n1")
    desk.oracle.record_fill("A1", "o1", "e3", D(7), D(100))
    assert desk.oracle.order("A1", "n1").state == "FILLED"
    assert desk.oracle.alerts == []
    with pytest.raises(RiskError):
        desk.oracle.replace("A1", "n1", "n3", D(20), D(100))


def test_a_harmless_replace_passes_all_but_a_halt(desk: Desk) -> None:
    desk.check("A1", "buy 10 X")
    desk.oracle.set_trading_state("F", "REDUCE_ONLY")
    desk.limit("F", "net_position", 1)
    assert desk.oracle.replace("A1", "o1", "n1", D(9), D(101)).reason == "REDUCE_ONLY"
    assert desk.oracle.replace("A1", "o1", "n2", D(9), D(100)).decision == "ACCEPTED"
    desk.oracle.confirm_replace("A1", "n2")
    desk.oracle.set_trading_state("F", "HALTED")
    assert desk.oracle.replace("A1", "n2", "n3", D(8), D(100)).reason == "TRADING_HALTED"


def test_fills_are_never_refused_and_never_counted_twice(desk: Desk) -> None:
    desk.check("A1", "buy 10 X")
    desk.oracle.record_fill("A1", "o1", "e1", D(8), D(100))
    desk.oracle.record_fill("A1", "o1", "e1", D(8), D(100))
    assert desk.oracle.order_rows()["A1", "o1", "X"] == (D(8), D(2), "PARTIALLY_FILLED")
    with pytest.raises(RiskError):
        desk.oracle.record_fill("A1", "o1", "e1", D(7), D(100))
    desk.oracle.record_fill("A1", "o1", "e2", D(5), D(100))
    desk.oracle.record_fill("A1", "o1", "e3", D(1), D(100))
    assert desk.oracle.book().position["A1", "X"] == 14
    assert desk.oracle.book().open_buy["A1", "X"] == 0
    kinds = [kind for kind, _, _ in desk.oracle.alerts]
    assert kinds == ["over_fill", "fill_on_closed_order"]


def test_a_refused_dispatch_releases_the_order(desk: Desk) -> None:
    desk.hold("A1", X=10)
    desk.check("A1", "sell 10 X")
    desk.check("A1", "buy 10 Y")
    desk.oracle.set_trading_state("A1", "REDUCE_ONLY")
    assert desk.oracle.dispatch("A1", "o2") == ("ACCEPTED", None)
    assert desk.oracle.dispatch("A1", "o3") == ("REJECTED", "REDUCE_ONLY")
    assert desk.oracle.order("A1", "o3").state == "CANCELLED"
    assert desk.oracle.book().open_buy["A1", "Y"] == 0


def test_the_same_id_gets_the_first_answer_and_other_content_is_a_conflict(desk: Desk) -> None:
    desk.limit("A1", "order_quantity", 5)
    first = desk.check("A1", "buy 6 X")
    desk.limit("A1", "order_quantity", 50)
    again = desk.order("A1", "buy 6 X")
    again.client_order_id = "o1"
    assert desk.oracle.check(again) == first
    again.quantity = D(7)
    with pytest.raises(RiskError):
        desk.oracle.check(again)


def test_all_reasons_are_returned_the_gravest_first(desk: Desk) -> None:
    desk.limit("A1", "order_quantity", 5)
    desk.limit("F", "net_position", 5, sector="Oil")
    desk.oracle.set_trading_state("D1", "REDUCE_ONLY")
    answer = desk.check("A1", "buy 6 Y")
    assert answer.reason == "REDUCE_ONLY"
    assert answer.violations == {
        Violation("REDUCE_ONLY", None, "D1", "all"),
        Violation("RISK_LIMIT_EXCEEDED", "order_quantity", "A1", "all"),
        Violation("RISK_LIMIT_EXCEEDED", "net_position", "F", "sector:Oil"),
    }


def test_warnings_start_at_a_share_of_the_limit(desk: Desk) -> None:
    desk.limit("A1", "net_position", 10)
    assert desk.check("A1", "buy 7 X").warnings == frozenset()
    assert desk.check("A1", "buy 1 X").warnings == {("net_position", "A1", "all")}
