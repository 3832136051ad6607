"""The decision on one order, found by comparing the book without it and the book with it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import gcd, lcm

from .book import ZERO, Book
from .checks import Checks
from .facts import GRAVEST_FIRST, Answer, Order, Violation
from .gates import Gates
from .reducing import is_reducing


class Judge(Gates, Checks):
    """Judges orders against a world as it is now, changing nothing."""

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
        order.leg_prices = self.leg_prices(order)
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
