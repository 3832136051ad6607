"""Option values against QuantLib, and against arithmetic of 40 digits where QuantLib gives out."""

from __future__ import annotations

import itertools
import math
import random
from typing import TYPE_CHECKING, NamedTuple

import mpmath
import psycopg
import pytest
import QuantLib
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.databases import Database

NAMES = ("price", "delta", "gamma", "vega", "theta", "rho")


class Option(NamedTuple):
    """Arguments of risk.option_greeks."""

    kind: str
    spot: float
    strike: float
    years: float
    rate: float
    dividend: float
    volatility: float

    @property
    def deviation(self) -> float:
        return self.volatility * math.sqrt(self.years)


class Values(NamedTuple):
    price: float
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float


def values(db: Database, options: Sequence[Option]) -> list[Values]:
    """What the engine says of all the options, by one query."""
    with db.connect() as connection:
        rows = connection.execute(
            """select g.price, g.delta, g.gamma, g.vega, g.theta, g.rho
               from unnest(%s::text[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],
                           %s::float8[], %s::float8[])
                 with ordinality as o (kind, spot, strike, years, rate, dividend, volatility, n)
               cross join lateral risk.option_greeks(
                 o.kind, o.spot, o.strike, o.years, o.rate, o.dividend, o.volatility) as g
               order by o.n""",
            [list(column) for column in zip(*options, strict=True)],
        ).fetchall()
    return [Values(*row) for row in rows]


def volatilities(
    db: Database, options: Sequence[Option], prices: Sequence[float]
) -> list[float | None]:
    """The volatility that the engine reads out of each price."""
    with db.connect() as connection:
        rows = connection.execute(
            """select risk.implied_volatility(
                 o.kind, o.price, o.spot, o.strike, o.years, o.rate, o.dividend)
               from unnest(%s::text[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],
                           %s::float8[], %s::float8[])
                 with ordinality as o (kind, spot, strike, years, rate, dividend, price, n)
               order by o.n""",
            [*([list(column) for column in zip(*options, strict=True)][:6]), list(prices)],
        ).fetchall()
    return [volatility for (volatility,) in rows]


def quantlib(option: Option) -> Values:
    """QuantLib's values in the engine's units."""
    kind = QuantLib.Option.Call if option.kind == "call" else QuantLib.Option.Put
    growth = math.exp((option.rate - option.dividend) * option.years)
    black = QuantLib.BlackCalculator(
        QuantLib.PlainVanillaPayoff(kind, option.strike),
        option.spot * growth,
        option.deviation,
        math.exp(-option.rate * option.years),
    )
    return Values(
        black.value(),
        black.delta(option.spot),
        black.gamma(option.spot),
        black.vega(option.years) / 100,
        black.theta(option.spot, option.years) / 365,
        black.rho(option.years) / 100,
    )


def exactly(option: Option) -> Values:
    """The textbook's formulas (Hull, ch. 17 and 19) with 40 digits."""
    with mpmath.workdps(40):
        s, k, t, r, q, v = (mpmath.mpf(x) for x in option[1:])
        sign = 1 if option.kind == "call" else -1
        d1 = (mpmath.log(s / k) + (r - q + v * v / 2) * t) / (v * mpmath.sqrt(t))
        d2 = d1 - v * mpmath.sqrt(t)
        n1, n2 = mpmath.ncdf(sign * d1), mpmath.ncdf(sign * d2)
        a, b, density = s * mpmath.exp(-q * t), k * mpmath.exp(-r * t), mpmath.npdf(d1)
        decay = a * density * v / (2 * mpmath.sqrt(t))
        return Values(
            float(sign * (a * n1 - b * n2)),
            float(sign * mpmath.exp(-q * t) * n1),
            float(mpmath.exp(-q * t) * density / (s * v * mpmath.sqrt(t))),
            float(a * density * mpmath.sqrt(t) / 100),
            float((-decay - sign * r * b * n2 + sign * q * a * n1) / 365),
            float(sign * b * t * n2 / 100),
        )


def random_options(count: int) -> list[Option]:
    """What is traded, and well beyond: pennies to thousands, hours to decades, 1 % to 300 %."""
    rng = random.Random(20150824)
    options = []
    for _ in range(count):
        spot = 10 ** rng.uniform(-1, 4)
        options.append(
            Option(
                rng.choice(("call", "put")),
                spot,
                spot * math.exp(rng.gauss(0, 0.4)),
                10 ** rng.uniform(-3.5, 1.5),
                rng.uniform(-0.05, 0.2),
                rng.uniform(-0.05, 0.15),
                10 ** rng.uniform(-2, 0.5),
            )
        )
    return options


def edge_options() -> list[Option]:
    """Each quantity at its extremes, with all others."""
    return [
        Option(kind, spot, 100.0, years, rate, dividend, volatility)
        for kind, spot, years, (rate, dividend), volatility in itertools.product(
            ("call", "put"),
            (0.01, 1.0, 50.0, 99.9999, 100.0, 100.0001, 180.0, 1e4, 1e7),
            (1e-4, 1 / 365, 0.5, 1.0, 30.0),
            ((0.0, 0.0), (0.05, 0.0), (-0.02, 0.01), (0.0, 0.08), (0.3, -0.1)),
            (1e-3, 0.05, 0.2, 1.0, 10.0, 1000.0),
        )
    ]


def test_values_and_greeks_agree_with_quantlib(db: Database) -> None:
    """To 1e-9. QuantLib takes probabilities from 1, so what is left of a tail has an absolute error
    of 1e-16 of the spot there, more in theta and gamma: hence the second term."""
    options = [*random_options(10_000), *edge_options()]
    assert len(options) > 12_000
    for option, found in zip(options, values(db, options), strict=True):
        for name, value, expected in zip(NAMES, found, quantlib(option), strict=True):
            noise = 1e-14 * option.spot * (1 + option.years)
            if name == "gamma":
                noise = 1e-14 / (option.spot * option.deviation)
            elif name == "theta":
                noise = max(noise, 1e-14 * option.spot / option.years / 365)
            assert abs(value - expected) <= 1e-9 * abs(expected) + noise, (name, option, found)


def test_tails_keep_their_relative_accuracy(db: Database) -> None:
    options = [
        Option(kind, spot, 100.0, years, 0.03, 0.01, volatility)
        for kind, spot, years, volatility in itertools.product(
            ("call", "put"), (20.0, 50.0, 80.0, 120.0, 200.0, 500.0), (0.02, 0.25, 2.0), (0.1, 0.4)
        )
    ]
    deepest = 1.0
    for option, found in zip(options, values(db, options), strict=True):
        for name, value, expected in zip(NAMES, found, exactly(option), strict=True):
            if abs(expected) > 1e-200:
                assert value == pytest.approx(expected, rel=1e-9), (name, option)
                deepest = min(deepest, abs(expected))
    assert deepest < 1e-100


def test_volatility_comes_back_out_of_the_price(db: Database) -> None:
    options = [o for o in [*random_options(20_000), *edge_options()] if o.volatility <= 10]
    found = values(db, options)
    # Where the rounding of the price alone hides so small a change, there is nothing to find.
    told = [
        (option, value.price)
        for option, value in zip(options, found, strict=True)
        if value.vega * 1e-5 * option.volatility > 2e-15 * max(value.price, option.spot)
    ]
    assert len(told) > 10_000
    answers = volatilities(db, [option for option, _ in told], [price for _, price in told])
    for (option, price), volatility in zip(told, answers, strict=True):
        assert volatility == pytest.approx(option.volatility, rel=1e-7), (option, price)


def test_volatility_of_far_out_of_the_money_prices(db: Database) -> None:
    options = [
        Option(kind, spot, 100.0, years, 0.0, 0.0, volatility)
        for kind, spot, years, volatility in itertools.product(
            ("call", "put"), (30.0, 60.0, 90.0, 110.0, 160.0, 300.0), (0.01, 0.3, 5.0), (0.15, 0.8)
        )
        if (kind == "call") == (spot < 100)
    ]
    told = [(o, exactly(o).price) for o in options if exactly(o).price > 1e-200]
    assert min(price for _, price in told) < 1e-50
    answers = volatilities(db, [option for option, _ in told], [price for _, price in told])
    assert answers == pytest.approx([option.volatility for option, _ in told], rel=1e-7)


@pytest.mark.parametrize(
    ("option", "price", "delta"),
    [
        (Option("call", 110, 100, 0, 0.05, 0, 0.2), 10, 1),
        (Option("call", 90, 100, 0, 0.05, 0, 0.2), 0, 0),
        (Option("call", 100, 100, 0, 0.05, 0, 0.2), 0, 0.5),
        (Option("put", 90, 100, 0, 0.05, 0, 0.2), 10, -1),
        (Option("put", 110, 100, 0, 0.05, 0, 0.2), 0, 0),
        (Option("put", 100, 100, 0, 0.05, 0, 0.2), 0, -0.5),
        (Option("call", 110, 100, 1, 0, 0, 0), 10, 1),
        (Option("call", 90, 100, 1, 0, 0, 0), 0, 0),
        (Option("put", 90, 100, 1, -0.01, 0, 0), 100 * math.exp(0.01) - 90, -1),
        (Option("call", 100, 100, 1, 0, 0.05, 1e308), 100 * math.exp(-0.05), math.exp(-0.05)),
        (Option("put", 100, 100, 1, 0.05, 0, 1e308), 100 * math.exp(-0.05), 0),
        (Option("call", 0, 100, 1, 0.05, 0, 0.2), 0, 0),
        (Option("put", 0, 100, 1, 0.05, 0, 0.2), 100 * math.exp(-0.05), -1),
    ],
)
def test_limits(db: Database, option: Option, price: float, delta: float) -> None:
    """At expiry, without volatility and with all of it, and of a share that is worth nothing."""
    (found,) = values(db, [option])
    assert found.price == pytest.approx(price, rel=1e-12, abs=1e-12)
    assert found.delta == pytest.approx(delta, rel=1e-12, abs=1e-12)
    assert found.gamma == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("price", [1e-9, 1e-16, 1e-100, 1e-242])
def test_next_to_nothing_at_the_money_tells_a_volatility(db: Database, price: float) -> None:
    """It is as good as a straight line there: price = volatility / root of 2 pi."""
    with db.connect() as connection:
        row = connection.execute(
            "select risk.implied_volatility('call', %s, 1, 1, 1, 0, 0)", [price]
        ).fetchone()
    assert row is not None
    assert row[0] == pytest.approx(price * math.sqrt(2 * math.pi), rel=1e-9, abs=0)


ANY_NUMBER = st.floats(allow_nan=True, allow_infinity=True)
LIKELY_NUMBER = st.floats(0, 200)
NUMBER = st.one_of(ANY_NUMBER, LIKELY_NUMBER)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.tuples(st.sampled_from(["call", "put"]), NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
)
@example(("call", 1e-242, 1.0, 1.0, 1.0, 0.0, 0.0))
@example(("put", 1e-242, 1.0, 1.0, 100.0, 0.0, 0.0))
def test_any_numbers_give_numbers_or_an_error_that_says_why(
    db: Database, arguments: tuple[str | float, ...]
) -> None:
    with db.connect() as connection:
        for query in (
            "select g.* from risk.option_greeks(%s, %s, %s, %s, %s, %s, %s) as g",
            "select risk.implied_volatility(%s, %s, %s, %s, %s, %s, %s)",
        ):
            try:
                row = connection.execute(query.encode(), arguments).fetchone()
            except psycopg.Error as error:
                if error.sqlstate != "RK400":
                    raise
            else:
                assert row is not None
                assert all(math.isfinite(value) for value in row), (row, arguments)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "straddle"}, "kind"),
        ({"kind": None}, "kind"),
        ({"spot": -1}, "spot"),
        ({"spot": "NaN"}, "spot"),
        ({"strike": 0}, "strike"),
        ({"strike": None}, "strike"),
        ({"years": -0.01}, "years"),
        ({"years": "Infinity"}, "years"),
        ({"rate": 11}, "rate"),
        ({"rate": 5, "years": 20}, "rate"),
        ({"dividend": "NaN"}, "dividend"),
        ({"dividend": -5, "years": 20}, "dividend"),
        ({"volatility": -0.2}, "volatility"),
        ({"volatility": "Infinity"}, "volatility"),
    ],
)
def test_impossible_terms_are_refused(db: Database, change: dict[str, object], told: str) -> None:
    terms: dict[str, object] = dict(zip(Option._fields, ("call", 1, 1, 1, 0, 0, 1), strict=True))
    with db.connect() as connection, pytest.raises(psycopg.Error, match=f"^{told} ") as caught:
        connection.execute(
            """select risk.option_greeks(%(kind)s, %(spot)s, %(strike)s, %(years)s, %(rate)s,
                 %(dividend)s, %(volatility)s)""",
            terms | change,
        )
    assert caught.value.sqlstate == "RK400"


@pytest.mark.parametrize(
    ("kind", "price", "years"),
    [("call", 9, 1), ("call", 110, 1), ("put", 100, 1), ("call", 12, 0), ("call", "NaN", 1),
     ("put", -1, 1)],
)  # fmt: skip
def test_a_price_that_no_volatility_gives_is_refused(
    db: Database, kind: str, price: object, years: int
) -> None:
    with db.connect() as connection, pytest.raises(psycopg.Error, match="price") as caught:
        connection.execute(
            "select risk.implied_volatility(%s, %s, 110, 100, %s, 0, 0)", [kind, price, years]
        )
    assert caught.value.sqlstate == "RK400"


def test_the_least_price_has_no_volatility(db: Database) -> None:
    options = [
        Option("call", 110.0, 100.0, 1.0, 0.03, 0.01, 0.0),
        Option("put", 90.0, 100.0, 0.3, 0.0, 0.0, 0.0),
        Option("call", 110.0, 100.0, 0.0, 0.0, 0.0, 0.0),
        Option("call", 90.0, 100.0, 1.0, 0.0, 0.0, 0.0),
    ]
    assert volatilities(db, options, [v.price for v in values(db, options)]) == [0, 0, 0, 0]
