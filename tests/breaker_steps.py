"""Steps that bring the conditions of breakers to a value and away from it, and what shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tests import breaker_model as model
from tests.breaker_desk import START, Desk

if TYPE_CHECKING:
    from collections.abc import Callable


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
