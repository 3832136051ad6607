"""What a decision looks up: settings, prices and the limits that hold for an order."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from .facts import BASE_CURRENCY, CONCENTRATION, PER_INSTRUMENT, PER_ORDER, PER_UNDERLYING, SWITCHES
from .measures import narrowed

if TYPE_CHECKING:
    from datetime import datetime

    from .facts import Instrument, Leg, LimitKey, LimitVersion, Order, World

NOT_MEASURED = (*PER_ORDER, *SWITCHES)

DEFAULT_SETTINGS = {"max_mark_age": "60", "max_heartbeat_age": "3", "collar_floor": "0.10"}


class Lookup:
    """Answers from a world as it is now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.limits = world.limits_in_force()

    def instrument(self, leg: Leg) -> Instrument:
        return self.world.instruments[leg.symbol]

    def underlyings(self, order: Order) -> set[str]:
        return {self.instrument(leg).underlying for leg in order.legs}

    def has_expired(self, instrument: Instrument) -> bool:
        return instrument.expiry is not None and instrument.expiry < self.world.trading_date

    def age_limit(self, account: str, name: str) -> timedelta | None:
        """The strictest non-zero setting on the chain; None when all are off."""
        ages = [Decimal(value) for value in self.settings(account, name)]
        return min((timedelta(seconds=float(age)) for age in ages if age > 0), default=None)

    def settings(self, account: str, name: str) -> list[str]:
        """A setting's values on the chain and for all, the nearest first, else the default."""
        scopes = [*self.world.chain(account), None]
        values = [self.world.settings[s, name] for s in scopes if (s, name) in self.world.settings]
        return values or [DEFAULT_SETTINGS.get(name, "")]

    def is_fresh(self, account: str, symbol: str) -> bool:
        """Whether a symbol has a mark that passes `max_mark_age`."""
        mark = self.world.marks.get(symbol)
        return mark is not None and self._is_young(account, mark.as_of)

    def has_fresh_rate(self, account: str, currency: str) -> bool:
        """Whether the rate of a currency passes `max_mark_age`."""
        return currency == BASE_CURRENCY or self._is_young(
            account, self.world.rates[currency].as_of
        )

    def _is_young(self, account: str, as_of: datetime) -> bool:
        limit = self.age_limit(account, "max_mark_age")
        return limit is None or -timedelta(seconds=1) <= self.world.now - as_of <= limit

    def reference(self, account: str, leg: Leg) -> Decimal | None:
        """Fresh ask for a buy, bid for a sell, else the mark; None without a mark."""
        mark = self.world.marks.get(leg.symbol)
        if mark is None:
            return None
        quote = mark.ask if leg.side == "buy" else mark.bid
        if quote is not None and self.is_fresh(account, leg.symbol):
            return quote
        return mark.price

    def notional_prices(self, order: Order) -> dict[str, Decimal]:
        """Per leg, the price in base currency that order_notional and traded_notional use."""
        prices = {}
        for leg in order.legs:
            reference = self.reference(order.account, leg)
            if order.is_combo or order.price is None:
                price = reference
            elif leg.side == "buy" or reference is None:
                price = order.price
            else:
                price = max(order.price, reference)
            rate = self.world.rate(self.instrument(leg).currency)
            prices[leg.symbol] = Decimal(0) if price is None else abs(price) * rate
        return prices

    def leg_prices(self, order: Order) -> dict[str, Decimal]:
        """Per leg, what counts as paid or received.

        Legs of a combo stand at their references; the one with the smallest ratio takes the
        difference to the net price, of several multipliers the one where that costs most; of equal
        ones the first by symbol, in whatever order the caller names them.
        """
        if order.price is not None and not order.is_combo:
            return {order.legs[0].symbol: order.price}
        prices = {
            leg.symbol: self.reference(order.account, leg) or Decimal(0) for leg in order.legs
        }
        if order.price is not None:
            net = sum(leg.sign * leg.ratio * prices[leg.symbol] for leg in order.legs)
            difference = order.price - net
            sign = (difference > 0) - (difference < 0)
            leg = min(
                order.legs,
                key=lambda g: (-sign * self.instrument(g).multiplier, g.ratio, g.symbol),
            )
            prices[leg.symbol] += difference / (leg.sign * leg.ratio)
        return prices

    def matching(self, limit_type: str, order: Order) -> list[LimitVersion]:
        """Limits of a type in force on the chain whose dimension holds any leg."""
        chain = self.world.chain(order.account)
        return [
            limit
            for limit in self.limits
            if limit.key.limit_type == limit_type
            and limit.key.scope in chain
            and any(limit.key.matches(self.instrument(leg)) for leg in order.legs)
        ]

    def most_specific(
        self, limit_type: str, order: Order
    ) -> dict[str, list[tuple[Leg, LimitVersion]]]:
        """Per scope of the chain, each leg with the most specific limit that holds for it."""
        found: dict[str, list[tuple[Leg, LimitVersion]]] = {}
        for scope in self.world.chain(order.account):
            for leg in order.legs:
                limits = [
                    limit
                    for limit in self.matching(limit_type, order)
                    if limit.key.scope == scope
                    and limit.key.matches(self.instrument(leg))
                    and (limit.key.is_default or limit_type in PER_ORDER)
                ]
                if limits:
                    limit = max(limits, key=lambda version: version.key.dimension.value)
                    found.setdefault(scope, []).append((leg, limit))
        return found

    def applied(self, order: Order) -> list[tuple[LimitVersion, LimitKey]]:
        """Limits that something uses up, each with the key that it is measured at."""
        found = [
            (limit, narrowed(limit.key, self.instrument(leg)))
            for limit_type in (*PER_INSTRUMENT, *PER_UNDERLYING, CONCENTRATION)
            for limits in self.most_specific(limit_type, order).values()
            for leg, limit in limits
        ]
        return [
            *dict.fromkeys(found),
            *(
                (limit, limit.key)
                for limit in self.limits
                if limit.key.limit_type not in NOT_MEASURED
                and not limit.key.is_default
                and limit in self.matching(limit.key.limit_type, order)
            ),
        ]
