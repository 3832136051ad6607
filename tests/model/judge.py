"""The decision on one order, found by comparing the book without it and the book with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING

from .book import ZERO, Book, OpenOrder
from .facts import (
    GRAVEST_FIRST,
    PER_INSTRUMENT,
    PER_ORDER,
    SWITCHES,
    Answer,
    Leg,
    LimitVersion,
    Order,
    Violation,
)
from .lookup import Lookup
from .reducing import is_reducing

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_BINDING_REDUCING = ("traded_notional", "open_orders", "open_positions")
SEVERITY = ("ACTIVE", "REDUCE_ONLY", "HALTED")


@dataclass(frozen=True)
class Check:
    """One limit compared: the amounts of each side it binds, without and with the order."""

    limit: LimitVersion
    sides: tuple[tuple[Decimal, Decimal], ...]
    reason: str = "RISK_LIMIT_EXCEEDED"
    binds: bool = True

    @property
    def amount(self) -> Decimal:
        assert self.limit.amount is not None
        return self.limit.amount

    @property
    def fails(self) -> bool:
        return self.binds and any(
            projected > self.amount and projected > current for current, projected in self.sides
        )

    @property
    def warns(self) -> bool:
        if self.limit.key.limit_type in SWITCHES or self.fails:
            return False
        highest = max(projected for _, projected in self.sides)
        return highest > 0 and highest * 100 >= self.limit.warn_pct * self.amount


class Judge(Lookup):
    """Judges orders against a world as it is now, changing nothing."""

    # -- answers ---------------------------------------------------------------------------

    def answer(self, order: Order) -> Answer:
        """The decision on `order`, with everything that a caller is told."""
        violations, warnings = self.findings(order)
        if not violations:
            return Answer("ACCEPTED", None, order.quantity, violations, warnings)
        reasons = {violation.reason for violation in violations}
        gravest = next(reason for reason in GRAVEST_FIRST if reason in reasons)
        return Answer("REJECTED", gravest, self.allowed(order), violations, warnings)

    def allowed(self, order: Order) -> Decimal:
        """The largest multiple of the step, up to the quantity, that is not refused."""
        step = self.step(order)
        filled = (order.filled_before.get(leg.symbol, ZERO) / leg.ratio for leg in order.legs)
        low = int(max(filled) // step)
        floor, high = low, int(order.quantity // step)
        while low < high:
            middle = (low + high + 1) // 2
            smaller = replace(order, quantity=middle * step)
            if self.findings(smaller, asked=order)[0]:
                high = middle - 1
            else:
                low = middle
        return ZERO if low == floor else low * step

    def step(self, order: Order) -> Decimal:
        """The smallest quantity, with no more decimals than the lots, that puts legs on lots."""
        units = []
        for leg in order.legs:
            lot = self.instrument(leg).lot.normalize()
            scale = 10 ** max(0, -int(lot.as_tuple().exponent))
            whole = int(lot * scale)
            units.append(Fraction(whole // gcd(whole, int(leg.ratio)), scale))
        step = Fraction(lcm(*(u.numerator for u in units)), gcd(*(u.denominator for u in units)))
        return Decimal(step.numerator) / Decimal(step.denominator)

    def findings(
        self, order: Order, asked: Order | None = None
    ) -> tuple[frozenset[Violation], frozenset[tuple[str, str, str]]]:
        """Every reason to refuse `order` and every warning; `asked` is what the caller sent."""
        halts = list(self._states(order, "HALTED"))
        if self._is_harmless_replace(order):
            return frozenset(halts), frozenset()
        order.notional_prices = self.notional_prices(order)
        before = Book(self.world, self.world.orders)
        after = Book(self.world, [*self.world.orders, order])
        reducing = is_reducing(order, before, after)
        checks = list(self._checks(order, before, after, reducing, asked or order))
        violations = {
            *(halts or ([] if reducing else self._states(order, "REDUCE_ONLY"))),
            *self._statuses(order, before, after, reducing),
            *self._missing_limits(order),
            *self._freshness(order, reducing),
            *self._references(order),
            *self._collars(order),
            *(
                Violation(
                    check.reason,
                    check.limit.key.limit_type,
                    check.limit.key.scope,
                    check.limit.key.dimension_text,
                )
                for check in checks
                if check.fails
            ),
        }
        warnings = {
            (check.limit.key.limit_type, check.limit.key.scope, check.limit.key.dimension_text)
            for check in checks
            if check.warns
        }
        return frozenset(violations), frozenset(warnings)

    # -- checks that are no limits ---------------------------------------------------------

    def _is_harmless_replace(self, order: Order) -> bool:
        """A replace for no more at no worse a price; only a halt refuses it."""
        old = order.replaces
        if old is None or order.quantity > old.quantity:
            return False
        if order.price is None or old.price is None:
            return order.price is None and old.price is None
        if order.is_combo or order.legs[0].side == "buy":
            return order.price <= old.price
        return order.price >= old.price

    def states(self, order: Order) -> dict[tuple[str, str | None], str]:
        """Trading states on the chain, for all underlyings or one of the order's."""
        chain = self.world.chain(order.account)
        return {
            (scope, underlying): state
            for (scope, underlying), state in self.world.states.items()
            if scope in chain and (underlying is None or underlying in self.underlyings(order))
        }

    def _states(self, order: Order, wanted: str) -> Iterator[Violation]:
        reason = "TRADING_HALTED" if wanted == "HALTED" else wanted
        for (scope, underlying), state in self.states(order).items():
            if state == wanted:
                dimension = "all" if underlying is None else f"underlying:{underlying}"
                yield Violation(reason, None, scope, dimension)

    def _statuses(
        self, order: Order, before: Book, after: Book, reducing: bool
    ) -> Iterator[Violation]:
        for leg in order.legs:
            dimension = f"instrument:{leg.symbol}"
            key = order.account, leg.symbol
            status = self.world.statuses.get(leg.symbol, "ACTIVE")
            sold = after.open_sell[key] > before.open_sell[key]
            new_short = sold and after.open_sell[key] > before.position[key]
            if (
                status == "BLOCKED"
                or (status == "RESTRICTED" and not reducing)
                or (status == "NO_NEW_SHORTS" and new_short)
            ):
                yield Violation("RESTRICTED_INSTRUMENT", dimension=dimension)
            if self.has_expired(self.instrument(leg)):
                yield Violation("INSTRUMENT_EXPIRED", dimension=dimension)

    def _missing_limits(self, order: Order) -> Iterator[Violation]:
        required = {"net_position"}
        for value in self.settings(order.account, "required_limit_types"):
            required |= {name.strip() for name in value.split(",") if name.strip()}
        chain = self.world.chain(order.account)
        for limit_type in required:
            for leg in order.legs:
                if not any(
                    limit.key.limit_type == limit_type
                    and limit.key.scope in chain
                    and limit.key.matches(self.instrument(leg))
                    for limit in self.limits
                ):
                    dimension = f"instrument:{leg.symbol}"
                    yield Violation("CONFIG_NOT_FOUND", limit_type, order.account, dimension)

    def _freshness(self, order: Order, reducing: bool) -> Iterator[Violation]:
        if reducing:
            return
        for leg in order.legs:
            needed = {leg.symbol}
            if self.age_limit(order.account, "max_mark_age") is not None:
                needed.add(self.instrument(leg).underlying)
            for symbol in needed:
                if not self.is_fresh(order.account, symbol):
                    yield Violation("STALE_DATA", dimension=f"instrument:{symbol}")

    def _references(self, order: Order) -> Iterator[Violation]:
        priced = [
            *self.matching("order_notional", order),
            *self.matching("traded_notional", order),
        ]
        collared = self.matching("price_collar_pct", order)
        for leg in order.legs:
            needed = (
                order.price is None
                or (priced and (order.is_combo or leg.side == "sell"))
                or collared
            )
            if needed and self.reference(order.account, leg) is None:
                dimension = f"instrument:{leg.symbol}"
                yield Violation("REFERENCE_PRICE_UNAVAILABLE", dimension=dimension)

    def _collars(self, order: Order) -> Iterator[Violation]:
        references = [self.reference(order.account, leg) for leg in order.legs]
        if order.price is None or None in references:
            return
        buys = order.is_combo or order.legs[0].side == "buy"
        reference = ZERO
        floor = ZERO
        for leg, price in zip(order.legs, references, strict=True):
            assert price is not None
            reference += (leg.sign if order.is_combo else 1) * leg.ratio * price
            if self.instrument(leg).kind == "option":
                floor += leg.ratio * Decimal(self.settings(order.account, "collar_floor")[0])
        for limits in self.most_specific("price_collar_pct", order).values():
            limit = min((version for _, version in limits), key=lambda v: v.amount or ZERO)
            assert limit.amount is not None
            tolerance = max(limit.amount / 100 * abs(reference), floor)
            beyond = order.price - reference if buys else reference - order.price
            if beyond > tolerance:
                key = limit.key
                yield Violation("PRICE_OUT_OF_BAND", key.limit_type, key.scope, key.dimension_text)

    # -- limits ----------------------------------------------------------------------------

    def _checks(
        self, order: Order, before: Book, after: Book, reducing: bool, asked: Order
    ) -> Iterator[Check]:
        yield from self._order_size(order)
        for limit_type in PER_INSTRUMENT:
            for limits in self.most_specific(limit_type, order).values():
                for leg, limit in limits:
                    yield Check(limit, self._sides(limit, leg.symbol, before, after))
        for limit in self.limits:
            key = limit.key
            if key.limit_type in (*PER_ORDER, *PER_INSTRUMENT, *SWITCHES):
                continue
            if limit in self.matching(key.limit_type, order):
                if key.limit_type == "gross_notional" and not self._can_value(limit, order, after):
                    continue  # refused as STALE_DATA
                current, projected = before.measure(key), after.measure(key)
                rate = key.limit_type.startswith("order_rate")
                reason = "RATE_LIMIT_EXCEEDED" if rate else "RISK_LIMIT_EXCEEDED"
                binds = not (reducing and key.limit_type in NOT_BINDING_REDUCING)
                yield Check(limit, ((current, projected),), reason, binds)
        yield from self._duplicates(asked)
        yield from self._crosses(order, before)

    def _can_value(self, limit: LimitVersion, order: Order, after: Book) -> bool:
        """Whether every leg that the limit holds has a mark, or is carried at a price."""
        return all(
            after.unit_value(order.account, leg.symbol) is not None
            for leg in order.legs
            if limit.key.matches(self.instrument(leg))
        )

    def _order_size(self, order: Order) -> Iterator[Check]:
        notional = sum(
            (
                order.quantity
                * leg.ratio
                * self.instrument(leg).multiplier
                * order.notional_prices[leg.symbol]
                for leg in order.legs
            ),
            ZERO,
        )
        nothing = Decimal(-1)
        for limits in self.most_specific("order_quantity", order).values():
            for leg, limit in limits:
                yield Check(limit, ((nothing, order.quantity * leg.ratio),))
        for limits in self.most_specific("order_notional", order).values():
            for _, limit in limits:
                yield Check(limit, ((nothing, notional),))

    @staticmethod
    def _sides(
        limit: LimitVersion, symbol: str, before: Book, after: Book
    ) -> tuple[tuple[Decimal, Decimal], ...]:
        long_before, short_before = before.sides(limit.key.scope, symbol)
        long_after, short_after = after.sides(limit.key.scope, symbol)
        long, short = (long_before, long_after), (short_before, short_after)
        return {
            "net_position": (long, short),
            "long_position": (long,),
            "short_position": (short,),
        }[limit.key.limit_type]

    def _duplicates(self, order: Order) -> Iterator[Check]:
        if order.replaces is not None:
            return
        for limit in self.matching("duplicate_window", order):
            assert limit.amount is not None
            since = self.world.now - timedelta(seconds=float(limit.amount))
            repeated = any(
                earlier.was_accepted
                and since < earlier.decided_at <= self.world.now
                and (earlier.account, frozenset(earlier.legs), earlier.quantity, earlier.price)
                == (order.account, frozenset(order.legs), order.quantity, order.price)
                for earlier in self.world.orders
            )
            if repeated:
                yield Check(limit, ((ZERO, limit.amount + 1),), "DUPLICATE_ORDER")

    def _crosses(self, order: Order, before: Book) -> Iterator[Check]:
        for limit in self.matching("self_cross", order):
            accounts = before.accounts(limit.key.scope)
            crosses = any(
                working.order.account in accounts
                and working.order.agent != order.agent
                and any(
                    self._could_trade(leg, order, other, version, working)
                    for leg in order.legs
                    for version in working.versions
                    for other in version.legs
                )
                for working in before.open_orders
            )
            if limit.amount == 1 and crosses:
                yield Check(limit, ((ZERO, Decimal(2)),), "SELF_CROSS")

    @staticmethod
    def _could_trade(
        leg: Leg, order: Order, other: Leg, version: Order, working: OpenOrder
    ) -> bool:
        if leg.symbol != other.symbol or leg.side == other.side:
            return False
        if working.open_quantity[other.symbol] <= 0:
            return False
        if None in (order.price, version.price) or order.is_combo or version.is_combo:
            return True
        assert order.price is not None
        assert version.price is not None
        return (order.price - version.price) * leg.sign >= 0
