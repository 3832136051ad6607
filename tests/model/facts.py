"""What the oracle knows: reference data, market data, limits, orders and executions.

Nothing here is derived. Every number that a limit is compared with is recomputed from these
facts by `book.Book`, each time it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .executions import Execution, Posting
    from .money import DayStart

PER_ORDER = ("order_quantity", "order_notional", "price_collar_pct")
PER_INSTRUMENT = ("net_position", "long_position", "short_position")
PER_UNDERLYING = ("delta", "gamma", "same_side")
GREEKS = ("delta", "gamma", "dollar_gamma", "vega", "theta", "net_exposure")
CONCENTRATION = "concentration_pct"
BASE_CURRENCY = "USD"
SWITCHES = ("duplicate_window", "self_cross")
LIVE = ("ACCEPTED", "SENT", "ACKNOWLEDGED", "PARTIALLY_FILLED")

GRAVEST_FIRST = (
    "TRADING_HALTED",
    "CIRCUIT_BREAKER_TRIPPED",
    "RESTRICTED_INSTRUMENT",
    "INSTRUMENT_EXPIRED",
    "CONFIG_NOT_FOUND",
    "STALE_DATA",
    "REFERENCE_PRICE_UNAVAILABLE",
    "PRICE_OUT_OF_BAND",
    "DUPLICATE_ORDER",
    "SELF_CROSS",
    "RATE_LIMIT_EXCEEDED",
    "REDUCE_ONLY",
    "RISK_LIMIT_EXCEEDED",
)


class RiskError(Exception):
    """A call that makes no sense; `sqlstate` is the error the engine must raise for it."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@dataclass(frozen=True)
class Scope:
    """A firm, desk, account or strategy; `parent` is None for the firm."""

    code: str
    kind: str
    parent: str | None


@dataclass(frozen=True)
class Instrument:
    """One tradable symbol; a stock is its own underlying."""

    symbol: str
    kind: str
    underlying: str
    sector: str | None = None
    multiplier: Decimal = Decimal(1)
    lot: Decimal = Decimal(1)
    tick: Decimal = Decimal("0.01")
    expiry: date | None = None
    strike: Decimal | None = None
    option_right: str | None = None
    allow_negative_price: bool = False
    currency: str = BASE_CURRENCY


@dataclass(frozen=True)
class Greeks:
    """Of one option: delta per share, gamma per 1.00 of spot, vega per point, theta per day."""

    delta: Decimal = Decimal(0)
    gamma: Decimal = Decimal(0)
    vega: Decimal = Decimal(0)
    theta: Decimal = Decimal(0)


@dataclass(frozen=True)
class Mark:
    """The last price of a symbol, its quotes and (of an option) its Greeks, as of a moment."""

    price: Decimal
    bid: Decimal | None
    ask: Decimal | None
    as_of: datetime
    greeks: Greeks | None = None


class Dimension(Enum):
    """What a limit is restricted to, from the widest to the most specific."""

    ALL = 0
    SECTOR = 1
    UNDERLYING = 2
    INSTRUMENT = 3


@dataclass(frozen=True)
class LimitKey:
    """Which limit: one scope, one type, one dimension and (unless it is ALL) its value."""

    scope: str
    limit_type: str
    dimension: Dimension = Dimension.ALL
    value: str | None = None

    @property
    def dimension_text(self) -> str:
        name = self.dimension.name.lower()
        return name if self.dimension is Dimension.ALL else f"{name}:{self.value}"

    @property
    def is_default(self) -> bool:
        """Whether it holds for each instrument or underlying in it, where no narrower one does."""
        if self.limit_type == CONCENTRATION:
            return self.dimension is not Dimension.SECTOR
        return self.limit_type in (*PER_INSTRUMENT, *PER_UNDERLYING)

    def matches(self, instrument: Instrument) -> bool:
        if self.dimension is Dimension.ALL:
            return True
        return (
            self.value
            == {
                Dimension.SECTOR: instrument.sector,
                Dimension.UNDERLYING: instrument.underlying,
                Dimension.INSTRUMENT: instrument.symbol,
            }[self.dimension]
        )


@dataclass(frozen=True)
class LimitVersion:
    """One version of a limit; an amount of None says that the limit was removed."""

    key: LimitKey
    amount: Decimal | None
    valid_from: datetime
    valid_until: datetime | None = None
    warn_pct: Decimal = Decimal(80)

    def covers(self, moment: datetime) -> bool:
        return self.valid_from <= moment and (self.valid_until is None or moment < self.valid_until)


@dataclass(frozen=True)
class Leg:
    """One leg of an order; a single order has one leg with ratio 1."""

    symbol: str
    side: str
    ratio: Decimal = Decimal(1)

    @property
    def sign(self) -> int:
        return 1 if self.side == "buy" else -1


@dataclass(frozen=True)
class Violation:
    """A check that refused an order."""

    reason: str
    limit_type: str | None = None
    scope: str | None = None
    dimension: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a caller is told about an order."""

    decision: str
    reason: str | None
    allowed_quantity: Decimal
    violations: frozenset[Violation] = frozenset()
    warnings: frozenset[tuple[str, str, str]] = frozenset()


@dataclass(eq=False)
class Order:
    """An order as it was decided, and the state it has come to since.

    `filled_before` is what the order it replaces had filled, per symbol, when it was decided.
    """

    account: str
    client_order_id: str
    legs: tuple[Leg, ...]
    quantity: Decimal
    price: Decimal | None
    agent: str | None = None
    time_in_force: str = "DAY"
    is_combo: bool = False
    decided_at: datetime = field(default=datetime.min)
    state: str = "ACCEPTED"
    answer: Answer | None = None
    notional_prices: dict[str, Decimal] = field(default_factory=dict)
    leg_prices: dict[str, Decimal] = field(default_factory=dict)
    replaces: Order | None = None
    filled_before: dict[str, Decimal] = field(default_factory=dict)
    replace_pending: bool = False
    is_confirmed: bool = False
    cancel_requested: bool = False
    close_reason: str | None = None
    was_sent: bool = False
    was_acknowledged: bool = False

    def close(self, state: str, reason: str | None) -> None:
        self.state = state
        self.close_reason = reason

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    @property
    def was_filled(self) -> bool:
        """Whether fills have ended it, even if some of them were taken back since."""
        return self.state == "FILLED" or self.close_reason == "fill_corrected"

    @property
    def was_accepted(self) -> bool:
        return self.state != "REJECTED"

    @property
    def content(self) -> tuple[object, ...]:
        """What must be equal when the same id is asked again."""
        replaced = self.replaces.client_order_id if self.replaces else None
        legs = frozenset(self.legs)
        return legs, self.quantity, self.price, self.agent, self.time_in_force, replaced


@dataclass(frozen=True)
class Rate:
    """Of a currency: base currency per unit, as of a moment."""

    value: Decimal
    as_of: datetime


@dataclass
class World:
    """Everything that has been told to the engine so far."""

    now: datetime
    trading_date: date
    scopes: dict[str, Scope] = field(default_factory=dict)
    instruments: dict[str, Instrument] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    settings: dict[tuple[str | None, str], str] = field(default_factory=dict)
    states: dict[tuple[str, str | None], str] = field(default_factory=dict)
    limit_versions: list[LimitVersion] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    postings: list[Posting] = field(default_factory=list)
    first_execution_today: int = 0
    day_starts: dict[str, DayStart] = field(default_factory=dict)
    peaks: dict[str, Decimal] = field(default_factory=dict)
    adjustments: dict[str, tuple[str, Decimal, Decimal]] = field(default_factory=dict)
    rates: dict[str, Rate] = field(default_factory=dict)

    def rate(self, currency: str) -> Decimal:
        """Base currency per unit."""
        return Decimal(1) if currency == BASE_CURRENCY else self.rates[currency].value

    def unit(self, symbol: str) -> Decimal:
        """Base currency that one unit of a symbol moves by where its price moves by 1."""
        instrument = self.instruments[symbol]
        return instrument.multiplier * self.rate(instrument.currency)

    def chain(self, scope: str) -> list[str]:
        """The scope and all its ancestors, the firm last."""
        found: list[str] = []
        step: str | None = scope
        while step is not None:
            found.append(step)
            step = self.scopes[step].parent
        return found

    def limits_in_force(self) -> list[LimitVersion]:
        """Per key the latest version whose window contains now, unless it is a removal."""
        latest = {v.key: v for v in self.limit_versions if v.covers(self.now)}
        return [version for version in latest.values() if version.amount is not None]
