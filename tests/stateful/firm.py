"""The small firm that every history is about."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.model import BASE_CURRENCY, Instrument, Judge, Mark, Oracle, Scope, World
from tests.stateful.comparing import agree, agree_on_amounts, agree_on_rows, outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.model import Answer, Greeks, Order
    from tests.stateful.engine import Engine

START = datetime(2015, 8, 10, 14, 0, tzinfo=UTC)
RUNS_PER_DATABASE = 10
FULL_RUN = 50
TREE = {
    "F": ("firm", None),
    "D1": ("desk", "F"),
    "D2": ("desk", "F"),
    "A1": ("account", "D1"),
    "A2": ("account", "D1"),
    "A3": ("account", "D2"),
    "S": ("strategy", "A3"),
}
LEAVES = ("A1", "A2", "S")
SYMBOLS = ("X", "XC", "XD", "XP", "Y", "YC", "YD", "YP")
STOCKS = ("X", "Y")
START_PRICES = {"X": Decimal(100), "Y": Decimal(40)}
STRIKES = {
    code: Decimal(strike)
    for code, strike in {"XC": 100, "XD": 105, "XP": 95, "YC": 40, "YD": 45, "YP": 40}.items()
}
UNMARKED = "YP"  # until the rule set_marks moves it
CENT = Decimal("0.01")

ACCOUNT = st.sampled_from(LEAVES)
SYMBOL = st.sampled_from(SYMBOLS)
SIDE = st.sampled_from(["buy", "sell"])
AGENT = st.sampled_from([None, "a", "b"])
OFFSET = st.sampled_from([Decimal(p) for p in (0, 0, "1", "-1", "3.5", "-3.5", 12, -12)])


class Stage:
    """What the runs of one shard share: a database, its trading date, and what was counted.

    Each run brings its own firm. After some runs the database is exchanged for a fresh one, so
    that its size does not slow the runs down. `full_runs` counts those of FULL_RUN steps or more.
    """

    def __init__(self, new_engine: Callable[[], Engine]) -> None:
        self._new_engine = new_engine
        self.runs = 0
        self.full_runs = 0
        self.steps = 0
        self.seen: Counter[str] = Counter()

    def begin_run(self) -> None:
        if self.runs % RUNS_PER_DATABASE == 0:
            self.engine = self._new_engine()
            self.clock = START
            self.trading_date = START.date()
            self.engine.set_clock(self.clock)
            self.engine.open_day(self.trading_date)
        self.runs += 1
        self.clock += timedelta(days=1)


class Firm(RuleBasedStateMachine):
    """Two desks, three leaves; a stock and, in a currency of its own, an ETF, each with options."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        stage.begin_run()
        self.stage = stage
        self.engine = stage.engine
        self.oracle = Oracle(World(stage.clock, stage.trading_date))
        self.world = self.oracle.world
        self.numbers = 0
        self.steps = 0
        self.fills: list[tuple[Any, ...]] = []
        self.engine.set_clock(self.world.now)
        self.currency = f"E{chr(ord('A') + stage.runs // 26 % 26)}{chr(ord('A') + stage.runs % 26)}"
        self.both("set_fx", self.currency, Decimal("1.25"))
        self._create_scopes()
        self._create_instruments()

    def name(self, code: str) -> str:
        """What a scope or symbol is called in this run."""
        return f"R{self.stage.runs}-{code}"

    @staticmethod
    def code(name: str) -> str:
        """The scope or symbol of that name."""
        return name.partition("-")[2]

    def _create_scopes(self) -> None:
        for code, (kind, parent) in TREE.items():
            scope = Scope(self.name(code), kind, self.name(parent) if parent else None)
            self.world.scopes[scope.code] = scope
            self.engine.create_scope(scope.code, scope.kind, scope.parent)
        self.set_setting("F", "max_heartbeat_age", "0")

    def _create_instruments(self) -> None:
        today = self.world.trading_date
        for code in SYMBOLS:
            stock, symbol = self.name(code[0]), self.name(code)
            sector = "Tech" if code[0] == "X" else "Fund"
            currency = BASE_CURRENCY if code[0] == "X" else self.currency
            if code in STOCKS:
                kind = "stock" if code == "X" else "etf"
                lot = Decimal("2" if code == "X" else "0.5")
                instrument = Instrument(symbol, kind, stock, sector, lot=lot, currency=currency)
            else:
                instrument = Instrument(
                    symbol,
                    "option",
                    stock,
                    sector,
                    multiplier=Decimal(10),
                    expiry=today + timedelta(days=2 if code[1] == "C" else 30),
                    strike=STRIKES[code],
                    option_right="put" if code[1] == "P" else "call",
                    currency=currency,
                )
            self.world.instruments[symbol] = instrument
        self.engine.upsert_instruments(list(self.world.instruments.values()))
        self.move_marks(
            {code: self.last_price(code) for code in SYMBOLS if code != UNMARKED}, quoted=True
        )

    # -- helpers of the rules --------------------------------------------------------------

    def set_setting(self, scope: str, name: str, value: str) -> None:
        self.world.settings[self.name(scope), name] = value
        self.engine.set_setting(name, value, self.name(scope))

    def move_marks(
        self,
        prices: dict[str, Decimal],
        quoted: bool,
        greeks: dict[str, Greeks] | None = None,
        ivs: dict[str, float] | None = None,
    ) -> None:
        """Greeks that are not given are the engine's own, which other tests check."""
        marks = {
            self.name(code): Mark(
                price,
                price - 5 * CENT if quoted else None,
                price + 5 * CENT if quoted else None,
                self.world.now,
                (greeks or {}).get(code),
            )
            for code, price in prices.items()
        }
        self.engine.set_marks(marks, {self.name(code): iv for code, iv in (ivs or {}).items()})
        known = self.engine.marks(list(marks))
        for symbol, mark in marks.items():
            agree(f"mark of {symbol}", replace(known[symbol], greeks=mark.greeks), mark)
            if mark.greeks is not None:
                agree(f"Greeks of {symbol}", known[symbol].greeks, mark.greeks)
        self.oracle.set_marks(known)

    def last_price(self, code: str) -> Decimal:
        """The mark of a symbol; what it starts at where it has none."""
        mark = self.world.marks.get(self.name(code))
        return mark.price if mark else START_PRICES.get(code, Decimal(4))

    def next_id(self, kind: str) -> str:
        self.numbers += 1
        return f"{kind}{self.numbers}"

    def pick_order(self, index: int, live: bool) -> Order | None:
        """One of the orders so far, counted from the latest."""
        orders = [o for o in self.world.orders if o.is_live] if live else self.world.orders
        return orders[-1 - index % len(orders)] if orders else None

    def price_near(self, code: str, percent: Decimal) -> Decimal:
        """A price so many percent away from the mark, on the tick."""
        price = self.last_price(code) * (1 + percent / 100)
        return max(price, CENT).quantize(CENT)

    def trade(self, account: str, leg: tuple[str, str], lots: int, kind: str) -> None:
        """A trade that no order of ours explains, at the mark."""
        symbol, side = leg
        self.both(
            "record_trade",
            self.name(account),
            self.name(symbol),
            side,
            lots * self.world.instruments[self.name(symbol)].lot,
            self.last_price(symbol),
            self.next_id("t"),
            kind,
        )

    def resume_everything(self) -> None:
        for (scope, underlying), state in list(self.world.states.items()):
            if state != "ACTIVE":
                self.both("set_trading_state", scope, "ACTIVE", underlying)

    # -- comparing -------------------------------------------------------------------------

    def both(self, method: str, *arguments: object) -> Any:
        """Makes the same call on engine and oracle; both must answer or fail alike."""
        engine = outcome(self.engine, method, arguments)
        oracle = outcome(self.oracle, method, arguments)
        agree(method, engine, oracle)
        return oracle

    def decide(self, order: Order) -> None:
        """Asks both about an order, with a preview first, and tests the allowed quantity."""
        expected = self.oracle.preview(order)
        preview = self.engine.preview(order)
        agree("preview: violations", preview.violations, expected.violations)
        agree("preview: warnings", preview.warnings, expected.warnings)
        agree("preview: allowed", preview.allowed_quantity, expected.allowed_quantity)
        if expected.decision == "REJECTED":
            self._try_allowed(order, expected)
        agree("check", self.engine.check(order), expected)
        agree("the oracle itself", self.oracle.check(order), expected)
        self.count(expected)

    def _try_allowed(self, order: Order, expected: Answer) -> None:
        """The allowed quantity passes and one lot more does not.

        Another quantity makes an order no duplicate, or a duplicate of another order.
        """
        allowed = expected.allowed_quantity
        if allowed > 0:
            smaller = self.engine.preview(replace(order, quantity=allowed))
            refusals = {violation.reason for violation in smaller.violations}
            agree("reasons at the allowed quantity", refusals - {"DUPLICATE_ORDER"}, set())
        if all(violation.reason != "DUPLICATE_ORDER" for violation in expected.violations):
            larger = replace(order, quantity=allowed + Judge(self.world).step(order))
            agree("one lot more is refused", bool(self.engine.preview(larger).violations), True)

    def count(self, answer: Answer) -> None:
        self.stage.seen[answer.decision] += 1
        self.stage.seen.update({v.limit_type or v.reason for v in answer.violations})

    @property
    def accounts(self) -> list[str]:
        return [self.name(code) for code in LEAVES]

    @invariant()
    def orders_and_positions_agree(self) -> None:
        self.steps += 1
        orders = self.engine.order_rows(self.accounts)
        agree_on_rows("orders", orders, self.oracle.order_rows(), ())
        positions = self.engine.positions(self.accounts)
        agree_on_rows("positions", positions, self.oracle.position_rows(), (Decimal(0),) * 3)
        pnl = self.engine.pnl([self.name(code) for code in TREE])
        agree_on_amounts("profit and loss", pnl, self.oracle.pnl_rows())

    @rule()
    def audit(self) -> None:
        """The counters, and all that is said about limits, cancels and alerts."""
        agree("verify_counters", self.engine.differences(), [])
        limits = self.engine.utilization([self.name(code) for code in TREE])
        agree_on_rows("utilization", limits, self.oracle.utilization(), None)
        cancels = self.engine.cancel_requests(self.accounts)
        agree("cancel requests", cancels, self.oracle.cancel_requests())
        alerts = Counter(self.engine.alerts(self.accounts))
        agree_on_rows("alerts", alerts, Counter(self.oracle.alerts), 0)

    def read_views(self) -> None:
        """What analysts see of money, Greeks and obligations; slow, so once per history."""
        shown = self.engine.reports([self.name(code) for code in TREE])
        for view, rows in self.oracle.reports().items():
            agree_on_amounts(view, shown[view], rows)

    def teardown(self) -> None:
        self.stage.steps += self.steps
        if sys.exc_info()[0] is None:
            self.audit()
            self.read_views()
            self.stage.full_runs += self.steps > FULL_RUN
