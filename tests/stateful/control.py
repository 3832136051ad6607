"""Rules that change what orders are judged by: limits, trading states, market data and time."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.model import Dimension, Greeks, LimitKey, LimitVersion
from tests.model.facts import CONCENTRATION, PER_UNDERLYING
from tests.stateful.firm import ACCOUNT, CENT, LEAVES, STOCKS, SYMBOL, SYMBOLS, TREE, Firm

GREEK_AMOUNTS: dict[str, tuple[int, ...]] = {
    "delta": (20, 60, 120, 8, 0),
    "gamma": (1, 3, 8, 2, 0),
    "dollar_gamma": (40, 150, 500, 10, 0),
    "vega": (4, 10, 25, 2, 0),
    "theta": (1, 2, 4, 8, 0),
    "gross_exposure": (2000, 6000, 15000, 500, 0),
    "net_exposure": (1500, 5000, 12000, 400, 0),
    "concentration_pct": (40, 100, 15, 300, 0),
}
MONEY_AMOUNTS: dict[str, tuple[float, ...]] = {
    "same_side": (0.8, 1.5, 3, 0.3, 0),
    "max_loss": (6500, 10000, 20000, 28000, 3000, 0),
    "buying_power": (0, 600, 150, 2500, 0, 8000),
    "daily_loss": (50, 300, 1500, 10, 0),
    "drawdown_pct": (5, 20, 60, 1, 100),
}
AMOUNTS: dict[str, tuple[float, ...]] = {
    **GREEK_AMOUNTS,
    **MONEY_AMOUNTS,
    "order_quantity": (8, 12, 20, 3, 0),
    "order_notional": (500, 1000, 3000, 100, 0),
    "price_collar_pct": (5, 2, 10, 0),
    "net_position": (12, 25, 40, 6, 0),
    "long_position": (9, 20, 30, 4, 0),
    "short_position": (9, 20, 30, 4, 0),
    "gross_position": (20, 40, 80, 8, 0),
    "gross_notional": (1500, 4000, 12000, 500, 0),
    "traded_notional": (2000, 6000, 20000, 500, 0),
    "open_orders": (4, 6, 10, 2, 0),
    "open_positions": (3, 4, 6, 1, 0),
    "order_rate": (2, 3, 5, 1, 0),
    "order_rate_minute": (4, 8, 12, 2, 0),
    "duplicate_window": (5, 1, 40, 0),
    "self_cross": (1, 1, 0),
}
LIMIT_TYPES = st.one_of(
    *(
        st.lists(st.sampled_from(sorted(names)), min_size=1, max_size=4, unique=True)
        for names in (AMOUNTS, GREEK_AMOUNTS, MONEY_AMOUNTS)
    )
)
OF_AN_UNDERLYING = (*PER_UNDERLYING, CONCENTRATION, "max_loss")
OF_A_SCOPE = ("buying_power", "daily_loss", "drawdown_pct")
SCOPE = st.sampled_from(sorted(TREE))
CHOICE = st.integers(0, 5)
DETAIL = st.integers(0, 39)


class Control(Firm):
    """What admins, the market-data feed and the clock do."""

    limit_types: list[str]

    def key(self, scope: str, limit_type: str, detail: int) -> LimitKey:
        """A limit key; `detail` picks the dimension and its value."""
        dimension = (Dimension.ALL, *Dimension)[detail % 5]
        stock = detail // 5 % 2
        if limit_type in OF_A_SCOPE:
            dimension = Dimension.ALL
        elif dimension is Dimension.INSTRUMENT and limit_type in OF_AN_UNDERLYING:
            dimension = Dimension.UNDERLYING
        value = {
            Dimension.ALL: None,
            Dimension.SECTOR: ("Tech", "Fund")[stock],
            Dimension.UNDERLYING: self.name(STOCKS[stock]),
            Dimension.INSTRUMENT: self.name(SYMBOLS[detail // 5]),
        }[dimension]
        return LimitKey(self.name(scope), limit_type, dimension, value)

    @initialize(
        limit_types=LIMIT_TYPES,
        limits=st.lists(st.tuples(SCOPE, CHOICE, CHOICE, DETAIL), max_size=6),
        required=st.sampled_from([None] * 7 + ["order_quantity"]),
        cash=st.sampled_from([0, 0, 1000, 4000]),
        holdings=st.lists(st.tuples(ACCOUNT, SYMBOL, st.integers(-6, 6)), max_size=8),
        regime=st.sampled_from([*[None] * 6, "REDUCE_ONLY", "RESTRICTED", "stale"]),
    )
    def begin(
        self,
        limit_types: list[str],
        limits: list[tuple[str, int, int, int]],
        required: str | None,
        cash: int,
        holdings: list[tuple[str, str, int]],
        regime: str | None,
    ) -> None:
        """A run is about a few types of limit, so that several limits of a type meet."""
        self.limit_types = limit_types
        self.set_setting("F", "max_mark_age", "46" if regime == "stale" else "0")
        key = LimitKey(self.name("F"), "net_position")
        self.both("set_limit", LimitVersion(key, Decimal(250), self.world.now))
        for scope, limit_type, amount, detail in limits:
            self.set_limit(scope, limit_type, amount, detail, 80, None)
        if required:
            self.set_setting("D1", "required_limit_types", required)
            key = LimitKey(self.name("D1"), required, Dimension.SECTOR, "Tech")
            self.both("set_limit", LimitVersion(key, Decimal(20), self.world.now))
        for account in self.accounts if cash else ():
            self.both("post_cash", account, Decimal(cash), "deposit")
        if "max_loss" in limit_types:
            self.begin_covered()
        for account, symbol, lots in holdings:
            if lots:
                self.trade(account, (symbol, "buy" if lots > 0 else "sell"), abs(lots), "opening")
        self.begin_regime(regime)

    def begin_covered(self) -> None:
        """Shares under the calls that are sold, or most losses would have no bound."""
        for account in LEAVES:
            for stock, lots in (("X", 35), ("Y", 140)):
                self.trade(account, (stock, "buy"), lots, "opening")

    def begin_regime(self, regime: str | None) -> None:
        """Some runs start where only reducing orders pass."""
        if regime == "stale":
            self.world.now += timedelta(seconds=47)
            self.engine.set_clock(self.world.now)
        elif regime == "RESTRICTED":
            for symbol in self.world.instruments:
                self.both("set_instrument_status", symbol, regime)
        elif regime:
            self.both("set_trading_state", self.name("F"), regime)

    @rule(
        scope=SCOPE,
        limit_type=CHOICE,
        choice=CHOICE,
        detail=DETAIL,
        warn_pct=st.sampled_from([80, 80, 50, 100]),
        seconds=st.sampled_from([None, None, 2, 30]),
    )
    def set_limit(
        self,
        scope: str,
        limit_type: int,
        choice: int,
        detail: int,
        warn_pct: int,
        seconds: int | None,
    ) -> None:
        """A limit for good, or one that ends by itself."""
        name = self.limit_types[limit_type % len(self.limit_types)]
        now = self.world.now
        self.both(
            "set_limit",
            LimitVersion(
                self.key(scope, name, detail),
                Decimal(str(AMOUNTS[name][choice % len(AMOUNTS[name])])),
                now,
                None if seconds is None else now + timedelta(seconds=seconds),
                Decimal(warn_pct),
            ),
        )

    @rule(index=st.integers(0, 30), change=st.sampled_from(["remove", "remove", "widen", "later"]))
    def change_a_limit(self, index: int, change: str) -> None:
        """Removes a limit, or makes it wide at once or from a later moment on."""
        keys = list(dict.fromkeys(version.key for version in self.world.limit_versions))
        if not keys:
            return
        key = keys[-1 - index % len(keys)]
        if change == "remove" and (key.scope != self.name("F") or index > 25):
            self.both("remove_limit", key)
            return
        amount = Decimal(1 if key.limit_type == "self_cross" else 30)
        later = self.world.now + timedelta(seconds=2 if change == "later" else 0)
        self.both("set_limit", LimitVersion(key, amount, later))

    @rule(
        scope=SCOPE,
        state=st.sampled_from(["ACTIVE", "REDUCE_ONLY", "ACTIVE", "HALTED"]),
        underlying=st.none() | st.sampled_from(STOCKS),
        cancel_open=st.booleans(),
    )
    def set_trading_state(
        self, scope: str, state: str, underlying: str | None, cancel_open: bool
    ) -> None:
        """A state somewhere; ACTIVE resumes everything."""
        if state != "ACTIVE":
            name = self.name(underlying) if underlying else None
            self.both("set_trading_state", self.name(scope), state, name, cancel_open)
        else:
            self.resume_everything()

    @rule(
        symbol=SYMBOL,
        status=st.sampled_from(["ACTIVE", "RESTRICTED", "NO_NEW_SHORTS", "BLOCKED"]),
    )
    def set_instrument_status(self, symbol: str, status: str) -> None:
        """At most one symbol is restricted at a time, so that others keep trading."""
        for name, current in list(self.world.statuses.items()):
            if current != "ACTIVE":
                self.both("set_instrument_status", name, "ACTIVE")
        self.both("set_instrument_status", self.name(symbol), status)

    @rule(
        moves=st.dictionaries(SYMBOL, st.sampled_from([-10, -2, 0, 1, 25]), min_size=1),
        quoted=st.booleans(),
        how=st.sampled_from(["priced", "given", "given", "iv"]),
        tenths=st.integers(-9, 9),
    )
    def set_marks(self, moves: dict[str, int], quoted: bool, how: str, tenths: int) -> None:
        """Prices move, and of options what the feed says of volatility or Greeks, or nothing."""
        prices = {}
        for code, percent in moves.items():
            price = self.last_price(code) * (100 + percent) / 100
            prices[code] = min(max(price, 10 * CENT), Decimal(1000)).quantize(CENT)
        options = [code for code in moves if code not in STOCKS]
        delta = Decimal(tenths) / 10
        greeks = Greeks(delta, abs(delta) / 50, Decimal("0.12"), Decimal("-0.035") + delta / 100)
        self.move_marks(
            prices,
            quoted,
            dict.fromkeys(options, greeks) if how == "given" else None,
            dict.fromkeys(options, 0.2 + abs(tenths) / 10) if how == "iv" else None,
        )

    @rule(stock=st.sampled_from(STOCKS), percent=st.sampled_from([-20, -1, 0, 1, 15]))
    def remark_underlying(self, stock: str, percent: int) -> None:
        """One tick of the underlying moves its options, by their volatility."""
        price = (self.last_price(stock) * (100 + percent) / 100).quantize(CENT)
        self.engine.remark_underlying(self.name(stock), price)
        self.oracle.set_marks(self.engine.marks([self.name(code) for code in SYMBOLS]))

    @rule(rate=st.sampled_from(["1.25", "1.1", "1.4", "0.8", "2"]))
    def set_fx(self, rate: str) -> None:
        self.both("set_fx", self.currency, Decimal(rate))

    @rule(milliseconds=st.sampled_from([1, 400, 1000, 2000, 30000, 46000, 61000]))
    def let_time_pass(self, milliseconds: int) -> None:
        """A longer pause ends with fresh marks, or nothing would trade any more."""
        self.world.now += timedelta(milliseconds=milliseconds)
        self.engine.set_clock(self.world.now)
        if milliseconds > 46000:
            self.both("set_fx", self.currency, self.world.rate(self.currency))
            marked = [code for code in SYMBOLS if self.name(code) in self.world.marks]
            self.move_marks(
                {code: max(self.last_price(code), 10 * CENT) for code in marked}, quoted=True
            )

    @rule(
        days=st.sampled_from([1, 0, 1, -1]),
        equities=st.dictionaries(ACCOUNT, st.sampled_from([0, 1000, 40000]), max_size=2),
    )
    def open_day(self, days: int, equities: dict[str, int]) -> None:
        """The next day; the same day again corrects equities, and an earlier one is refused."""
        day = self.world.trading_date + timedelta(days=days)
        told = {self.name(code): Decimal(equity) for code, equity in equities.items()}
        answer = self.both("open_day", day, told)
        assert answer == ("RK400" if days < 0 else None)
        self.stage.trading_date = self.world.trading_date
