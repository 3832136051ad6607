"""Circuit breakers: trips by people, cooling down, resets."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.breaker_desk import Desk
from tests.orders import Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import DurableServer


def test_a_person_trips_it_and_only_a_person_resets_it(desk: Desk) -> None:
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=10), action="HALT_AND_CANCEL")
    desk.firm.check("A1", "open", "AAPL", "buy", 1, 100)
    desk.trip()
    assert desk.buy() == "CIRCUIT_BREAKER_TRIPPED"
    assert [alert["client_order_id"] for alert in desk.firm.alerts("cancel_request")] == ["open"]
    row = desk.breaker()
    assert (row["is_manual"], row["trip_reason"], row["tripped_value"]) == (True, "a test", None)
    desk.vix(10)
    for _ in range(3):
        desk.wait(3600)
        desk.sweep()
    assert desk.state() == "TRIPPED"
    desk.reset()
    assert desk.state() == "COOLDOWN"
    desk.wait(10)
    desk.sweep()
    assert desk.state() == "ARMED"
    assert desk.buy() == "ACCEPTED"


def test_a_person_takes_over_what_a_condition_tripped(desk: Desk) -> None:
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=10))
    desk.vix(41)
    desk.trip()
    desk.trip()
    assert desk.events() == ["DEFINED", "TRIPPED", "TRIPPED"]
    desk.vix(10)
    desk.wait(60)
    desk.sweep()
    assert desk.state() == "TRIPPED"


def test_a_reset_is_refused_while_the_value_is_not_below_the_threshold(desk: Desk) -> None:
    desk.define()
    desk.vix(41)
    for value, expected in ((40, "RK409"), (39.9, None)):
        desk.vix(value)
        if expected:
            assert desk.refusal("reset_breaker", name="vix", reason="x")[0] == expected
            assert desk.state() == "TRIPPED"
    desk.reset()
    assert desk.state() == "ARMED"
    (alert,) = desk.firm.alerts("breaker_reset")
    assert (alert["breaker"], alert["reason"], alert["value"]) == ("vix", "a test", "39.9")
    assert desk.firm.rows("select * from risk_private.trading_states") == []


def test_what_is_armed_or_unknown_cannot_be_reset(desk: Desk) -> None:
    desk.define()
    assert desk.refusal("reset_breaker", name="vix", reason="x") == ("RK409", "argument: name")
    for procedure in ("trip_breaker", "reset_breaker"):
        assert desk.refusal(procedure, name="x", reason="x") == ("RK404", "argument: name")
        assert desk.refusal(procedure, name="vix", reason=" ") == ("RK400", "argument: reason")


def test_a_trip_survives_a_crash_right_after_the_call(
    durable_server: Callable[..., DurableServer],
) -> None:
    durable = durable_server(wal_writer_delay="10s")
    database = durable.create_database()
    with open_firm(database) as firm:
        firm.connection.execute("set synchronous_commit = off")
        desk = Desk(database, firm)
        desk.define("by hand")
        desk.define()
        desk.trip("by hand")
        desk.vix(41)
        durable.kill()
    database.server = durable.start()
    with database.connect() as connection:
        rows = Caller(connection).rows("select state from risk.breakers")
        assert [row["state"] for row in rows] == ["TRIPPED", "TRIPPED"]


def test_the_timer_runs_from_when_the_value_is_well_below_the_threshold(desk: Desk) -> None:
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=30))
    desk.vix(41)
    desk.vix(36)
    assert desk.state() == "TRIPPED", "0.9 x 40 is not below 0.9 x 40"
    desk.vix(35.9)
    row = desk.breaker()
    assert (row["state"], row["resets_at"]) == ("COOLDOWN", desk.now + timedelta(seconds=30))
    assert desk.buy() == "CIRCUIT_BREAKER_TRIPPED"
    desk.wait(29)
    desk.sweep()
    assert desk.state() == "COOLDOWN"
    desk.wait(1)
    desk.sweep()
    assert desk.state() == "ARMED"
    assert desk.buy() == "ACCEPTED"
    assert desk.events() == ["DEFINED", "TRIPPED", "COOLDOWN", "RESET"]


def test_a_value_that_comes_back_during_the_cool_down_trips_it_again(desk: Desk) -> None:
    """Even if it has gone again when the evaluation looks."""
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=30))
    desk.vix(41)
    desk.vix(30)
    desk.wait(20)
    desk.vix(36, sweeps=False)
    desk.vix(30)
    assert desk.state() == "TRIPPED"
    desk.sweep()
    assert desk.state() == "COOLDOWN"
    assert desk.breaker()["resets_at"] == desk.now + timedelta(seconds=30)


def test_silence_does_not_reset(desk: Desk) -> None:
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=30))
    desk.vix(41)
    desk.wait(3600)
    desk.sweep()
    assert desk.state() == "TRIPPED"


@pytest.mark.parametrize(("value", "state"), [(40, "TRIPPED"), (39.9, "ARMED")])
def test_the_next_session_resets_it_if_the_value_is_clear(
    desk: Desk, value: float, state: str
) -> None:
    desk.firm.call("open_day", day="2091-03-05")
    desk.define(reset_policy="session")
    desk.vix(41)
    desk.vix(10)
    desk.firm.call("open_day", day="2091-03-05")
    desk.sweep()
    assert desk.state() == "TRIPPED", "the same day again is no new day"
    desk.vix(value)
    desk.firm.call("open_day", day="2091-03-06")
    desk.sweep()
    assert desk.state() == state


def test_a_new_session_does_not_overrule_a_person(desk: Desk) -> None:
    desk.define(reset_policy="session")
    desk.vix(10)
    desk.trip()
    desk.firm.call("open_day", day="2091-03-06")
    desk.sweep()
    assert desk.state() == "TRIPPED"


def test_tiers_are_several_breakers(desk: Desk) -> None:
    for threshold, action in ((30, "NOTIFY"), (40, "REDUCE_ONLY"), (50, "HALT")):
        desk.define(f"vix-{threshold}", threshold, action=action)
    assert desk.vix(45) == 2
    assert [desk.state(f"vix-{threshold}") for threshold in (30, 40, 50)] == [
        "TRIPPED",
        "TRIPPED",
        "ARMED",
    ]
