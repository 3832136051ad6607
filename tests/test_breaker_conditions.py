"""Every condition at, below and above its boundary, with every action and reset."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests import breaker_model as model
from tests.breaker_desk import START, Desk
from tests.breaker_steps import (
    Case,
    age_queue,
    cap,
    close,
    define_below,
    earn,
    fill,
    fund,
    hold_all,
    hold_marked,
    later,
    load_close,
    load_closes,
    mark_aapl,
    mark_everything,
    mix,
    move,
    order,
    prepare_closing,
    prepare_fills,
    rise_and_fall,
    spike,
    tell_vix,
    trip_below,
)

if TYPE_CHECKING:
    from tests.databases import Database


ACTIONS = ("NOTIFY", "REDUCE_ONLY", "HALT", "HALT_AND_CANCEL")
POLICIES = ("manual", "timer", "session")
COOLDOWN = timedelta(seconds=30)
AT_ONCE = [START] * 20
MINUTE = timedelta(minutes=1)
CASES = [
    Case("volatility_level", max(20, 40, 30), tell_vix(20, 40, 30), tell_vix(20), {}),
    Case("volatility_spike", spike(20, 22, 20, 30, 25), tell_vix(22, 20, 30, 25), later(90000), {},
         prepare=tell_vix(20)),
    Case("daily_loss", model.loss(10_000, 9_700, "pct"), earn(-300), earn(300), {}, prepare=fund),
    Case("daily_loss", model.loss(10_000, 9_700, "amount"), earn(-300), earn(300),
         {"unit": "amount"}, prepare=fund),
    Case("drawdown", model.drawdown([10_000, 12_500, 12_000], "pct"), rise_and_fall, earn(500), {},
         prepare=fund),
    Case("drawdown", model.drawdown([10_000, 12_500, 12_000], "amount"), rise_and_fall, earn(500),
         {"unit": "amount"}, prepare=fund),
    Case("correlation", 1, hold_all("AAPL", "MSFT"), hold_all("AAPL", "XOM"), {},
         prepare=load_closes),
    Case("price_move", move("both", 100, 110, 105), mark_aapl(110, 105), mark_aapl(105, 105),
         {"symbol": "AAPL"}),
    Case("price_move", move("up", 100, 80, 108), mark_aapl(80, 108), mark_aapl(95),
         {"symbol": "AAPL", "direction": "up"}, prepare=mark_everything),
    Case("price_move", model.loss(100, 93, "pct"), mark_aapl(120, 93), mark_aapl(101),
         {"symbol": "AAPL", "reference": "prior_close", "direction": "down"}, prepare=load_close),
    Case("limit_breach", model.breached([(10, 9), (10, 9)]), cap(9), cap(10), {},
         prepare=lambda desk: desk.firm.hold("A1", "AAPL", 10), step=Decimal(1)),
    Case("stale_data", 24, later(24), mark_everything, {}, prepare=hold_marked),
    Case("reject_rate", model.reject_rate(
        [*zip(AT_ONCE, [None] * 15 + ["RISK_LIMIT_EXCEEDED"] * 5, strict=True)], START, MINUTE),
        mix(15, 5), later(60), {}),
    Case("order_rate", model.order_rate(AT_ONCE[:5], START, MINUTE), order(5), later(1), {},
         step=Decimal(1)),
    Case("repeated_fills", model.most_repeated(["one"] * 4 + ["two"] * 3), fill(4), later(60), {},
         prepare=prepare_fills, step=Decimal(1)),
    Case("consecutive_losses", model.longest_losing_run(
        [Fraction(result - 1) for result in (-5, 1, -5, 0, -1, 9)]),
        close(-5, 1, -5, 0, -1, 9), later(1), {}, prepare=prepare_closing, step=Decimal(1)),
    Case("queue_backlog", 7, age_queue("risk_alerts", 7), age_queue("risk_alerts", None),
         {"queue": "risk_alerts"}),
    Case("queue_backlog", 8, age_queue("risk_events", 8), age_queue("risk_events", None), {}),
    Case("escalation", len({"of A1", "of A2", "same"}),
         trip_below("of A1", "of A2", "of A1", "quiet", "beside", "same", "escalated"),
         later(300), {}, prepare=define_below, step=Decimal(1)),
]  # fmt: skip


def test_every_condition_and_every_choice_of_its_parameters_has_a_case(desk: Desk) -> None:
    for row in desk.firm.rows("select condition, parameters from risk.breaker_conditions"):
        cases = [case for case in CASES if case.condition == row["condition"]]
        assert cases, row["condition"]
        for name, spec in row["parameters"].items():
            if spec["type"] == "choice":
                tried = {case.parameters.get(name, spec["default"]) for case in cases}
                assert tried == set(spec["choices"]), (row["condition"], name)


def test_every_action_and_reset_policy_has_a_case(desk: Desk) -> None:
    """Those that the tables know are those that every condition is tested with."""
    for column, tried in (("action", ACTIONS), ("reset_policy", POLICIES)):
        (row,) = desk.firm.rows(
            """select pg_get_constraintdef(c.oid) as definition from pg_constraint as c
               join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
               where c.conrelid = 'risk_private.breakers'::regclass and c.contype = 'c'
                 and a.attname = %s""",
            column,
        )
        assert set(re.findall(r"'(\w+)'", row["definition"])) == set(tried)
    default = "select reset_policies from risk.breaker_conditions where condition = 'escalation'"
    assert set(desk.firm.value(default)) == set(POLICIES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.condition}-{case.value}")
def test_every_condition_trips_holds_and_resets(desk: Desk, case: Case) -> None:
    """One breaker below, at and above the value, for every action and reset policy."""
    desk.wait()
    case.prepare(desk)
    desk.wait()
    desk.sweep()
    query = "select reset_policies from risk.breaker_conditions where condition = %s"
    policies = desk.firm.value(query, case.condition)
    made = {}
    value = Decimal(Fraction(case.value).numerator) / Fraction(case.value).denominator
    for offset, action, policy in product((-1, 0, 1), ACTIONS, policies):
        name = f"{offset} {action} {policy}"
        made[name] = (offset, action, policy)
        desk.define(
            name, value + offset * case.step, scope="D1", condition=case.condition,
            action=action, reset_policy=policy, parameters=case.parameters,
            cooldown=COOLDOWN if policy == "timer" else None,
        )  # fmt: skip
    keep_clear(desk, case)
    desk.sweep()
    assert {desk.state(name) for name in made} == {"ARMED"}

    case.reach(desk)
    desk.sweep()
    tripped = {name for name in made if desk.state(name) != "ARMED"}
    assert tripped == {name for name, (offset, _, _) in made.items() if offset <= 0}
    values = {desk.breaker(name)["tripped_value"] for name in tripped}
    assert values == {value}

    held = desk.firm.rows(
        "select b.name, t.state, t.cancels from risk_private.trading_states as t"
        " join risk_private.breakers as b using (breaker_id)"
    )
    expected = {
        "REDUCE_ONLY": ("REDUCE_ONLY", False),
        "HALT": ("HALTED", False),
        "HALT_AND_CANCEL": ("HALTED", True),
    }
    assert {row["name"]: (row["state"], row["cancels"]) for row in held if row["name"] in made} == {
        name: expected[made[name][1]] for name in tripped if made[name][1] != "NOTIFY"
    }

    case.clear(desk)
    desk.sweep()
    states = {name: desk.state(name) for name in tripped}
    assert states == {
        name: "COOLDOWN" if made[name][2] == "timer" else "TRIPPED" for name in tripped
    }
    for name in tripped:
        if made[name][2] == "manual":
            keep_clear(desk, case)
            desk.reset(name)
    keep_clear(desk, case)
    desk.now += COOLDOWN
    desk.db.set_clock(desk.now)
    keep_clear(desk, case)
    desk.sweep()
    armed = {name for name in tripped if desk.state(name) == "ARMED"}
    assert armed == {name for name in tripped if made[name][2] != "session"}
    desk.firm.call("open_day", day=desk.now.date() + timedelta(days=1))
    keep_clear(desk, case)
    desk.sweep()
    assert {desk.state(name) for name in made} == {"ARMED"}
    held = desk.firm.rows(
        "select b.name from risk_private.trading_states as t"
        " join risk_private.breakers as b using (breaker_id)"
    )
    assert made.keys().isdisjoint(row["name"] for row in held)


def keep_clear(desk: Desk, case: Case) -> None:
    """Time passing makes data stale, and alerts pile up."""
    if case.condition in ("stale_data", "queue_backlog"):
        case.clear(desk)


def test_events_wake_the_worker(desk: Desk) -> None:
    """Each once, however often it happens before the worker comes."""
    desk.firm.rows("delete from pgmq.q_risk_events")
    desk.define()
    for _ in range(2):
        desk.vix(30)
        desk.firm.mark({"AAPL": 100})
        desk.firm.call("set_trading_state", scope="D1", state="ACTIVE", reason="a test")
        desk.firm.limit("D1", "open_orders", 10)
        desk.firm.check("A1", f"{desk.now}", "AAPL", "buy", 1, 100)
        desk.firm.fill("A1", f"{desk.now}", f"{desk.now}", 1, 100)
    messages = [row["message"] for row in desk.firm.rows("select message from pgmq.q_risk_events")]
    assert sorted(messages, key=lambda message: message["kind"]) == [
        {"kind": "breaker", "scope": "F"},
        {"kind": "fill"},
        {"kind": "indicator", "name": "VIX"},
        {"kind": "limit", "scope": "D1"},
        {"kind": "marks"},
        {"kind": "state", "scope": "D1"},
    ]


def test_deciding_orders_sends_no_event(desk: Desk) -> None:
    desk.firm.rows("delete from pgmq.q_risk_events")
    for quantity in (1, 10**10):
        desk.buy(quantity=quantity)
    assert desk.firm.rows("select * from pgmq.q_risk_events") == []


def test_an_event_comes_and_goes_with_what_causes_it(db: Database, desk: Desk) -> None:
    desk.firm.rows("delete from pgmq.q_risk_events")
    with db.connect(autocommit=False) as connection:
        for ends, events in ((connection.rollback, 0), (connection.commit, 1)):
            connection.execute("select risk_private.set_indicator('VIX', 50, null)")
            assert desk.firm.rows("select * from pgmq.q_risk_events") == []
            ends()
            assert len(desk.firm.rows("select * from pgmq.q_risk_events")) == events


def test_parameters_given_as_json_null_are_refused(desk: Desk) -> None:
    with pytest.raises(Exception, match="parameters must be a JSON object"):
        desk.firm.call("define_breaker", name="b", scope="F", condition="order_rate",
                       threshold=1, action="HALT", parameters=Jsonb(None))  # fmt: skip
