"""RiskClient, call by call, and what it does when the database does not answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import psutil
import pytest

from pgrisk.client.errors import (
    Conflict,
    EngineFault,
    InvalidRequest,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    RiskError,
    Unavailable,
)
from pgrisk.client.orders import Combo, Leg, Order
from pgrisk.client.risk_client import RiskClient
from tests.orders import Caller, open_firm, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

D = Decimal
CONDOR = (Leg("AAPL C100", "sell"), Leg("AAPL C110", "buy", 2))


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller


@pytest.fixture
def risk(db: Database, firm: Caller) -> Iterator[RiskClient]:
    with RiskClient(db.url, timeout=20) as client:
        yield client


# Every call ---------------------------------------------------------------------------------------


def test_an_order_is_accepted_or_refused_with_every_reason(risk: RiskClient, firm: Caller) -> None:
    firm.limit("A1", "net_position", 100, warn_pct=50)
    firm.limit("F", "order_notional", "1500.50")
    accepted = risk.check_order("A1", "a", "AAPL", "buy", 60, D("20.5"), agent="iron")
    assert accepted.is_accepted
    assert (accepted.reason, accepted.allowed_quantity, accepted.violations) == (None, D(60), ())
    (warning,) = [w for w in accepted.warnings if w.limit_type == "net_position"]
    assert (warning.scope, warning.limit, warning.projected) == ("A1", D(100), D(60))
    refused = risk.check_order("A1", "b", "AAPL", "buy", "41", "100")
    assert not refused.is_accepted
    assert (refused.reason, refused.allowed_quantity) == ("RISK_LIMIT_EXCEEDED", D(15))
    limits = {v.limit_type: (v.limit, v.current, v.projected) for v in refused.violations}
    assert limits["net_position"] == (D(100), D(60), D(101))
    assert limits["order_notional"][0] == D("1500.50")
    assert all(isinstance(value, D) for value in limits["net_position"])
    row = firm.rows("select agent, quantity, price from risk.orders where client_order_id = 'a'")
    assert row == [{"agent": "iron", "quantity": 60, "price": D("20.5")}]


def test_a_combo_is_decided_as_one_order(risk: RiskClient, firm: Caller) -> None:
    decision = risk.check_combo("A1", "c", CONDOR, 3, "-1.25", time_in_force="GTC")
    assert decision.is_accepted
    assert firm.position("A1", "AAPL C110") == (0, 6, 0)
    assert risk.check_combo("A1", "c", CONDOR, 3, "-1.25", time_in_force="GTC") == decision


def test_a_batch_is_answered_in_its_order(risk: RiskClient, firm: Caller) -> None:
    firm.limit("A1", "net_position", 10)
    decisions = risk.check_orders(
        [
            Order("A1", "a", "AAPL", "buy", 10, "100.01", agent="x"),
            Order("A1", "b", "AAPL", "buy", 1),
            Combo("A2", "c", CONDOR, 2, D("-0.5")),
        ]
    )
    assert [d.decision for d in decisions] == ["ACCEPTED", "REJECTED", "ACCEPTED"]
    assert decisions[1].violations[0].projected == 11
    with pytest.raises(InvalidRequest, match="quantity"):
        risk.check_orders([Order("A1", "d", "AAPL", "buy", 1), Order("A1", "e", "AAPL", "buy", 0)])
    assert firm.rows("select from risk.orders where client_order_id = 'd'") == []


def test_a_replace_is_decided_and_confirmed_or_rejected(risk: RiskClient, firm: Caller) -> None:
    risk.check_order("A1", "a", "AAPL", "buy", 10, 100)
    assert risk.replace_order("A1", "a", "a2", 20, 101).is_accepted
    risk.confirm_replace("A1", "a2")
    assert risk.replace_order("A1", "a2", "a3", 5).is_accepted
    risk.reject_replace("A1", "a3")
    risk.reject_replace("A1", "a3")
    assert firm.position("A1", "AAPL") == (0, 20, 0)


def test_previews_show_every_check_and_reserve_nothing(risk: RiskClient, firm: Caller) -> None:
    firm.limit("A1", "net_position", 10)
    worst = risk.preview_order("A1", "AAPL", "buy", 11, 100)[0]
    assert (worst.status, worst.limit_type, worst.projected_value) == (
        "FAIL",
        "net_position",
        D(11),
    )
    assert worst.allowed_quantity == 10
    checks = risk.preview_combo("A1", CONDOR, 4, agent="x")
    assert {check.status for check in checks} == {"PASS"}
    assert firm.rows("select from risk.orders") == []


def test_an_order_is_followed_to_its_end(risk: RiskClient, firm: Caller) -> None:
    risk.check_order("A1", "a", "AAPL", "buy", 10, 100)
    assert risk.dispatch_order("A1", "a").is_accepted
    risk.ack_order("A1", "a", "broker-1")
    at = datetime.now(UTC)
    fill = risk.record_fill("A1", "a", "e1", 4, "99.5", fee="0.35", executed_at=at)
    assert (fill.position, fill.order_state, fill.remaining_quantity, fill.flag) == (
        D(4),
        "PARTIALLY_FILLED",
        D(6),
        None,
    )
    assert risk.record_fill("A1", "a", "e1", 4, "99.5", fee="0.35", executed_at=at) == fill
    risk.release_order("A1", "a", "cancelled")
    assert firm.position("A1", "AAPL") == (4, 0, 0)
    trade = risk.record_trade("A1", "AAPL", "sell", 1, 100, "e2", kind="transfer", fee=1)
    assert (trade.position, trade.order_state, trade.remaining_quantity) == (D(3), None, None)
    risk.check_combo("A1", "c", CONDOR, 1, 1)
    leg = risk.record_fill("A1", "c", "e3", 2, 1, symbol="AAPL C110")
    assert (leg.position, leg.remaining_quantity) == (D(2), D(1))


def test_a_halted_order_is_not_dispatched(risk: RiskClient, firm: Caller) -> None:
    risk.check_order("A1", "a", "AAPL", "buy", 10, 100)
    risk.cancel_orders("D1", "done", underlying="AAPL")
    assert len(firm.alerts("cancel_request")) == 1
    firm.call("set_trading_state", scope="F", state="HALTED", reason="stop", cancel_open=False)
    answer = risk.dispatch_order("A1", "a")
    assert (answer.is_accepted, answer.reason) == (False, "TRADING_HALTED")


def test_limits_use_and_states_are_read(risk: RiskClient, firm: Caller) -> None:
    ends = datetime(2099, 1, 1, tzinfo=UTC)
    firm.limit("A1", "gross_position", "10.5", underlying="AAPL", warn_pct=70, valid_until=ends)
    firm.call("set_trading_state", scope="D1", state="REDUCE_ONLY", reason="calm")
    risk.check_order("A1", "a", "AAPL", "buy", 8, 100)
    (limit,) = risk.limits("A1")
    assert (limit.limit_type, limit.underlying, limit.limit_value) == (
        "gross_position",
        "AAPL",
        D("10.5"),
    )
    assert (limit.warn_pct, limit.version, limit.valid_until) == (D(70), 1, ends)
    assert {each.scope for each in risk.limits()} == {"A1", "F"}
    (use,) = risk.utilization("A1")
    assert (use.worst_case, use.used, use.status) == (D(0), D(0), "OK")
    assert {each.limit_type for each in risk.utilization()} == {"gross_position", "net_position"}
    (state,) = risk.trading_states("A1")
    assert (state.own_state, state.effective_state, state.reason) == (
        "ACTIVE",
        "REDUCE_ONLY",
        "calm",
    )
    assert len(risk.trading_states()) == 9
    hot = risk.hot_limits("A1", "AAPL")
    assert (hot.state, hot.changes_at) == ("REDUCE_ONLY", ends)
    assert {each.limit_type: each.limit_value for each in hot.limits} == {
        "gross_position": D("10.5"),
        "net_position": D(10) ** 9,
    }
    assert risk.hot_limits("D1").symbol is None


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "state", "call"),
    [
        (InvalidRequest, "RK400", lambda r: r.check_order("A1", "x", "AAPL", "buy", 0)),
        (InvalidRequest, "RK400", lambda r: r.check_order("A1", "x", "AAPL", "buy", "NaN")),
        (InvalidRequest, None, lambda r: r.check_order("A1", "x", "AAPL", "buy", 1.5)),
        (InvalidRequest, None, lambda r: r.check_order("A1", "x", "AAPL", "buy", True)),
        (InvalidRequest, None, lambda r: r.check_order("A1", "x", "AAPL", "buy", "many")),
        (InvalidRequest, None, lambda r: r.check_order("A1", "x\0", "AAPL", "buy", 1)),
        (InvalidRequest, None, lambda r: r.check_order("A1", "\ud800", "AAPL", "buy", 1)),
        (
            InvalidRequest,
            None,
            lambda r: r.record_fill("A1", "x", "e", 1, 1, executed_at=datetime(2026, 1, 1)),
        ),
        (NotFound, "RK404", lambda r: r.check_order("nowhere", "x", "AAPL", "buy", 1)),
        (NotFound, "RK404", lambda r: r.ack_order("A1", "x")),
        (Conflict, "RK409", lambda r: r.check_order("A1", "known", "AAPL", "sell", 1)),
    ],
)
def test_a_call_that_makes_no_sense_is_refused_once(
    risk: RiskClient,
    kind: type[RiskError],
    state: str | None,
    call: Callable[[RiskClient], object],
) -> None:
    risk.check_order("A1", "known", "AAPL", "buy", 1)
    with pytest.raises(kind) as caught:
        call(risk)
    assert caught.value.sqlstate == state
    assert caught.value.detail or caught.value.message
    assert risk.check_order("A1", "next", "AAPL", "buy", 1).is_accepted


def test_errors_say_which_value_and_what_to_do(risk: RiskClient) -> None:
    risk.check_order("A1", "known", "AAPL", "buy", 1)
    with pytest.raises(Conflict, match="known") as caught:
        risk.check_order("A1", "known", "AAPL", "buy", 2)
    assert caught.value.detail == "argument: client_order_id"
    assert caught.value.hint
    assert caught.value.hint in str(caught.value)


def test_rights_are_those_of_the_login(db: Database, firm: Caller) -> None:
    with RiskClient(db.url_for(db.create_user("ann", "risk_trader"))) as ann:
        with pytest.raises(NotAllowed) as caught:
            ann.check_order("A1", "a", "AAPL", "buy", 1)
        assert caught.value.sqlstate == "RK403"
        with pytest.raises(NotAllowed) as caught:
            ann.limits()
        assert caught.value.sqlstate == "42501"


def test_a_broken_invariant_is_an_engine_fault(risk: RiskClient, firm: Caller) -> None:
    firm.rows("alter table risk_private.orders add constraint broken check (quantity <> 13)")
    with pytest.raises(EngineFault):
        risk.check_order("A1", "a", "AAPL", "buy", 13, 100)
    assert firm.position("A1", "AAPL") == (0, 0, 0)


def test_a_closed_client_and_a_server_that_is_not_there_are_unavailable(db: Database) -> None:
    client = RiskClient(db.url)
    client.close()
    with pytest.raises(Unavailable, match="closed"):
        client.limits()
    nowhere = RiskClient("postgresql://nobody@127.0.0.1:1/none", timeout=0.05, attempts=2)
    with nowhere, pytest.raises(Unavailable):
        nowhere.check_order("A1", "a", "AAPL", "buy", 1)


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 0}, {"attempts": 0}, {"min_size": 3, "max_size": 2}, {"max_size": 0}],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        RiskClient("postgresql://", **wrong)


# No answer ----------------------------------------------------------------------------------------


def lock_account(caller: Caller, account: str) -> None:
    caller.rows(
        """select from risk_private.counters where counter_id = risk_private.counter_id(
             (select scope_id from risk_private.scopes where code = %s)) for update""",
        account,
    )


def waiting_backends(firm: Caller) -> list[int]:
    rows = firm.rows(
        """select pid from pg_stat_activity where wait_event_type = 'Lock'
           and datname = current_database()"""
    )
    return [row["pid"] for row in rows]


def decisions_on(firm: Caller, client_order_id: str) -> int:
    found: int = firm.value(
        "select count(*) from risk.decisions where client_order_id = %s", client_order_id
    )
    return found


@pytest.mark.parametrize("function", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_backend_killed_in_the_call_leads_to_one_decision(
    db: Database, risk: RiskClient, firm: Caller, function: str
) -> None:
    with db.connect(autocommit=False) as holder, ThreadPoolExecutor(1) as pool:
        lock_account(Caller(holder), "A1")
        answer = pool.submit(risk.check_order, "A1", "a", "AAPL", "buy", 10, 100)
        wait_until(lambda: len(waiting_backends(firm)) == 1)
        (first,) = waiting_backends(firm)
        firm.rows(f"select {function}({first})")
        if function == "pg_terminate_backend":
            wait_until(lambda: waiting_backends(firm) not in ([], [first]))
        holder.rollback()
        assert answer.result().is_accepted
    assert decisions_on(firm, "a") == 1
    assert firm.position("A1", "AAPL") == (0, 10, 0)
    assert firm.differences() == []


def test_backends_killed_at_any_moment_lead_to_one_decision_each(
    db: Database, firm: Caller
) -> None:
    """One backend at a time is killed, each while it decides."""
    with RiskClient(db.url, attempts=50) as risk, ThreadPoolExecutor(4) as pool:

        def trade(number: int) -> bool:
            return all(
                risk.check_order("A1", f"{number}-{each}", "AAPL", "buy", 1, 100).is_accepted
                for each in range(30)
            )

        answers = [pool.submit(trade, number) for number in range(4)]
        killed = 0
        while not all(answer.done() for answer in answers):
            killed += len(
                firm.rows(
                    """select pg_terminate_backend(pid) from pg_stat_activity
                       where datname = current_database() and left(query, 4) = 'call'
                         and state = 'active' and pid <> pg_backend_pid() limit 1"""
                )
            )
            time.sleep(0.05)
        assert all(answer.result() for answer in answers)
    assert killed > 0
    assert firm.position("A1", "AAPL") == (0, 120, 0)
    assert firm.differences() == []


def test_a_fill_whose_answer_is_lost_is_booked_once(
    db: Database, risk: RiskClient, firm: Caller
) -> None:
    risk.check_order("A1", "a", "AAPL", "buy", 10, 100)
    with db.connect(autocommit=False) as holder, ThreadPoolExecutor(1) as pool:
        lock_account(Caller(holder), "A1")
        answer = pool.submit(risk.record_fill, "A1", "a", "e1", 4, 100)
        wait_until(lambda: len(waiting_backends(firm)) == 1)
        firm.rows("select pg_terminate_backend(%s)", waiting_backends(firm)[0])
        holder.rollback()
        assert answer.result().position == 4
    assert firm.position("A1", "AAPL") == (4, 6, 0)


def test_no_answer_at_all_is_an_unknown_outcome_of_a_change(db: Database, firm: Caller) -> None:
    with (
        RiskClient(db.url, timeout=0.3, attempts=2) as risk,
        db.connect(autocommit=False) as holder,
    ):
        risk.limits()
        lock_account(Caller(holder), "A1")
        with pytest.raises(OutcomeUnknown, match="2 attempts") as caught:
            risk.check_order("A1", "a", "AAPL", "buy", 10, 100)
        assert "same id" in str(caught.value)
        holder.rollback()
        # What was given up has ended: nothing comes of it later.
        wait_until(lambda: waiting_backends(firm) == [])
        assert decisions_on(firm, "a") == 0
        holder.execute("lock table risk_private.limit_periods")
        with pytest.raises(Unavailable):
            risk.limits()
        holder.rollback()
        assert risk.limits()


def test_a_server_that_stands_still_is_given_up_in_time(db: Database, firm: Caller) -> None:
    with RiskClient(db.url, timeout=0.3, attempts=1) as risk:
        risk.limits()
        others = firm.rows(
            """select pid from pg_stat_activity where datname = current_database()
               and backend_type = 'client backend' and pid <> pg_backend_pid()"""
        )
        backends = [psutil.Process(row["pid"]) for row in others]
        for backend in backends:
            backend.suspend()
        try:
            with pytest.raises(OutcomeUnknown):
                risk.check_order("A1", "a", "AAPL", "buy", 10, 100)
        finally:
            for backend in backends:
                backend.resume()
        assert risk.check_order("A1", "a", "AAPL", "buy", 10, 100).is_accepted
    assert firm.position("A1", "AAPL") == (0, 10, 0)


def test_a_right_lost_between_two_attempts_leaves_the_outcome_unknown(
    db: Database, firm: Caller
) -> None:
    firm.call("grant_trading", role=db.create_user("ann", "risk_trader"), scope="A1")
    with (
        RiskClient(db.url_for("ann"), timeout=20) as ann,
        db.connect(autocommit=False) as holder,
        ThreadPoolExecutor(1) as pool,
    ):
        lock_account(Caller(holder), "A1")
        answer = pool.submit(ann.check_order, "A1", "a", "AAPL", "buy", 10, 100)
        wait_until(lambda: len(waiting_backends(firm)) == 1)
        firm.call("revoke_trading", role="ann", scope="A1")
        firm.rows("select pg_terminate_backend(%s)", waiting_backends(firm)[0])
        holder.rollback()
        with pytest.raises(OutcomeUnknown) as caught:
            answer.result()
        assert caught.value.sqlstate == "RK403"


def test_a_warning_means_ask_again(db: Database, firm: Caller) -> None:
    """PostgreSQL answers with a warning where a wait for a standby was cancelled."""
    firm.rows(
        """create function public.warn() returns trigger language plpgsql as
           $$ begin
             if not exists (select from risk_private.orders as o
                            where o.client_order_id = new.client_order_id) then
               raise warning 'canceling wait for synchronous replication';
             end if;
             return new;
           end $$;
           create trigger warn before insert on risk_private.orders
           for each row execute function public.warn()"""
    )
    with RiskClient(db.url) as risk:
        assert risk.check_order("A1", "a", "AAPL", "buy", 10, 100).is_accepted
        with pytest.raises(OutcomeUnknown, match="standby"), RiskClient(db.url, attempts=1) as once:
            once.check_order("A1", "b", "AAPL", "buy", 10, 100)
    assert decisions_on(firm, "b") == 1
    assert firm.position("A1", "AAPL") == (0, 20, 0)
