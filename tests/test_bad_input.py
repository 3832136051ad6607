"""Malformed values in every argument of every public routine: clear errors, nothing left behind."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.databases import TEST_MAJOR
from tests.orders import Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

Arguments = dict[str, str | None]

INJECTION = "'; drop table risk_private.orders; --"
ODD = 'ünï ✗ $$ %s " \\'
TEXTS = (None, "", " ", "x" * 100_000, "tab\there", "bell\x07", "two\nlines", INJECTION, ODD)
NUMBERS = (None, "NaN", "Infinity", "-Infinity", "0", "-1", "1e400", "-1e400", "1e-20", "0.3")
ARRAYS = (None, "{}", "{NULL}", "{NaN}", "{Infinity}", "{-Infinity}", "{1,2}", "{{1}}")
JSONS = (None, "null", "{}", "[]", "[null]", "[[]]", '"x"', "1", '{"x": 1}', '[{"x": 1}]')
VALUES: dict[str, tuple[str | None, ...]] = {
    "text": TEXTS,
    "name": (None, "", "nobody at all", INJECTION),
    "numeric": NUMBERS,
    "double precision": (None, "NaN", "Infinity", "-Infinity", "-11", "1e300"),
    "jsonb": JSONS,
    "boolean": (None,),
    "date": (None, "infinity", "-infinity"),
    "timestamp with time zone": (None, "infinity", "-infinity"),
    "text[]": (None, "{}", "{NULL}", "{no such}", "{{AAPL}}", "{AAPL,AAPL}"),
    "numeric[]": (*ARRAYS, "{0}", "{-1}", "{1e400}"),
    "double precision[]": ARRAYS,
    "date[]": (None, "{}", "{NULL}", "{infinity}", "{2999-01-01}", "{2026-01-02,2026-01-02}"),
    "bigint[]": (),
    # PostgreSQL has infinite intervals from 17 on.
    "interval": (None, "-1 second", *(["infinity", "-infinity"] if TEST_MAJOR > 16 else [])),
}
LEGS = '[{"symbol": "AAPL", "side": "buy"}, {"symbol": "XOM", "side": "sell"}]'
ORDER: Arguments = {
    "account": "A1",
    "symbol": "AAPL",
    "side": "buy",
    "quantity": "10",
    "price": "100",
}
FRESH = "a fresh id"
EXECUTION = "the exec_id of a new fill"
BREAKER = "the name of an armed breaker"
TRIPPED = "the name of a tripped breaker"
LIVE = "the id of a fresh order"
NEW: Arguments = {"client_order_id": FRESH}
OPEN: Arguments = {"account": "A1", "client_order_id": LIVE}
KEY: Arguments = {"scope": "D1", "limit_type": "gross_notional"}
ASIDE: Arguments = {"symbol": None, "underlying": None, "sector": None}
REST: Arguments = {"agent": None, "time_in_force": "GTC"}
TRADE: Arguments = {"exec_id": FRESH, "fee": "1", "executed_at": None}
OPTION: Arguments = {"kind": "call", "spot": "100", "strike": "90", "years": "0.5"}
CARRY: Arguments = {"rate": "0.03", "dividend": "0.01"}
GREEKS = ("bids", "asks", "ivs", "deltas", "gammas", "vegas", "thetas", "rhos")
# A call of each routine that would be answered.
BASE: dict[str, Arguments] = {
    "check_order": ORDER | NEW | REST,
    "check_combo": NEW | REST | {"account": "A1", "legs": LEGS, "quantity": "1", "price": "20"},
    "check_orders": {"orders": json.dumps([ORDER | NEW])},
    "replace_order": OPEN | {"new_client_order_id": FRESH, "quantity": "12", "price": "101"},
    "confirm_replace": {"account": "A1", "new_client_order_id": "newer"},
    "reject_replace": {"account": "A1", "new_client_order_id": "newer"},
    "preview_order": ORDER | {"agent": None},
    "preview_combo": {"account": "A1", "legs": LEGS, "quantity": "1", "price": "1", "agent": None},
    "record_fill": OPEN | TRADE | {"quantity": "1", "price": "99", "symbol": "AAPL"},
    "record_trade": ORDER | TRADE | {"kind": "transfer"},
    "ack_order": OPEN | {"broker_order_id": None},
    "release_order": OPEN | {"reason": "expired"},
    "dispatch_order": OPEN,
    "cancel_orders": {"scope": "A1", "reason": "why", "underlying": None, "agent": None},
    "set_marks": {"symbols": "{XOM}", "prices": "{80}", "as_of": None, **dict.fromkeys(GREEKS)},
    "remark_underlying": {"symbol": "AAPL", "price": "100", "as_of": None}
    | {"bid": None, "ask": None},
    "load_closes": {"symbols": "{XOM}", "days": "{2026-01-02}", "closes": "{80}"},
    "refresh_views": {},
    "bust_fill": {"account": "A1", "exec_id": EXECUTION, "reason": "why"},
    "correct_fill": {
        "account": "A1",
        "exec_id": EXECUTION,
        "quantity": "2",
        "price": "98",
        "reason": "why",
    },
    "set_fx": {"currency": "EUR", "rate": "1.1", "as_of": None},
    "post_cash": {"account": "A1", "amount": "5", "reason": "dividend"}
    | {"currency": None, "reference": None},
    "set_indicator": {"name": "VIX", "value": "20", "as_of": None},
    "load_position_limits": {
        "limits": '{"tiers": {"25k": "25000"}, "underlyings": {"XOM": "25k"}}'
    },
    "apply_position_limits": {"scope": "D1", "reason": None},
    "define_breaker": {
        "name": FRESH,
        "scope": "D1",
        "condition": "volatility_level",
        "threshold": "40",
        "action": "HALT",
        "parameters": '{"indicator": "VIX"}',
        "underlying": None,
        "cooldown": "1 minute",
        "reset_policy": "timer",
        "reason": None,
    },
    "remove_breaker": {"name": BREAKER, "reason": "why"},
    "trip_breaker": {"name": BREAKER, "reason": "why"},
    "reset_breaker": {"name": TRIPPED, "reason": "why"},
    "adjust_instrument": {
        "symbol": "XOM",
        "reference": FRESH,
        "reason": "why",
        "new_shares": "2",
        "old_shares": "1",
        "strike_change": "0",
        "new_symbols": None,
    },
    "revalue": {},
    "hot_limits": {"scope": "D1", "symbol": "AAPL"},
    "limit_cache": {},
    "option_greeks": OPTION | CARRY | {"volatility": "0.2"},
    "implied_volatility": OPTION | CARRY | {"price": "15"},
    "open_day": {"day": "2099-01-05", "equities": None},
    "create_scope": {"code": FRESH, "kind": "account", "parent": "D1"},
    "upsert_instruments": {"instruments": '[{"symbol": "NEW", "kind": "stock"}]'},
    "grant_trading": {"role": "risk_trader", "scope": "A1"},
    "revoke_trading": {"role": "risk_trader", "scope": "D1"},
    "set_limit": KEY
    | ASIDE
    | {"amount": "5", "warn_pct": "80", "valid_from": None, "valid_until": None, "reason": None},
    "set_limits": {"limits": "[]", "reason": None},
    "remove_limit": KEY | ASIDE | {"reason": None},
    "set_trading_state": {
        "scope": "A1",
        "state": "REDUCE_ONLY",
        "reason": "why",
        "underlying": None,
        "cancel_open": "true",
    },
    "set_instrument_status": {"symbol": "XOM", "status": "BLOCKED", "reason": "why"},
    "set_setting": {"name": "max_mark_age", "value": "7", "scope": "D1"},
    "verify_counters": {},
}
# Values above that a routine takes, on purpose: ids and reasons are free text.
CODES = {INJECTION, ODD}
REASONS = {"tab\there", "bell\x07", "two\nlines", *CODES}
FLAT = {"{NULL}", "{{1}}"}
TAKEN: dict[tuple[str, str], set[str]] = {
    ("check_order", "client_order_id"): CODES,
    ("check_order", "agent"): CODES,
    ("check_order", "price"): {"0.3"},
    ("check_combo", "client_order_id"): CODES,
    ("check_combo", "agent"): CODES,
    ("check_combo", "price"): {"0", "-1", "0.3"},
    ("replace_order", "new_client_order_id"): CODES,
    ("replace_order", "price"): {"0.3"},
    ("preview_order", "agent"): CODES,
    ("preview_order", "price"): {"0.3"},
    ("preview_combo", "agent"): CODES,
    ("preview_combo", "price"): {"0", "-1", "0.3"},
    ("record_fill", "exec_id"): CODES,
    ("record_fill", "quantity"): {"0.3"},
    ("record_fill", "price"): {"0", "-1", "0.3"},
    ("record_fill", "fee"): {"0", "-1", "0.3"},
    ("record_trade", "exec_id"): CODES,
    ("record_trade", "quantity"): {"0.3"},
    ("record_trade", "price"): {"0", "-1", "0.3"},
    ("record_trade", "fee"): {"0", "-1", "0.3"},
    ("ack_order", "broker_order_id"): CODES,
    ("cancel_orders", "reason"): REASONS,
    ("cancel_orders", "agent"): CODES,
    ("set_marks", "prices"): {"{{1}}"},
    **{("set_marks", name): FLAT for name in GREEKS},
    ("remark_underlying", "price"): {"0.3", "1e-20"},
    **{("remark_underlying", name): {"0.3", "1e-20"} for name in ("bid", "ask")},
    ("bust_fill", "reason"): REASONS,
    ("correct_fill", "reason"): REASONS,
    ("correct_fill", "quantity"): {"0.3"},
    ("correct_fill", "price"): {"0", "-1", "0.3"},
    ("set_fx", "rate"): {"0.3"},
    ("post_cash", "amount"): {"-1", "0.3"},
    ("post_cash", "reason"): CODES,
    ("post_cash", "reference"): CODES,
    ("option_greeks", "volatility"): {"1e300"},
    ("load_closes", "closes"): {"{{1}}"},
    ("open_day", "equities"): {"{}"},
    ("set_indicator", "name"): CODES,
    ("set_indicator", "value"): {"-11", "1e300"},
    ("load_position_limits", "limits"): {"{}"},
    ("apply_position_limits", "reason"): REASONS,
    ("adjust_instrument", "reference"): CODES,
    ("adjust_instrument", "reason"): REASONS,
    ("adjust_instrument", "strike_change"): {"-1", "0.3"},
    ("adjust_instrument", "new_symbols"): {"{}"},
    ("define_breaker", "name"): CODES,
    ("define_breaker", "threshold"): {"0", "0.3"},
    ("define_breaker", "parameters"): {"{}"},
    ("define_breaker", "reason"): REASONS,
    **{(f"{verb}_breaker", "reason"): REASONS for verb in ("remove", "trip", "reset")},
    ("create_scope", "code"): CODES,
    ("create_scope", "parent"): CODES,  # made by then
    ("upsert_instruments", "instruments"): {"[]"},
    ("set_limit", "amount"): {"0", "0.3"},
    ("set_limit", "warn_pct"): {"1e-20", "0.3"},
    ("set_limit", "valid_from"): {"-infinity"},
    ("set_limit", "valid_until"): {"infinity"},
    ("set_limit", "reason"): REASONS,
    ("set_limits", "limits"): {"[]"},
    ("set_limits", "reason"): REASONS,
    ("remove_limit", "reason"): REASONS,
    ("set_trading_state", "reason"): REASONS,
    ("set_instrument_status", "reason"): REASONS,
}
# Arguments that may be left out: NULL is what they are by default.
OPTIONAL = {
    *(f"price of {what}" for what in ("check_order", "check_combo", "replace_order")),
    *("price of preview_order", "price of preview_combo"),
    *("currency of post_cash", "reference of post_cash"),
    *("agent", "symbol of record_fill", "executed_at", "broker_order_id", "as_of"),
    *("equities", "parent of firm", "symbol of set_limit", "underlying", "sector", "valid_from"),
    *("valid_until", "reason of set_limit", "reason of set_limits", "reason of remove_limit"),
    *(
        "reason of apply_position_limits",
        "reason of define_breaker",
        "symbol of hot_limits",
        "new_symbols",
    ),
    *("symbol of remove_limit", "scope of set_setting", "bid", "ask", *GREEKS),
}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        caller.limit("D1", "gross_notional", 10**9)
        caller.call("grant_trading", role="risk_trader", scope="D1")
        caller.check("A1", "old", "AAPL", "buy", 10, 100, time_in_force="GTC")
        caller.replace("A1", "old", "newer", 12, 100)
        yield caller
        assert caller.differences() == []


def signatures(firm: Caller) -> dict[str, dict[str, str]]:
    """Input arguments of every routine in risk, and their types; all that is INOUT is an answer."""
    found: dict[str, dict[str, str]] = {}
    for row in firm.rows(
        """select p.proname, p.proargnames[a.number] as argument, format_type(t.type, null) as type
           from pg_proc as p
           cross join lateral unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]))
             with ordinality as t (type, number)
           cross join lateral (select t.number) as a
           where p.pronamespace = 'risk'::regnamespace
             and coalesce(p.proargmodes[a.number], 'i') = 'i'"""
    ):
        found.setdefault(row["proname"], {})[row["argument"]] = row["type"]
    return found


def contents(firm: Caller) -> list[Any]:
    """Everything that is stored, and every message."""
    tables = firm.rows(
        """select oid::regclass::text as name from pg_class
           where relkind = 'r' and (relnamespace = 'risk_private'::regnamespace
             or relname = 'q_risk_alerts') order by 1"""
    )
    return [
        (
            table["name"],
            firm.value(
                f"select md5(string_agg(t::text, '|' order by t::text)) from {table['name']} as t"
            ),
        )
        for table in tables
    ]


def test_every_public_routine_and_argument_is_tried(firm: Caller) -> None:
    known = {routine: set(arguments) for routine, arguments in BASE.items() if arguments}
    assert {name: set(types) for name, types in signatures(firm).items()} == known


@pytest.mark.parametrize("routine", [routine for routine, base in BASE.items() if base])
def test_malformed_arguments_are_refused_and_leave_nothing(firm: Caller, routine: str) -> None:
    types = signatures(firm)[routine]
    wrong = []
    for name, type_name in types.items():
        for value in VALUES[type_name]:
            arguments = prepare(firm, routine) | {name: value}
            before = contents(firm)
            outcome = attempt(firm, routine, types, arguments)
            if outcome != ("taken" if is_taken(routine, name, value) else "refused"):
                wrong.append(f"{name} {str(value)[:40]!r}: {outcome}")
            if outcome != "taken" and contents(firm) != before:
                wrong.append(f"{name} {str(value)[:40]!r} left something behind")
    assert not wrong, "\n".join(wrong)


def is_taken(routine: str, name: str, value: object) -> bool:
    if value is None:
        return bool(OPTIONAL & {name, f"{name} of {routine}"})
    taken = {BASE[routine][name], *TAKEN.get((routine, name), ())}
    return isinstance(value, str) and value in taken


@pytest.mark.parametrize(
    ("routine", "argument", "single"),
    [("check_orders", "orders", "check_order"), ("set_limits", "limits", "set_limit")],
)
def test_malformed_items_are_refused_and_leave_nothing(
    firm: Caller, routine: str, argument: str, single: str
) -> None:
    """Every key of an item of a batch, as text, missing, and as a value of another kind."""
    types = signatures(firm)
    wrong = []
    for name in BASE[single].keys() - {"reason"}:
        for value in (*VALUES[types[single][name]], {"x": 1}, [1], True, 10**400):
            items: list[dict[str, Any]] = [prepare(firm, single), prepare(firm, single)]
            items[1][name] = value
            for item in items:
                item.pop("reason", None)
            before = contents(firm)
            arguments = BASE[routine] | {argument: json.dumps(items)}
            outcome = attempt(firm, routine, types[routine], arguments)
            if outcome != ("taken" if is_taken(single, name, value) else "refused"):
                wrong.append(f"{name} {str(value)[:40]!r}: {outcome[:300]}")
            if outcome != "taken" and contents(firm) != before:
                wrong.append(f"{name} {str(value)[:40]!r} left something behind")
    assert not wrong, "\n".join(wrong)


def prepare(firm: Caller, routine: str) -> Arguments:
    """Arguments of a call that would be answered now."""
    if routine == "revoke_trading":
        firm.call("grant_trading", **BASE[routine])
    if routine == "remove_limit":
        firm.limit("D1", "gross_notional", 10**9)
    live = firm.new_name()
    firm.check("A1", live, "AAPL", "buy", 10, 100, time_in_force="GTC")
    stands_for = {FRESH: firm.new_name(), LIVE: live, EXECUTION: f"fill of {live}"}
    for breaker in {BREAKER, TRIPPED} & set(BASE[routine].values()):
        stands_for[breaker] = define_breaker(firm)
    if TRIPPED in stands_for:
        firm.call("trip_breaker", name=stands_for[TRIPPED], reason="a test")
    if EXECUTION in BASE[routine].values():
        firm.fill("A1", live, stands_for[EXECUTION], 1, 99)
    return {
        name: value if value is None else stands_for.get(value, value)
        for name, value in BASE[routine].items()
    }


def define_breaker(firm: Caller) -> str:
    """A breaker on the number of orders, of a new name."""
    name = firm.new_name()
    firm.call(
        "define_breaker",
        name=name,
        scope="D1",
        condition="order_rate",
        threshold=10**6,
        action="NOTIFY",
    )
    return name


def attempt(firm: Caller, routine: str, types: dict[str, str], arguments: dict[str, Any]) -> str:
    """What comes of a call: "taken", "refused" in good order, or what is wrong with the error."""
    pairs = ", ".join(f"{name} => %({name})s::{types[name]}" for name in types)
    is_read = routine.startswith(("preview", "option", "implied", "hot", "limit_cache"))
    verb = "select * from" if is_read else "call"
    try:
        firm.rows(f"{verb} risk.{routine}({pairs})", **arguments)
    except psycopg.Error as error:
        if not re.match("RK40[0-9]", error.sqlstate or ""):
            return f"{error.sqlstate} {error}"
        if not (error.diag.message_primary and error.diag.message_detail):
            return f"no detail: {error}"
        if len(str(error)) > 5000:
            return f"{len(str(error))} characters of message"
        return "refused"
    return "taken"
