"""Every reason for a refusal and every error, what comes first, and what always gets through."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.orders import Answer, Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

NOW = datetime(2098, 1, 5, 15, 0, tzinfo=UTC)
NAMED = """
  select distinct m[1] as name from pg_proc as p
  cross join concat(p.prosrc, pg_get_function_sqlbody(p.oid)) as s (source)
  cross join regexp_matches(s.source, %s, 'g') as m
  where p.pronamespace in ('risk'::regnamespace, 'risk_private'::regnamespace)
    and p.proname <> 'gravity'"""


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        stock = {"symbol": "NEW", "kind": "stock"}
        gone = {"symbol": "GONE", "kind": "future", "expiry": "2097-12-31"}
        caller.call("upsert_instruments", instruments=Jsonb([stock, gone]))
        caller.mark({"GONE": 10})
        yield caller
        assert caller.differences() == []


def buy(
    firm: Caller, symbol: str = "AAPL", price: int | None = 100, name: str | None = None
) -> Answer:
    return firm.check("A1", name or firm.new_name(), symbol, "buy", 10, price)


def state(firm: Caller, value: str, **rest: Any) -> None:
    firm.call("set_trading_state", scope="D1", state=value, reason="a test", **rest)


def status(firm: Caller, symbol: str, value: str) -> None:
    firm.call("set_instrument_status", symbol=symbol, status=value, reason="a test")


def halted(firm: Caller) -> Answer:
    state(firm, "HALTED")
    return buy(firm)


def restricted(firm: Caller) -> Answer:
    status(firm, "AAPL", "BLOCKED")
    return buy(firm)


def unconfigured(firm: Caller) -> Answer:
    firm.call("remove_limit", scope="F", limit_type="net_position")
    return buy(firm)


def out_of_band(firm: Caller) -> Answer:
    firm.limit("F", "price_collar_pct", 1)
    return buy(firm, price=102)


def duplicate(firm: Caller) -> Answer:
    firm.limit("F", "duplicate_window", 1)
    buy(firm)
    return buy(firm)


def crossing(firm: Caller) -> Answer:
    firm.limit("F", "self_cross", 1)
    firm.check("A2", "1", "AAPL", "sell", 1, 90, agent="other")
    return buy(firm)


def too_fast(firm: Caller) -> Answer:
    firm.limit("F", "order_rate", 0)
    return buy(firm)


def reduce_only(firm: Caller) -> Answer:
    state(firm, "REDUCE_ONLY")
    return buy(firm)


def too_large(firm: Caller) -> Answer:
    firm.limit("F", "order_quantity", 9)
    return buy(firm)


def tripped(firm: Caller) -> Answer:
    firm.call(
        "define_breaker",
        name="rate",
        scope="D1",
        condition="order_rate",
        threshold=10**6,
        action="HALT",
    )
    firm.call("trip_breaker", name="rate", reason="a test")
    return buy(firm)


# Gravest first.
REASONS: dict[str, Callable[[Caller], Answer]] = {
    "TRADING_HALTED": halted,
    "CIRCUIT_BREAKER_TRIPPED": tripped,
    "RESTRICTED_INSTRUMENT": restricted,
    "INSTRUMENT_EXPIRED": lambda firm: buy(firm, "GONE"),
    "CONFIG_NOT_FOUND": unconfigured,
    "STALE_DATA": lambda firm: buy(firm, "NEW"),
    "REFERENCE_PRICE_UNAVAILABLE": lambda firm: buy(firm, "NEW", None),
    "PRICE_OUT_OF_BAND": out_of_band,
    "DUPLICATE_ORDER": duplicate,
    "SELF_CROSS": crossing,
    "RATE_LIMIT_EXCEEDED": too_fast,
    "REDUCE_ONLY": reduce_only,
    "RISK_LIMIT_EXCEEDED": too_large,
}


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason(firm: Caller, reason: str) -> None:
    answer = REASONS[reason](firm)
    assert answer.decision == "REJECTED"
    assert reason in answer.reasons
    assert answer.allowed_quantity == (9 if reason == "RISK_LIMIT_EXCEEDED" else 0)


def test_every_reason_that_the_engine_names_is_tried(firm: Caller) -> None:
    ranked = firm.value(
        "select substring(pg_get_function_sqlbody('risk_private.gravity'::regproc) from '.*')"
    )
    names = {row["name"] for row in firm.rows(NAMED, "'([A-Z]+_[A-Z_]+)'")}
    types = {row["reason"] for row in firm.rows("select reason from risk_private.limit_types")}
    assert {name for name in names | types if f"'{name}'" in ranked} == set(REASONS)


def test_every_error_that_the_engine_names_is_tried(firm: Caller) -> None:
    assert {row["name"] for row in firm.rows(NAMED, "'(RK[0-9]{3}|25001)'")} == set(ERRORS)


def test_the_gravest_reason_is_the_answer_and_all_are_told(firm: Caller) -> None:
    firm.limit("F", "self_cross", 1)
    firm.limit("F", "duplicate_window", 60)
    firm.check("A2", "1", "XOM", "sell", 1, 80, agent="other")
    buy(firm, "AAPL", 100, "first")
    for set_up in (too_large, too_fast, out_of_band, unconfigured):
        set_up(firm)
    state(firm, "REDUCE_ONLY")
    answers = [firm.check("A1", "2", "XOM", "buy", 10, 102, agent="a")]
    status(firm, "XOM", "BLOCKED")
    answers.append(firm.check("A1", "3", "XOM", "buy", 10, 102, agent="a"))
    state(firm, "HALTED")
    answers.append(firm.check("A1", "4", "XOM", "buy", 10, 102, agent="a"))
    assert [answer.reason for answer in answers] == [
        "CONFIG_NOT_FOUND",
        "RESTRICTED_INSTRUMENT",
        "TRADING_HALTED",
    ]
    ranks = list(REASONS)
    for answer in answers:
        told = [ranks.index(violation["reason"]) for violation in answer.violations]
        assert told == sorted(told)
    assert answers[1].reasons == {
        *("RESTRICTED_INSTRUMENT", "CONFIG_NOT_FOUND", "PRICE_OUT_OF_BAND", "SELF_CROSS"),
        *("RATE_LIMIT_EXCEEDED", "REDUCE_ONLY", "RISK_LIMIT_EXCEEDED"),
    }


# -- errors ------------------------------------------------------------------------------------


def malformed(db: Database, firm: Caller) -> None:
    firm.check("A1", "1", "AAPL", "buy", 0)


def forbidden(db: Database, firm: Caller) -> None:
    with db.connect(db.create_user("ann", "risk_trader")) as connection:
        Caller(connection).check("A1", "1", "AAPL", "buy", 1)


def unknown(db: Database, firm: Caller) -> None:
    firm.check("Z9", "1", "AAPL", "buy", 1)


def conflicting(db: Database, firm: Caller) -> None:
    buy(firm, name="1")
    buy(firm, name="1", price=99)


def broken(db: Database, firm: Caller) -> None:
    """A counter is lost, and cannot be made again."""
    firm.rows(
        """create function pg_temp.refuse() returns trigger language plpgsql
             as 'begin return null; end';
           create trigger refuse before insert on risk_private.counters
             for each row execute function pg_temp.refuse()"""
    )
    firm.combo("A1", "1", "buy 1 AAPL", 1, 100)


def isolated(db: Database, firm: Caller) -> None:
    with db.connect() as connection:
        connection.execute("set default_transaction_isolation = 'serializable'")
        Caller(connection).check("A1", "1", "AAPL", "buy", 1)


ERRORS: dict[str, Callable[[Database, Caller], None]] = {
    "RK400": malformed,
    "RK403": forbidden,
    "RK404": unknown,
    "RK409": conflicting,
    "RK500": broken,
    "25001": isolated,
}


@pytest.mark.parametrize("code", ERRORS)
def test_every_error(db: Database, firm: Caller, code: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        ERRORS[code](db, firm)
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_primary
    orders = firm.value("select count(*) from risk.orders where client_order_id = '1'")
    assert orders == (1 if code == "RK409" else 0)
