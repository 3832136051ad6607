"""A desk with circuit breakers, and a clock that only moves when told."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, Number, Row, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

START = datetime(2091, 3, 5, 14, 30, tzinfo=UTC)


class Desk:
    """A firm with a clock that only moves when told, and breakers on the VIX."""

    def __init__(self, db: Database, firm: Caller) -> None:
        self.db, self.firm, self.now = db, firm, START
        db.set_clock(START)

    def wait(self, seconds: float = 1) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)
        self.db.set_clock(self.now)

    def define(self, name: str = "vix", threshold: Number | None = 40, **rest: Any) -> None:
        """Define a breaker, by default one that halts the firm when the VIX reaches 40."""
        sensible = {"scope": "F", "condition": "volatility_level", "action": "HALT"}
        if "parameters" in rest:
            rest["parameters"] = Jsonb(rest["parameters"])
        self.firm.call("define_breaker", name=name, threshold=threshold, **sensible | rest)

    def vix(self, value: float, sweeps: bool = True) -> int:
        """Tell the VIX a second later; how many breakers that trips."""
        self.wait()
        self.firm.call("set_indicator", name="VIX", value=value)
        return self.sweep() if sweeps else 0

    def sweep(self) -> int:
        """Evaluate all breakers; how many tripped."""
        tripped: int = self.firm.value("select risk_private.evaluate_breakers()")
        return tripped

    def trip(self, name: str = "vix") -> None:
        self.firm.call("trip_breaker", name=name, reason="a test")

    def reset(self, name: str = "vix") -> None:
        self.firm.call("reset_breaker", name=name, reason="a test")

    def breaker(self, name: str = "vix") -> Row:
        (row,) = self.firm.rows("select * from risk.breakers where name = %s", name)
        return row

    def state(self, name: str = "vix") -> str:
        state: str = self.breaker(name)["state"]
        return state

    def events(self, name: str = "vix") -> list[str]:
        query = "select event from risk.breaker_events where breaker = %s order by event_id"
        return [row["event"] for row in self.firm.rows(query, name)]

    def refusal(self, procedure: str, **arguments: Any) -> tuple[str | None, str]:
        """Code of the error, and the argument that it is about."""
        with pytest.raises(psycopg.Error) as caught:
            self.firm.call(procedure, **arguments)
        return caught.value.sqlstate, (caught.value.diag.message_detail or "").partition(",")[0]

    def buy(self, account: str = "A1", symbol: str = "AAPL", quantity: Number = 1) -> str:
        """Decision on a new order, or the reason of its rejection."""
        name = self.firm.new_name()
        answer = self.firm.check(account, name, symbol, "buy", quantity, 100)
        return answer.reason or answer.decision


@contextmanager
def open_desk(database: Database) -> Iterator[Desk]:
    """The small firm, with the superuser, its clock standing still."""
    with open_firm(database) as firm:
        yield Desk(database, firm)
