"""What conditions on orders, fills, limits and losses measure."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests import breaker_model as model
from tests.breaker_steps import cap, close_to, earn, fund, mix, worst

if TYPE_CHECKING:
    from tests.breaker_desk import Desk


@pytest.mark.parametrize(
    ("condition", "threshold"),
    [("order_rate", 1), ("order_rate", 24), ("reject_rate", 1), ("reject_rate", 16)],
)
def test_rates_are_those_of_the_model(desk: Desk, condition: str, threshold: int) -> None:
    """In every window that ends with an order, though nobody looked then.

    What stays below 0.9 of the threshold need not be known exactly.
    """
    dice = random.Random(condition)
    window = timedelta(seconds=10)
    desk.define("b", threshold, condition=condition, scope="D1", action="NOTIFY",
                parameters={"window": 10})  # fmt: skip
    desk.firm.rows("update risk_private.breakers set state = 'TRIPPED', tripped_at = armed_at")
    decided: list[tuple[Any, str | None]] = []
    new: list[Any] = []
    seen = set()
    for _ in range(25):
        desk.wait(dice.choice((0.5, 1, 4)))
        refused = dice.choice((1, 10**10))
        for _ in range(dice.randint(3, 12)):
            account = dice.choice(("A1", "A2", "B1"))
            quantity = dice.choice((1, refused))
            answer = desk.buy(account, quantity=quantity)
            if account != "B1":
                decided.append((desk.now, None if answer == "ACCEPTED" else answer))
                new.append(desk.now)
        if dice.random() < 0.3:
            stands, largest = worst(desk)
            moments = [*new, desk.now]
            if condition == "order_rate":
                times = [when for when, _ in decided]
                rates = [Fraction(model.order_rate(times, at, window)) for at in moments]
            else:
                rates = [model.reject_rate(decided, at, window) for at in moments]
            assert close_to(stands, rates[-1])
            is_near = max(rates) >= threshold * Fraction(9, 10)
            assert largest is not None
            if is_near:
                assert close_to(largest, max(rates))
            else:
                assert largest < threshold * Decimal("0.9")
            seen.add(is_near)
            new.clear()
    assert seen == {True, False} or threshold == 1
    reasons = {reason for _, reason in decided}
    assert reasons == {None, "RISK_LIMIT_EXCEEDED"}


def test_windows_are_searched_only_where_one_could_have_reached_the_threshold(desk: Desk) -> None:
    desk.define("orders", 70, condition="order_rate", scope="F", action="NOTIFY",
                parameters={"window": 60})  # fmt: skip
    desk.define("rejects", 50, condition="reject_rate", scope="F", action="NOTIFY")
    desk.firm.rows(
        """create or replace function risk_private.worst_flow(
             w risk_private.watch, is_ratio boolean, out value numeric, out as_of timestamptz)
           language plpgsql as $$ begin raise 'searched'; end $$"""
    )
    for _ in range(2):
        mix(15, 5)(desk)
        assert desk.sweep() == 0
    mix(1, 20)(desk)  # 31 accepted and 30 refused: above 45 % within the window
    assert desk.sweep() == 1
    assert desk.state("rejects") == "TRIPPED"
    mix(2, 0)(desk)  # 63 orders: 90 % of 70
    assert desk.sweep() == 1
    assert desk.state("orders") == "TRIPPED"


def test_a_burst_of_rejects_between_accepted_orders_is_not_missed(desk: Desk) -> None:
    """Neither what was accepted before its window nor what was after it makes up for it."""
    desk.define("b", 90, condition="reject_rate", scope="F", action="NOTIFY",
                parameters={"window": 10})  # fmt: skip
    mix(60, 0)(desk)
    desk.sweep()
    desk.wait(7)
    mix(1, 0)(desk)
    desk.wait(4)
    mix(0, 20)(desk)
    desk.wait(3)
    mix(60, 0)(desk)
    assert desk.sweep() == 1
    (event,) = desk.firm.rows("select value from risk.breaker_events where event = 'TRIPPED'")
    assert close_to(event["value"], Fraction(20, 21) * 100)
    assert close_to(desk.breaker("b")["last_value"], Fraction(20, 81) * 100)


def test_what_was_decided_long_ago_costs_an_evaluation_nothing(desk: Desk) -> None:
    """Old orders and new ones share pages, as space is used again."""
    desk.define("orders", 1000, condition="order_rate", scope="F", action="NOTIFY")
    desk.define("rejects", 50, condition="reject_rate", scope="F", action="NOTIFY")
    desk.buy("A1")

    def read() -> int:
        found: int = desk.firm.value(
            """select seq_tup_read + coalesce(idx_tup_fetch, 0)
               from pg_stat_xact_user_tables where relid = 'risk_private.orders'::regclass"""
        )
        return found

    def read_by_an_evaluation() -> int:
        desk.wait()
        with desk.firm.connection.transaction():
            before = read()
            desk.sweep()
            return read() - before

    alone = read_by_an_evaluation()
    assert alone > 0
    desk.firm.rows(
        """insert into risk_private.orders select (jsonb_populate_record(o, jsonb_build_object(
             'client_order_id', 'old-' || n, 'decided_xid', '3',
             'decided_at', o.decided_at - make_interval(hours => 1 + n)))).*
           from risk_private.orders as o cross join generate_series(1, 5000) as n"""
    )
    desk.firm.rows("analyze risk_private.orders")
    assert read_by_an_evaluation() < alone + 10


def test_refusals_that_something_else_explains_are_no_rejects(desk: Desk) -> None:
    desk.define("b", 1, condition="reject_rate", scope="D1", action="NOTIFY")
    mix(15, 0)(desk)
    desk.firm.call("set_trading_state", scope="D1", state="REDUCE_ONLY", reason="a test")
    mix(9, 0)(desk)
    desk.firm.call("set_trading_state", scope="D1", state="HALTED", reason="a test")
    mix(9, 0)(desk)
    assert desk.sweep() == 0
    desk.firm.call("set_trading_state", scope="D1", state="ACTIVE", reason="a test")
    mix(3, 1)(desk)
    assert desk.sweep() == 0, "19 orders count"
    mix(1, 0)(desk)
    assert desk.sweep() == 1
    assert desk.breaker("b")["last_value"] == 5


def test_rates_of_one_underlying(desk: Desk) -> None:
    desk.define("b", 2, condition="order_rate", scope="F", underlying="AAPL", action="NOTIFY")
    desk.wait()
    desk.buy(symbol="MSFT")
    desk.buy(symbol="AAPL")
    assert desk.sweep() == 0
    desk.buy(symbol="AAPL C100")
    assert desk.sweep() == 1


def test_fills_repeat_only_for_the_same_account_agent_symbol_and_side(desk: Desk) -> None:
    firm = desk.firm
    desk.define("b", 3, condition="repeated_fills", scope="F", action="NOTIFY")
    desk.wait()
    orders = [("A1", "x", "AAPL", "buy"), ("A1", "y", "AAPL", "buy"), ("A2", "x", "AAPL", "buy"),
              ("A1", "x", "MSFT", "buy"), ("A1", "x", "AAPL", "sell")]  # fmt: skip
    for number, (account, agent, symbol, side) in enumerate(orders):
        firm.check(account, f"o{number}", symbol, side, 9, 100, agent=agent)
        for part in range(2):
            firm.fill(account, f"o{number}", f"e{number} {part}", 1, 100)
    assert desk.sweep() == 0
    assert desk.breaker("b")["last_value"] == 2
    desk.wait(59)
    firm.fill("A1", "o0", "third", 1, 100)
    assert desk.sweep() == 1
    desk.reset("b")
    desk.wait()
    firm.fill("A1", "o0", "fourth", 1, 100)
    assert desk.sweep() == 0, "the reset began a new count"


def test_losing_runs_are_counted_in_the_order_of_closing(desk: Desk) -> None:
    """Across accounts; opening orders and winners that fees eat up are told apart."""
    firm = desk.firm
    dice = random.Random(7)
    desk.define("b", 1, condition="consecutive_losses", scope="D1", action="NOTIFY")
    desk.firm.rows("update risk_private.breakers set state = 'TRIPPED', tripped_at = armed_at")
    for account in ("A1", "A2"):
        firm.hold(account, "AAPL", 100, 100)
    results: list[Fraction] = []
    for number in range(40):
        desk.wait()
        account = dice.choice(("A1", "A2"))
        side, profit = dice.choice((("sell", -1), ("sell", 0), ("sell", 1), ("sell", 2),
                                    ("buy", 0)))  # fmt: skip
        name = f"o{number}"
        firm.check(account, name, "AAPL", side, 1, 100)
        cost = firm.value(
            "select average_price from risk.positions where account = %s and symbol = 'AAPL'",
            account,
        )
        price = Decimal(cost + profit).quantize(Decimal("0.00000001"))
        firm.fill(account, name, f"e{number}", 1, price, fee=1)
        if side == "sell":
            results.append(Fraction(price) - Fraction(cost) - 1)
        if dice.random() < 0.5:
            desk.sweep()
            run = 0
            for result in reversed(results):
                if result >= 0:
                    break
                run += 1
            assert desk.breaker("b")["last_value"] == run
    assert model.longest_losing_run(results) > 2


def test_exceeded_limits_among_many_are_counted_apart(desk: Desk) -> None:
    """By a job of the worker, for each evaluation cannot look at all of them."""
    firm = desk.firm
    epoch = firm.value("select risk_private.take_lease('one', '{}')")
    count = "select risk_private.count_breaches(%s)"
    firm.hold("A1", "AAPL", 10)
    cap(9)(desk)
    desk.define("b", 3, condition="limit_breach", scope="F")
    desk.define("of AAPL", 2, condition="limit_breach", scope="D1", underlying="AAPL")
    assert firm.value(count, epoch) is False, "there are few"
    firm.call("upsert_instruments", instruments=Jsonb(
        [{"symbol": f"S{number}", "kind": "stock"} for number in range(500)]))  # fmt: skip
    firm.call("set_limits", reason="many", limits=Jsonb(
        [{"scope": "A1", "limit_type": "order_quantity", "amount": "5", "symbol": f"S{number}"}
         for number in range(500)]))  # fmt: skip
    desk.sweep()
    assert desk.breaker("b")["last_value"] is None, "nobody has counted"
    assert firm.value(count, epoch) is True
    assert desk.sweep() == 0
    assert desk.breaker("b")["last_value"] == 2
    assert desk.breaker("of AAPL")["last_value"] == 1
    firm.limit("A1", "long_position", 9, symbol="AAPL")
    assert firm.value(count, epoch) is True
    assert desk.sweep() == 2
    desk.wait(60)
    desk.sweep()
    assert desk.breaker("b")["last_value"] is None, "the count is too old"


def test_a_start_equity_of_nothing_trips(desk: Desk) -> None:
    desk.define("b", 5, condition="daily_loss", scope="F")
    assert desk.sweep() == 0, "no day has been opened: it is not known"
    assert desk.breaker("b")["last_value"] is None
    desk.firm.call("open_day", day=desk.now.date())
    assert desk.sweep() == 1
    assert desk.breaker("b")["tripped_value"] == Decimal("Infinity")


def test_resetting_a_drawdown_rebases_the_peak(desk: Desk) -> None:
    fund(desk)
    desk.define("b", 10, condition="drawdown", scope="A1")
    earn(-1000)(desk)
    assert desk.sweep() == 1
    desk.reset("b")
    assert desk.sweep() == 0
    assert desk.breaker("b")["last_value"] == 0
    earn(-899)(desk)
    assert desk.sweep() == 0
    earn(-1)(desk)
    assert desk.sweep() == 1
    assert desk.firm.differences() == []
