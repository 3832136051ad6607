"""The heartbeat tells when what breakers go by is too old: then only reducing orders pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2098, 1, 6, 15, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Desk:
    """A firm whose A1 holds AAPL and a call on it, at a clock that only moves when told."""

    def __init__(self, db: Database, firm: Caller) -> None:
        self.db, self.firm = db, firm
        self.epoch = firm.value("select risk_private.take_lease('one', '{}')")
        self.firm.hold("A1", "AAPL", 10)
        self.firm.hold("A1", "AAPL C100", 1)
        self.firm.call("open_day", day=NOW.date())
        self.firm.call("set_setting", name="max_mark_age", value="60")
        self.firm.call("set_setting", name="max_heartbeat_age", value="3")

    def define(self, condition: str, **rest: Any) -> None:
        arguments = {"scope": "F", "threshold": 90, "action": "HALT"} | rest
        if "parameters" in arguments:
            arguments["parameters"] = Jsonb(arguments["parameters"])
        self.firm.call("define_breaker", name=condition, condition=condition, **arguments)

    def after(self, seconds: float) -> datetime | None:
        """The data time that a heartbeat tells so long after the marks; None: all is fresh."""
        now = NOW + seconds * SECOND
        self.db.set_clock(now)
        found = self.firm.value("select risk_private.inputs_as_of(%s)", self.evaluate())
        return None if found == now else found

    def evaluate(self) -> datetime:
        """Let positions follow marks and evaluate every breaker; when that was."""
        self.firm.call("revalue")
        self.firm.rows("select risk_private.evaluate(%s)", self.epoch)
        at: datetime = self.firm.value("select beat_at from risk_private.heartbeat")
        return at

    def misses(self) -> bool:
        """Whether the heartbeat tells that an input is missing altogether."""
        self.evaluate()
        query = "select inputs_as_of = '-infinity' from risk_private.heartbeat"
        return bool(self.firm.value(query))

    def reason(self) -> str | None:
        self.evaluate()
        assert self.firm.check("A1", self.firm.new_name(), "MSFT", "sell", 1, 50).is_accepted
        return self.firm.check("B1", self.firm.new_name(), "MSFT", "buy", 1, 50).reason


@pytest.fixture
def desk(db: Database) -> Iterator[Desk]:
    db.set_clock(NOW)
    with open_firm(db) as firm:
        desk = Desk(db, firm)
        firm.hold("A1", "MSFT", 10)
        yield desk


def test_without_breakers_nothing_is_needed(desk: Desk) -> None:
    assert desk.after(3600) is None


@pytest.mark.parametrize("condition", ["daily_loss", "drawdown", "limit_breach"])
def test_marks_of_what_is_held_are_needed_to_value_it(desk: Desk, condition: str) -> None:
    desk.define(condition)
    assert desk.after(60) is None
    assert desk.after(60.5) == NOW
    desk.firm.mark({"AAPL": 100, "MSFT": 50})
    assert desk.after(61) == NOW  # the call
    desk.firm.mark({"AAPL C100": 5})
    assert desk.after(62) is None  # nobody holds the rest


def test_an_old_mark_lets_only_reducing_orders_pass_everywhere(desk: Desk) -> None:
    desk.define("drawdown", scope="A1")
    assert desk.reason() is None
    desk.after(61)
    desk.firm.mark({"MSFT": 50})
    assert desk.reason() == "STALE_DATA"
    desk.firm.mark({"AAPL": 100, "AAPL C100": 5})
    assert desk.reason() is None


@pytest.mark.parametrize(
    "rest", [{"action": "NOTIFY"}, {"scope": "D2"}, {"scope": "F", "underlying": "XOM"}]
)
def test_what_no_breaker_with_an_action_needs_may_be_old(desk: Desk, rest: dict[str, Any]) -> None:
    desk.define("limit_breach" if "underlying" in rest else "daily_loss", **rest)
    assert desk.after(61) is None


def test_what_has_no_mark_at_all_is_missing(desk: Desk) -> None:
    desk.define("daily_loss")
    desk.firm.rows(
        """delete from risk_private.marks as m using risk_private.instruments as i
           where i.instrument_id = m.instrument_id and i.symbol = 'MSFT'"""
    )
    assert desk.misses()


def test_each_account_has_its_own_age(desk: Desk) -> None:
    desk.define("daily_loss")
    desk.firm.call("set_setting", name="max_mark_age", value="5", scope="B1")
    assert desk.after(6) is None
    desk.firm.hold("B1", "XOM", 1)
    assert desk.after(6) == NOW
    desk.firm.call("set_setting", name="max_mark_age", value="0", scope="B1")
    desk.firm.call("set_setting", name="max_mark_age", value="0")
    assert desk.after(3600) is None


def test_indicators_are_needed_by_the_breakers_that_watch_them(desk: Desk) -> None:
    desk.define("volatility_level", scope="D1", parameters={"indicator": "VIX"})
    assert desk.misses()
    desk.firm.call("set_indicator", name="VIX", value=20)
    assert desk.after(60) is None
    assert desk.after(60.5) == NOW
    assert desk.reason() == "STALE_DATA"
    desk.firm.call("set_setting", name="max_indicator_age", value="120")
    assert desk.after(61) is None
    desk.firm.call("set_setting", name="max_indicator_age", value="30", scope="D2")
    assert desk.after(61) is None
    desk.firm.call("set_setting", name="max_indicator_age", value="30", scope="D1")
    assert desk.after(61) == NOW
    desk.firm.call("set_setting", name="max_indicator_age", value="0", scope="D1")
    desk.firm.call("set_setting", name="max_indicator_age", value="0")
    assert desk.after(3600) is None


def test_a_mark_that_a_breaker_watches_is_needed_whoever_holds_it(desk: Desk) -> None:
    desk.define("price_move", parameters={"symbol": "XOM"})
    assert desk.after(60) is None
    assert desk.after(61) == NOW
    desk.firm.mark({"XOM": 80})
    assert desk.after(61) is None


@pytest.mark.parametrize("condition", ["daily_loss", "drawdown"])
def test_an_equity_that_is_not_known_is_missing(desk: Desk, condition: str) -> None:
    """The breaker could not see a loss."""
    desk.define(condition, scope="D1")
    assert desk.reason() is None
    desk.firm.rows(
        """update risk_private.equities as e set unknown = e.unknown + 1
           from risk_private.scopes as s where s.scope_id = e.scope_id and s.code = 'D1'"""
    )
    assert desk.misses()
    assert desk.reason() == "STALE_DATA"
    desk.firm.call("trip_breaker", name=condition, reason="nobody knows")
    assert not desk.misses(), "its action is in force"


def test_a_day_that_was_never_opened_is_missing(db: Database) -> None:
    db.set_clock(NOW)
    with open_firm(db) as firm:
        epoch = firm.value("select risk_private.take_lease('one', '{}')")
        query = "select inputs_as_of = '-infinity' from risk_private.heartbeat"
        for action, is_missing in (("NOTIFY", False), ("HALT", True)):
            firm.call("define_breaker", name="b", scope="F", condition="daily_loss", threshold=3,
                      action=action)  # fmt: skip
            firm.rows("select risk_private.evaluate(%s)", epoch)
            assert firm.value(query) is is_missing
        firm.call("open_day", day=NOW.date())
        firm.rows("select risk_private.evaluate(%s)", epoch)
        assert firm.value(query) is False


def test_rates_of_the_money_that_is_there_are_needed_to_value_it(desk: Desk) -> None:
    desk.firm.call("set_fx", currency="EUR", rate=1)
    desk.define("daily_loss", scope="D2")
    assert desk.after(61) is None, "nobody has euros"
    desk.firm.call("post_cash", account="B1", amount=100, currency="EUR", reason="deposit")
    assert desk.after(60) is None
    assert desk.after(61) == NOW
    desk.firm.call("set_fx", currency="EUR", rate=1)
    assert desk.after(61) is None
    assert desk.after(122) == NOW + 61 * SECOND
    desk.firm.call("set_setting", name="max_mark_age", value="0")
    assert desk.after(122) is None
