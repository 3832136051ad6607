"""A plain-Python oracle of the decision engine.

It is written from the definitions in the most obvious way and shares nothing with the SQL:
no counters are kept, every amount is recomputed from all orders and executions, and the
allowed quantity is found by judging again.
"""

from __future__ import annotations

from .book import Book
from .facts import (
    BASE_CURRENCY,
    Answer,
    Dimension,
    Greeks,
    Instrument,
    Leg,
    LimitKey,
    LimitVersion,
    Mark,
    Order,
    RiskError,
    Scope,
    Violation,
    World,
)
from .judge import Judge
from .money import rounded
from .oracle import Oracle
from .views import PnlRow

__all__ = [
    "BASE_CURRENCY",
    "Answer",
    "Book",
    "Dimension",
    "Greeks",
    "Instrument",
    "Judge",
    "Leg",
    "LimitKey",
    "LimitVersion",
    "Mark",
    "Oracle",
    "Order",
    "PnlRow",
    "RiskError",
    "Scope",
    "Violation",
    "World",
    "rounded",
]
