"""The demo's strategies: what each agent wants to trade next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from pgrisk.cli.demo_market import CENT
from pgrisk.cli.demo_scenarios import SECTORS, STOCKS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from datetime import date

    from pgrisk.cli.demo_market import Market, Right


@dataclass(frozen=True)
class Leg:
    """One leg of an order."""

    symbol: str
    side: str
    ratio: int = 1


@dataclass(frozen=True)
class Order:
    """What an agent asks for. `price` is net per combo; None is a market order."""

    legs: tuple[Leg, ...]
    quantity: int
    price: Decimal | None
    time_in_force: str = "DAY"


@dataclass
class View:
    """What an agent sees: the market, what it holds, and its dice."""

    market: Market
    dice: random.Random
    positions: dict[str, int] = field(default_factory=dict)
    """Quantity by symbol, as far as its fills tell: settlements reach it later."""

    def book(self, symbol: str, quantity: int) -> None:
        """Add a fill to what is held."""
        self.positions[symbol] = self.positions.get(symbol, 0) + quantity

    def stock(self) -> str:
        return self.dice.choice(STOCKS)

    def expiry(self) -> date:
        return self.dice.choice((self.market.nearest_expiry(), self.market.last_expiry))

    def option(
        self, stock: str, right: Right, steps: int, expiry: date | None = None
    ) -> str | None:
        """The option so many strikes above the money, by default of the nearest expiry."""
        return self.market.option(stock, expiry or self.market.nearest_expiry(), right, steps)

    def order(self, quantity: int, *wanted: tuple[str, str | None]) -> Order | None:
        """An order priced as the agent dares; None where a leg is not listed."""
        legs = tuple(Leg(symbol, side) for side, symbol in wanted if symbol)
        if len(legs) < len(wanted):
            return None
        price = self.price(legs, self.dice.choice((0.0, 0.5, 0.5, 1.0, 1.0, 1.0)))
        gtc = self.dice.random() < 0.1
        return Order(legs, quantity, price, "GTC" if gtc else "DAY")

    def price(self, legs: tuple[Leg, ...], eagerness: float) -> Decimal | None:
        """The net price: eagerness 0 waits at the near side, 1 takes the far side.

        None, a market order, where the market shows no price of a leg.
        """
        if any(leg.symbol not in self.market.quotes for leg in legs):
            return None
        single = len(legs) == 1
        near = far = Decimal(0)
        for leg in legs:
            quote = self.market.quotes[leg.symbol]
            buys = leg.side == "buy"
            sign = 1 if buys or single else -1
            near += sign * leg.ratio * (quote.bid if buys else quote.ask)
            far += sign * leg.ratio * (quote.ask if buys else quote.bid)
        price = round(near + (far - near) * Decimal(eagerness), 2)
        return max(CENT, price) if single else price

    def shares(self, stock: str, money: int) -> int:
        """A round number of shares worth about that much."""
        return max(10, 10 * round(money / float(self.market.prices[stock]) / 10))

    def contracts(self) -> int:
        return self.dice.randint(1, 12)


def iron_condor(view: View) -> Order | None:
    """Sells a strangle and buys the wings."""
    stock, short, wing = view.stock(), view.dice.randint(1, 2), view.dice.randint(1, 2)
    return view.order(
        view.contracts(),
        ("buy", view.option(stock, "put", -short - wing)),
        ("sell", view.option(stock, "put", -short)),
        ("sell", view.option(stock, "call", short)),
        ("buy", view.option(stock, "call", short + wing)),
    )


def put_spread(view: View) -> Order | None:
    """Sells a put and buys one further down."""
    return _credit_spread(view, "put", -1)


def call_spread(view: View) -> Order | None:
    """Sells a call and buys one further up."""
    return _credit_spread(view, "call", 1)


def _credit_spread(view: View, right: Right, direction: int) -> Order | None:
    stock, expiry = view.stock(), view.expiry()
    short, width = view.dice.randint(0, 2), view.dice.randint(1, 3)
    return view.order(
        view.contracts(),
        ("sell", view.option(stock, right, direction * short, expiry)),
        ("buy", view.option(stock, right, direction * (short + width), expiry)),
    )


def cash_secured_put(view: View) -> Order | None:
    """Sells puts below the market."""
    steps, expiry = -view.dice.randint(0, 3), view.expiry()
    return view.order(view.contracts(), ("sell", view.option(view.stock(), "put", steps, expiry)))


def covered_call(view: View) -> Order | None:
    """Buys round lots and sells calls on what it holds."""
    stock = view.stock()
    lots = view.positions.get(stock, 0) // 100
    if lots < 3 or view.dice.random() < 0.3:
        return view.order(100 * view.dice.randint(1, 4), ("buy", stock))
    call = view.option(stock, "call", view.dice.randint(1, 3), view.expiry())
    return view.order(view.dice.randint(1, lots), ("sell", call))


def momentum(view: View) -> Order | None:
    """Buys what rises and sells what falls."""
    return _trend(view, 1)


def mean_reversion(view: View) -> Order | None:
    """Buys what fell and sells what rose."""
    return _trend(view, -1)


def _trend(view: View, direction: int) -> Order | None:
    stock = view.stock()
    side = "buy" if view.market.session.change(stock) * direction > 0 else "sell"
    return view.order(view.shares(stock, view.dice.randint(20, 90) * 1000), (side, stock))


def pairs(view: View) -> Order | None:
    """Buys the weaker and sells the stronger of two stocks of a sector, one order each."""
    sector = view.dice.choice([stocks for stocks in SECTORS.values() if len(stocks) > 1])
    pair = sorted(view.dice.sample(sector, 2), key=view.market.session.change)
    side, stock = view.dice.choice((("buy", pair[0]), ("sell", pair[1])))
    return view.order(view.shares(stock, view.dice.randint(10, 60) * 1000), (side, stock))


def tail_hedge(view: View) -> Order | None:
    """Buys puts far below the market."""
    put = view.option(view.stock(), "put", -view.dice.randint(3, 6), view.market.last_expiry)
    return view.order(2 * view.contracts(), ("buy", put))


def collar(view: View) -> Order | None:
    """Buys stock, and a put paid for by a call on it."""
    stock = view.stock()
    lots = view.positions.get(stock, 0) // 100
    if lots < 3 or view.dice.random() < 0.3:
        return view.order(100 * view.dice.randint(1, 4), ("buy", stock))
    return view.order(
        view.dice.randint(1, lots),
        ("buy", view.option(stock, "put", -2, view.market.last_expiry)),
        ("sell", view.option(stock, "call", 2, view.market.last_expiry)),
    )


def straddle(view: View) -> Order | None:
    """Buys a call and a put at the money."""
    stock, expiry = view.stock(), view.expiry()
    return view.order(
        view.dice.randint(1, 5),
        ("buy", view.option(stock, "call", 0, expiry)),
        ("buy", view.option(stock, "put", 0, expiry)),
    )


STRATEGIES: dict[str, Callable[[View], Order | None]] = {
    "iron-condor": iron_condor,
    "put-spread": put_spread,
    "call-spread": call_spread,
    "cash-secured-put": cash_secured_put,
    "covered-call": covered_call,
    "momentum": momentum,
    "mean-reversion": mean_reversion,
    "pairs": pairs,
    "tail-hedge": tail_hedge,
    "collar": collar,
    "straddle": straddle,
}


def next_order(name: str, view: View, *, closes: bool = False) -> Order:
    """What the agent of that name asks for next: its strategy, a closing trade, or a mistake.

    With `closes` it is a closing trade whenever the agent holds anything.
    """
    order = closing_order(view) if closes or view.dice.random() < 0.25 else None
    while order is None:
        order = STRATEGIES[name](view)
    return _with_mistakes(view, order)


def closing_order(view: View) -> Order | None:
    """Closes some of what the agent holds; None where that is nothing."""
    held = sorted(symbol for symbol, quantity in view.positions.items() if quantity)
    if not held:
        return None
    symbol = view.dice.choice(held)
    quantity = view.positions[symbol]
    side = "sell" if quantity > 0 else "buy"
    return view.order(view.dice.randint(1, abs(quantity)), (side, symbol))


def _with_mistakes(view: View, order: Order) -> Order:
    slip = view.dice.random()
    if slip < 0.012:
        return replace(order, quantity=order.quantity * 40)
    if slip < 0.024 and order.price is not None:
        worse = view.dice.uniform(0.12, 0.3) * float(abs(order.price)) + 0.5
        rises = len(order.legs) > 1 or order.legs[0].side == "buy"
        price = round(order.price + Decimal(worse if rises else -worse), 2)
        return replace(order, price=price if len(order.legs) > 1 else max(CENT, price))
    return order
