"""The demo's story: sets the firm up and replays the days."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from pgrisk.cli import demo_breakers
from pgrisk.cli.demo_agents import View
from pgrisk.cli.demo_breakers import BreakerStory
from pgrisk.cli.demo_broker import Broker
from pgrisk.cli.demo_feed import Feed
from pgrisk.cli.demo_firm import AGENTS, CAPITAL, limits, scopes
from pgrisk.cli.demo_history import History
from pgrisk.cli.demo_market import Market
from pgrisk.cli.demo_services import login_of
from pgrisk.cli.demo_trader import Trader

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgrisk.cli.demo_broker import Connection
    from pgrisk.cli.demo_scenarios import Scenario, Session
    from pgrisk.cli.demo_services import Logins, WorkerProcess
    from pgrisk.client.cache import LimitCache

ROUNDS = 5
"""How often a day the agents send orders; between rounds everything is executed."""

_SEED = 2015


@dataclass(frozen=True)
class Plan:
    """What to replay."""

    scenario: Scenario
    sessions: list[Session]
    orders: int
    """Orders of each agent in each round."""

    @property
    def decisions(self) -> int:
        """About how many decisions that makes."""
        return len(self.sessions) * ROUNDS * len(AGENTS) * self.orders


class Stage(ExitStack):
    """Everybody's connections, and the course of a day."""

    def __init__(
        self,
        plan: Plan,
        logins: Logins,
        worker: WorkerProcess,
        cache: LimitCache,
        step: Callable[[], None],
        on_decision: Callable[[int], None],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__()

        def enter(login: str) -> Connection:
            return self.enter_context(logins.connect(login))

        self._plan = plan
        self._worker = worker
        self._step = step
        self._market = Market(plan.scenario.expiries)
        self._admin, self._back_office = enter("demo_admin"), enter("demo_execution")
        self._feed = Feed(self._admin, enter("demo_feed"), self._market)
        self.analyst = enter("demo_analyst")
        self.history = History(self.analyst)
        self._broker = Broker(
            [enter("demo_execution") for _ in AGENTS],
            [agent.account for agent in AGENTS],
            self._market,
        )
        self.callback(self._broker.close)
        self.story = BreakerStory(self.analyst, self._broker.cancel_requests, tell)
        self._traders = {
            agent.account: Trader(
                agent,
                enter(login_of(agent.name)),
                self._broker,
                View(self._market, random.Random(f"{_SEED}/{agent.name}")),  # noqa: S311
                cache,
                on_decision,
            )
            for agent in AGENTS
        }
        self._pool = ThreadPoolExecutor(len(AGENTS) + 1)
        self.callback(self._pool.shutdown, cancel_futures=True)

    @property
    def held_back(self) -> int:
        """How many orders agents did not ask for, since their limits told them of a halt."""
        return sum(trader.held_back for trader in self._traders.values())

    def set_up(self) -> None:
        """Create the firm, its limits, breakers and stocks; options are listed day by day."""
        for scope in scopes():
            self._admin.execute(
                "call risk.create_scope(code => %s, kind => %s, parent => %s)", scope
            )
        # The days of a replay are opened by it, and not by the worker when the clock says so.
        self._admin.execute("call risk.set_setting('open_day_at', 'off')")
        for agent in AGENTS:
            self._step()
            self._admin.execute(
                "call risk.grant_trading(role => %s, scope => %s)",
                [login_of(agent.name), agent.account],
            )
            self._back_office.execute(
                "call risk.post_cash(account => %s, amount => %s, reason => 'deposit')",
                [agent.account, CAPITAL],
            )
        self._feed.list_stocks()
        self._admin.execute("call risk.set_limits(%s, 'the demo')", [json.dumps(limits())])
        demo_breakers.define(self._admin)

    def play(self, session: Session) -> None:
        """Replay one day."""
        self._feed.open(session)
        self._broker.expire()
        self._book()
        self._feed.send_indicators()
        self._feed.send_marks()
        self._worker.wait_for_heartbeat(self.analyst, self._step)
        for number in range(1, ROUNDS + 1):
            self._step()
            has_moved = self._market.move(number)
            jobs = [
                self._pool.submit(trader.trade, self._plan.orders, number == 1)
                for trader in self._traders.values()
            ]
            jobs.append(self._pool.submit(self._manage, session, number, has_moved))
            for job in jobs:
                job.result()
            self._book()
            self._broker.answer_alerts()
            self._book()
            if number == 1:
                self._settle(session)
            if number == ROUNDS:
                self._admin.execute("call risk.revalue()")  # the worker may be at rest
            self.history.sample(session.day)
            self.story.follow(session.day, number == ROUNDS)
        self._worker.require_running()
        self.history.close(session.day)

    def _manage(self, session: Session, number: int, has_moved: bool) -> None:
        """Beside the agents' round: prices come, and then an admin looks at the breakers."""
        self._feed.send_indicators()
        if has_moved:
            self._feed.send_marks()
        for act in self._plan.scenario.acts:
            if (act.day, act.round) == (session.day, number):
                names = ", ".join(f"{name} => %({name})s" for name in act.arguments)
                self._admin.execute(f"call risk.{act.procedure}({names})".encode(), act.arguments)
        self.story.reset_what_is_over(self._admin, session.day)

    def _book(self) -> None:
        """Wait for the broker, and tell the agents what they got."""
        for fill in self._broker.drain():
            self._traders[fill.account].view.book(fill.symbol, fill.quantity)

    def _settle(self, session: Session) -> None:
        """Book what became of options that expired, once the clearing house has told."""
        held = self.analyst.execute(
            "select p.account, p.symbol, p.quantity from risk.positions as p"
            " join risk.instruments as i on i.symbol = p.symbol"
            " where i.expiry < %s and p.quantity <> 0 order by p.account, p.symbol",
            [session.day],
        ).fetchall()
        for account, symbol, quantity in held:
            option = self._market.options[symbol]
            in_the_money = option.intrinsic(session.previous.stocks[option.stock]) > 0
            kind = "expiry" if not in_the_money else "exercise" if quantity > 0 else "assignment"
            self._trade(account, symbol, -quantity, Decimal(0), kind)
            if in_the_money:
                shares = 100 * quantity * (1 if option.right == "call" else -1)
                self._trade(
                    account, option.stock, shares, Decimal(str(option.strike)), kind, symbol
                )

    def _trade(
        self,
        account: str,
        symbol: str,
        quantity: Decimal,
        price: Decimal,
        kind: str,
        option: str | None = None,
    ) -> None:
        self._back_office.execute(
            "call risk.record_trade(account => %s, symbol => %s, side => %s, quantity => %s,"
            " price => %s, exec_id => %s, kind => %s)",
            [
                account,
                symbol,
                "buy" if quantity > 0 else "sell",
                abs(quantity),
                price,
                f"{kind} {symbol} {option or ''}".strip(),
                kind,
            ],
        )
        self._traders[account].view.book(symbol, int(quantity))
