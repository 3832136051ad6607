"""What each condition measures: at, below and above its boundary, with every action and reset."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests import breaker_model as model
from tests.breaker_desk import START, Desk, open_desk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

ACTIONS = ("NOTIFY", "REDUCE_ONLY", "HALT", "HALT_AND_CANCEL")
POLICIES = ("manual", "timer", "session")
COOLDOWN = timedelta(seconds=30)


@pytest.fixture
def desk(db: Database) -> Iterator[Desk]:
    """The small firm, with a clock that stands still until told."""
    with open_desk(db) as opened:
        yield opened


@dataclass(frozen=True)
class Case:
    """How to bring a condition to a value, which the model tells, and away from it."""

    condition: str
    value: int | Fraction
    reach: Callable[[Desk], None]
    clear: Callable[[Desk], None]
    parameters: dict[str, Any]
    prepare: Callable[[Desk], None] = lambda _: None
    step: Decimal = Decimal("0.01")


def tell_vix(*values: float) -> Callable[[Desk], None]:
    """One value a second."""

    def tell(desk: Desk) -> None:
        for value in values:
            desk.vix(value, sweeps=False)

    return tell


def mark_aapl(*prices: float) -> Callable[[Desk], None]:
    """One mark a second."""

    def mark(desk: Desk) -> None:
        for price in prices:
            desk.wait()
            desk.firm.mark({"AAPL": Decimal(str(price))})

    return mark


def fund(desk: Desk) -> None:
    """A1 starts the day with 10,000 in cash, the firm with no more."""
    desk.firm.call("post_cash", account="A1", amount=10000, reason="deposit")
    desk.firm.call("open_day", day=desk.now.date())


def earn(amount: int) -> Callable[[Desk], None]:
    """Profit of that much, by the stroke of a pen."""

    def post(desk: Desk) -> None:
        desk.wait()
        desk.firm.call("post_cash", account="A1", amount=amount, reason="interest")

    return post


def later(seconds: float) -> Callable[[Desk], None]:
    return lambda desk: desk.wait(seconds)


def order(number: int, symbol: str = "AAPL") -> Callable[[Desk], None]:
    """So many orders of A1 at one moment; in an unknown price band they are refused."""

    def place(desk: Desk) -> None:
        desk.wait()
        for _ in range(number):
            desk.buy("A1", symbol)

    return place


def mix(accepted: int, rejected: int) -> Callable[[Desk], None]:
    """Orders of A1, some of them too large."""

    def place(desk: Desk) -> None:
        desk.wait()
        for quantity in [1] * accepted + [10**10] * rejected:
            desk.buy("A1", quantity=quantity)

    return place


def fill(number: int) -> Callable[[Desk], None]:
    """So many fills of one order of A1, and one less of another."""

    def execute(desk: Desk) -> None:
        desk.wait()
        for name, fills in (("one", number), ("two", number - 1)):
            for part in range(fills):
                desk.firm.fill("A1", name, f"{desk.now} {name} {part}", 1, 100)

    return execute


def close(*results: int) -> Callable[[Desk], None]:
    """Orders of A1 that close a long position bought at 100, with these results before fees."""

    def sell(desk: Desk) -> None:
        for number, result in enumerate(results):
            desk.wait()
            desk.firm.fill("A1", f"close {number}", f"c{number}", 1, 100 + result, fee=1)

    return sell


def prepare_fills(desk: Desk) -> None:
    for name in ("one", "two"):
        assert desk.firm.check("A1", name, "AAPL", "buy", 100, 100, agent=name).is_accepted


def prepare_closing(desk: Desk) -> None:
    desk.firm.hold("A1", "AAPL", 50, 100)
    for number in range(10):
        name = f"close {number}"
        assert desk.firm.check("A1", name, "AAPL", "sell", 1, 100).is_accepted


def cap(amount: int) -> Callable[[Desk], None]:
    """Two limits of A1, both of which its ten shares are compared with."""

    def limit(desk: Desk) -> None:
        desk.firm.limit("A1", "net_position", amount, symbol="AAPL")
        desk.firm.limit("A1", "gross_position", amount)

    return limit


def age_queue(queue: str, seconds: float | None) -> Callable[[Desk], None]:
    """One message that old waits in the queue; None: none does."""

    def age(desk: Desk) -> None:
        desk.firm.rows(f"delete from pgmq.q_{queue}")
        if seconds is not None:
            desk.firm.rows('select pgmq.send(%s, \'{"kind": "test"}\')', queue)
            sent = desk.now - timedelta(seconds=seconds)
            desk.firm.rows(f"update pgmq.q_{queue} set enqueued_at = %s", sent)

    return age


def load_closes(desk: Desk) -> None:
    """AAPL and MSFT move alike, XOM the other way round: rho is 1, -1 and -1."""
    closes: dict[str, list[Decimal]] = {"AAPL": [], "MSFT": [], "XOM": []}
    price = {"AAPL": 100.0, "MSFT": 50.0, "XOM": 80.0}
    for number in range(31):
        factor = 1.01 if number % 3 else 0.985
        for symbol in price:
            price[symbol] *= 1 / factor if symbol == "XOM" else factor
            closes[symbol].append(Decimal(repr(price[symbol])))
    days = [desk.now.date() - timedelta(days=40 - number) for number in range(31)]
    for symbol, series in closes.items():
        desk.firm.call("load_closes", symbols=[symbol] * 31, days=days, closes=series)


def hold_all(*symbols: str) -> Callable[[Desk], None]:
    def hold(desk: Desk) -> None:
        desk.wait()
        for symbol in ("AAPL", "MSFT", "XOM"):
            have = Decimal(desk.firm.position("A1", symbol)[0])
            want = Decimal(symbol in symbols)
            if have != want:
                desk.firm.hold("A1", symbol, want - have)

    return hold


def trip_below(*names: str) -> Callable[[Desk], None]:
    def trip(desk: Desk) -> None:
        desk.wait()
        for name in names:
            desk.trip(name)

    return trip


def define_below(desk: Desk) -> None:
    desk.define("of A1", scope="A1")
    desk.define("of A2", scope="A2")
    desk.define("of A2 too", scope="A2")
    desk.define("quiet", scope="A1", action="NOTIFY")
    desk.define("beside", scope="B1")
    desk.define("same", scope="D1")
    desk.define("escalated", 9, scope="A2", condition="escalation")


def rise_and_fall(desk: Desk) -> None:
    earn(2500)(desk)
    earn(-500)(desk)


def load_close(desk: Desk) -> None:
    yesterday = desk.now.date() - timedelta(days=1)
    desk.firm.call("load_closes", symbols=["AAPL"], days=[yesterday], closes=[100])


def mark_everything(desk: Desk) -> None:
    desk.firm.mark({"AAPL": 100, "MSFT": 50, "XOM": 80})


def hold_marked(desk: Desk) -> None:
    mark_everything(desk)
    desk.firm.hold("A1", "AAPL", 1)


def spike(*values: int) -> Fraction:
    """The largest, a value a second."""
    ticks = [(START + timedelta(seconds=n), Fraction(value)) for n, value in enumerate(values)]
    return max(model.spike(ticks, at, timedelta(days=1)) for at, _ in ticks)


def move(direction: str, *prices: int) -> Fraction:
    """The largest, a price a second."""
    ticks = [(START + timedelta(seconds=n), Fraction(price)) for n, price in enumerate(prices)]
    found = [model.move(ticks, at, timedelta(minutes=5), direction) for at, _ in ticks]
    return max(each for each in found if each is not None)


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


# -- what hand-made series do not reach --------------------------------------------------------


def defined(desk: Desk, condition: str, **rest: Any) -> None:
    """A breaker that never trips, to read its value."""
    desk.define("b", 10**9, condition=condition, scope="F", action="NOTIFY", **rest)
    desk.wait(0.001)


def worst(desk: Desk) -> tuple[Decimal | None, Decimal | None]:
    """The value that stands, and the largest of those not judged yet."""
    (row,) = desk.firm.rows(
        """select o.value, o.worst
           from risk_private.breakers as b
           join risk_private.breaker_conditions as c using (condition)
           left join risk_private.breaker_sweeps as s using (condition)
           cross join lateral unnest(risk_private.observe(c.function_name, array[
             risk_private.watch(b, coalesce(s.seen_xid, '0'), s.swept_at)],
             risk_private.clock())) as o
           where b.name = 'b'"""
    )
    desk.sweep()
    return row["value"], row["worst"]


def close_to(found: Decimal | None, expected: Fraction | float | None) -> bool:
    if found is None or expected is None:
        return found is None and expected is None
    return abs(Fraction(found) - Fraction(expected)) < Fraction(1, 10**9)


@pytest.mark.parametrize("seed", range(3))
def test_spikes_are_those_of_the_model(desk: Desk, seed: int) -> None:
    dice = random.Random(seed)
    window = timedelta(seconds=40)
    defined(desk, "volatility_spike", parameters={"window": 40})
    ticks: list[tuple[Any, Fraction]] = []
    new: list[Any] = []
    for _ in range(60):
        desk.wait(dice.choice((1, 5, 60)))
        value = dice.randint(10, 90)
        desk.firm.call("set_indicator", name="VIX", value=float(value))
        ticks.append((desk.now, Fraction(value)))
        new.append(desk.now)
        if dice.random() < 0.4:
            stands, largest = worst(desk)
            assert close_to(stands, model.spike(ticks, desk.now, window))
            assert close_to(largest, max(model.spike(ticks, at, window) for at in new))
            new.clear()


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_price_moves_are_those_of_the_model(desk: Desk, direction: str) -> None:
    dice = random.Random(direction)
    window = timedelta(minutes=5)
    desk.firm.mark({"AAPL": 100})
    defined(desk, "price_move", parameters={"symbol": "AAPL", "direction": direction})
    start = desk.firm.value("select as_of from risk.marks where symbol = 'AAPL'")
    ticks: list[tuple[Any, Fraction]] = [(start, Fraction(100))]
    new: list[Any] = []
    for _ in range(60):
        desk.wait(dice.choice((1, 60, 400)))
        price = Decimal(dice.randint(8000, 12000)) / 100
        desk.firm.mark({"AAPL": price})
        ticks.append((desk.now, Fraction(price)))
        new.append(desk.now)
        if dice.random() < 0.4:
            stands, largest = worst(desk)
            assert close_to(stands, model.move(ticks, desk.now, window, direction))
            moves = [model.move(ticks, at, window, direction) for at in new]
            assert close_to(largest, max(move for move in moves if move is not None))
            new.clear()


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


def test_the_mean_correlation_is_that_of_the_model(desk: Desk) -> None:
    firm = desk.firm
    dice = random.Random(11)
    first = desk.now.date() - timedelta(days=100)
    closes: dict[str, dict[date, float]] = {}
    for symbol, days in (("AAPL", range(90)), ("MSFT", range(90)), ("XOM", range(60, 90))):
        price = 100.0
        closes[symbol] = {}
        for day in days:
            price *= 1 + dice.gauss(0, 0.02)
            if symbol == "XOM" or day % 17:
                closes[symbol][first + timedelta(days=day)] = price
    for symbol, series in closes.items():
        firm.call("load_closes", symbols=[symbol] * len(series), days=list(series),
                  closes=[Decimal(repr(price)) for price in series.values()])  # fmt: skip
        firm.hold("A1", symbol, -5 if symbol == "MSFT" else 5)
    desk.define("b", 2, condition="correlation", scope="F", action="NOTIFY")
    for number in (60, 30, 20):
        desk.define("b", 2, condition="correlation", scope="F", action="NOTIFY",
                    parameters={"days": number})  # fmt: skip
        desk.sweep()
        assert close_to(desk.breaker("b")["last_value"], model.correlation(closes, number))


def test_without_a_pair_there_is_no_correlation(desk: Desk) -> None:
    load_closes(desk)
    desk.define("b", 0, condition="correlation", scope="F", reset_policy="session")
    for symbols in ((), ("AAPL",)):
        hold_all(*symbols)(desk)
        assert desk.sweep() == 0
        assert desk.breaker("b")["last_value"] is None
    hold_all("AAPL", "MSFT")(desk)
    assert desk.sweep() == 1
    hold_all("AAPL")(desk)
    desk.firm.call("open_day", day=desk.now.date() + timedelta(days=1))
    desk.sweep()
    assert desk.state("b") == "ARMED", "nothing to measure is as good as a low value"


def test_an_index_may_be_what_moves(desk: Desk) -> None:
    """7 % below the prior close, as the market-wide breaker has it."""
    firm = desk.firm
    firm.call("open_day", day=desk.now.date())
    desk.define("mwcb", 7, condition="price_move", scope="F", parameters={
        "indicator": "SPX", "reference": "prior_close", "direction": "down"})  # fmt: skip
    for value, tripped in ((2000.0, 0), (1000.0, 0)):
        desk.wait()
        firm.call("set_indicator", name="SPX", value=value)
        assert desk.sweep() == tripped, "there is no prior close yet"
    firm.call("open_day", day=desk.now.date() + timedelta(days=1))
    for value, tripped in ((1100.0, 0), (930.01, 0), (930.0, 1)):
        desk.wait()
        firm.call("set_indicator", name="SPX", value=value)
        assert desk.sweep() == tripped


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


def test_missing_data_are_infinitely_old(desk: Desk) -> None:
    mark_everything(desk)
    desk.define("b", 10**6, condition="stale_data", scope="F", action="NOTIFY")
    assert desk.sweep() == 0
    desk.define("vix", 1000)
    assert desk.sweep() == 1
    assert desk.breaker("b")["tripped_value"] == Decimal("Infinity")


def test_a_stale_mark_matters_where_something_is_held(desk: Desk) -> None:
    desk.firm.hold("A1", "AAPL C100", 1)
    mark_everything(desk)
    desk.firm.mark({"AAPL C100": 5})
    for scope in ("D1", "D2"):
        desk.define(scope, 10, condition="stale_data", scope=scope, action="NOTIFY")
    desk.define("of MSFT", 10, condition="stale_data", scope="F", underlying="MSFT")
    desk.wait(10)
    desk.firm.mark({"AAPL C100": 5})
    assert desk.sweep() == 1, "the underlying's is old"
    assert desk.state("D1") == "TRIPPED"
    assert desk.breaker("D1")["tripped_value"] == 10


def test_ticks_are_forgotten_when_no_window_reaches_them(desk: Desk) -> None:
    desk.define("s", 1000, condition="volatility_spike", parameters={"window": "1 day"})
    desk.define("p", 1000, condition="price_move", parameters={"symbol": "AAPL"})
    for day in range(12):
        desk.vix(20 + day)
        desk.firm.mark({"AAPL": 100})
        desk.wait(86400 if day < 11 else 1)
    desk.firm.rows("select risk_private.sweep(0)")
    assert desk.firm.value("select min(value) from risk_private.indicator_ticks") == 23
    assert desk.firm.value("select count(*) from risk_private.price_ticks") == 2
    assert desk.breaker("s")["last_value"] == Decimal("3.333333333333")


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
