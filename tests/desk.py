"""A small firm of the oracle's alone, for examples worked out by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from tests.model import (
    Answer,
    Dimension,
    Instrument,
    Leg,
    LimitKey,
    LimitVersion,
    Oracle,
    Order,
    Scope,
    World,
)

START = datetime(2015, 8, 10, 14, 0, tzinfo=UTC)
TODAY = date(2015, 8, 10)
D = Decimal


def option(symbol: str, right: str, strike: int, days: int = 30) -> Instrument:
    expiry = TODAY + timedelta(days=days)
    return Instrument(
        symbol, "option", "X", "Tech", D(100), D(1), D("0.01"), expiry, D(strike), right
    )


class Desk:
    """Firm F over desks D1 (accounts A1, A2) and D2 (A3), stock X with options, stock Y."""

    def __init__(self) -> None:
        world = World(START, TODAY)
        tree = {"F": None, "D1": "F", "D2": "F", "A1": "D1", "A2": "D1", "A3": "D2"}
        for code, parent in tree.items():
            world.scopes[code] = Scope(code, "account", parent)
        for instrument in (
            Instrument("X", "stock", "X", "Tech"),
            Instrument("Y", "stock", "Y", "Oil"),
            option("C100", "call", 100),
            option("C110", "call", 110),
            option("P90", "put", 90),
            option("P80", "put", 80),
            option("C100-NEAR", "call", 100, days=5),
        ):
            world.instruments[instrument.symbol] = instrument
        world.settings["F", "max_heartbeat_age"] = "0"
        self.oracle = Oracle(world)
        self.world = world
        self.next_id = 0
        for symbol in world.instruments:
            self.oracle.set_mark(symbol, D(100) if symbol in "XY" else D(5))
        self.limit("F", "net_position", 1000)

    def limit(self, scope: str, limit_type: str, amount: float | str, **symbol: str) -> LimitKey:
        """Sets a limit; `symbol`, `underlying` or `sector` narrow it."""
        key = LimitKey(scope, limit_type)
        for name, value in symbol.items():
            dimension = Dimension["INSTRUMENT" if name == "symbol" else name.upper()]
            key = LimitKey(scope, limit_type, dimension, value)
        self.oracle.set_limit(LimitVersion(key, D(amount), self.world.now))
        return key

    def order(self, account: str, text: str, price: float | str | None = 100) -> Order:
        """An order from text: 'buy 10 X', or a combo '2: buy 1 C110, sell 1 C100'."""
        self.next_id += 1
        combo = ":" in text
        quantity, legs = text.split(":") if combo else ("1", text)
        parsed = [leg.split() for leg in legs.split(",")]
        return Order(
            account,
            f"o{self.next_id}",
            tuple(Leg(s, side, D(n) if combo else D(1)) for side, n, s in parsed),
            D(quantity) if combo else D(parsed[0][1]),
            None if price is None else D(price),
            is_combo=combo,
        )

    def check(self, account: str, text: str, price: float | str | None = 100) -> Answer:
        return self.oracle.check(self.order(account, text, price))

    def hold(self, account: str, **quantities: int) -> None:
        """Gives the account positions that it opened elsewhere."""
        for symbol, quantity in quantities.items():
            self.trade(account, symbol, quantity, 100, "opening")

    def trade(
        self, account: str, symbol: str, quantity: int, price: float | str, kind: str = "assignment"
    ) -> None:
        """A trade that no order explains; it moves cash unless it is brought in kind."""
        self.next_id += 1
        side = "buy" if quantity > 0 else "sell"
        name, exec_id = symbol.replace("_", "-"), f"t{self.next_id}"
        self.oracle.record_trade(
            account, name, side, D(abs(quantity)), D(str(price)), exec_id, kind
        )

    def last_id(self) -> str:
        return f"o{self.next_id}"


def outcome(answer: Answer) -> tuple[str, int]:
    """The gravest reason, or ACCEPTED, and the allowed quantity."""
    return answer.reason or answer.decision, int(answer.allowed_quantity)


def limits_hit(answer: Answer) -> set[tuple[str | None, str | None]]:
    return {(violation.limit_type, violation.scope) for violation in answer.violations}


def numbers(*amounts: Decimal) -> tuple[float, ...]:
    return tuple(float(amount) for amount in amounts)
