"""The demo's story: sets the firm up and replays the days."""

from __future__ import annotations

import json
import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgrisk.cli.demo_agents import View
from pgrisk.cli.demo_broker import Broker
from pgrisk.cli.demo_firm import AGENTS, CAPITAL, FIRM, limits, scopes
from pgrisk.cli.demo_history import History
from pgrisk.cli.demo_market import Market, option_terms, stock_terms
from pgrisk.cli.demo_trader import Trader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pgrisk.cli.demo_broker import Connection
    from pgrisk.cli.demo_market import Session

    Connect = Callable[[str], Connection]

ROUNDS = 4
"""How often a day the agents send orders; between rounds everything is executed."""

_SEED = 2015
_SERVICES = {
    "demo_admin": "risk_admin",
    "demo_feed": "risk_feed",
    "demo_execution": "risk_execution",
    "demo_analyst": "risk_analyst",
}
_STATE = "call risk.set_trading_state(scope => %s, state => %s, reason => %s)"
_STATUS = "call risk.set_instrument_status(symbol => %s, status => %s, reason => %s)"
_EVENTS: dict[tuple[date, int], tuple[str, list[str]]] = {
    (date(2015, 8, 12), 1): (_STATUS, ["MRK", "RESTRICTED", "on the restricted list"]),
    (date(2015, 8, 18), 1): (_STATUS, ["RRC", "NO_NEW_SHORTS", "no shares to borrow"]),
    (date(2015, 8, 21), 4): (_STATE, ["INCOME", "REDUCE_ONLY", "VIX above 25"]),
    (date(2015, 8, 24), 1): (_STATE, ["INCOME", "ACTIVE", "reviewed"]),
    (date(2015, 8, 24), 2): (_STATE, [FIRM, "HALTED", "VIX above 40: kill switch"]),
    (date(2015, 8, 24), 3): (_STATE, [FIRM, "REDUCE_ONLY", "released for closing trades"]),
    (date(2015, 8, 24), 4): (_STATE, [FIRM, "ACTIVE", "released"]),
    (date(2015, 8, 25), 1): (_STATUS, ["BBY", "BLOCKED", "results before the open"]),
    (date(2015, 8, 26), 1): (_STATUS, ["BBY", "ACTIVE", "results are out"]),
}


@dataclass(frozen=True)
class Plan:
    """What to replay."""

    sessions: list[Session]
    orders: int
    """Orders of each agent in each round."""

    @property
    def decisions(self) -> int:
        """About how many decisions that makes."""
        return len(self.sessions) * ROUNDS * len(AGENTS) * self.orders


@contextmanager
def logins(url: str, owner: Connection, keep: bool) -> Iterator[Connect]:
    """Make the logins of agents and services; yields a function that connects as one of them.

    They are dropped at the end unless `keep`. Raises psycopg.errors.DuplicateObject when they
    exist.
    """
    password = secrets.token_urlsafe(18)
    roles = {**_SERVICES, **{_login(agent.name): "risk_trader" for agent in AGENTS}}
    with owner.transaction():
        for login, role in roles.items():
            # Encrypted here, so that the password is in no log of the server.
            verifier = owner.pgconn.encrypt_password(
                password.encode(), login.encode(), b"scram-sha-256"
            )
            owner.execute(
                sql.SQL("create role {} login password {} in role {}").format(
                    sql.Identifier(login), verifier.decode(), sql.Identifier(role)
                )
            )
    try:
        yield lambda login: psycopg.connect(url, user=login, password=password, autocommit=True)
    finally:
        if not keep:
            granted = owner.execute(
                "select role, scope from risk.trading_grants where role = any(%s)", [[*roles]]
            ).fetchall()
            for grant in granted:
                owner.execute("call risk.revoke_trading(role => %s, scope => %s)", grant)
            with owner.transaction():
                for login in roles:
                    owner.execute(sql.SQL("drop role {}").format(sql.Identifier(login)))


def _login(agent: str) -> str:
    return "demo_" + agent.replace("-", "_")


class Stage(ExitStack):
    """Everybody's connections, and the course of a day."""

    def __init__(self, connect: Connect, orders: int, on_decision: Callable[[int], None]) -> None:
        super().__init__()

        def enter(login: str) -> Connection:
            return self.enter_context(connect(login))

        self._orders = orders
        self._market = Market()
        self._admin, self._feed = enter("demo_admin"), enter("demo_feed")
        self._back_office, self.analyst = enter("demo_execution"), enter("demo_analyst")
        self.history = History(self.analyst)
        self._broker = Broker(
            [enter("demo_execution") for _ in AGENTS],
            [agent.account for agent in AGENTS],
            self._market,
        )
        self.callback(self._broker.close)
        self._traders = {
            agent.account: Trader(
                agent,
                enter(_login(agent.name)),
                self._broker,
                View(self._market, random.Random(f"{_SEED}/{agent.name}")),  # noqa: S311
                on_decision,
            )
            for agent in AGENTS
        }
        self._pool = self.enter_context(ThreadPoolExecutor(len(AGENTS) + 2))

    def set_up(self) -> None:
        """Create the firm, its limits and its stocks; options are listed day by day."""
        for scope in scopes():
            self._admin.execute(
                "call risk.create_scope(code => %s, kind => %s, parent => %s)", scope
            )
        for agent in AGENTS:
            self._admin.execute(
                "call risk.grant_trading(role => %s, scope => %s)",
                [_login(agent.name), agent.account],
            )
            self._back_office.execute(
                "call risk.post_cash(account => %s, amount => %s, reason => 'deposit')",
                [agent.account, CAPITAL],
            )
        self._list(stock_terms())
        self._admin.execute("call risk.set_limits(%s, 'the demo')", [json.dumps(limits())])
        # No worker evaluates circuit breakers here, so nothing gives the sign of life.
        self._admin.execute("call risk.set_setting('max_heartbeat_age', '0')")

    def play(self, session: Session) -> None:
        """Replay one day."""
        is_first = not self._market.options
        new = self._market.open(session)
        self._list(option_terms(new))
        self._admin.execute("call risk.open_day(%s)", [session.day])
        self._broker.expire()
        self._book()
        # The feed learns of an option the day after it was listed.
        marked = self._market.quotes.keys() - (set() if is_first else {o.symbol for o in new})
        self._send_marks(marked)
        for number in range(1, ROUNDS + 1):
            jobs = [
                self._pool.submit(trader.trade, self._orders, number == 1)
                for trader in self._traders.values()
            ]
            jobs.append(self._pool.submit(self._send_marks, marked))
            jobs.append(self._pool.submit(self._act, session.day, number))
            for job in jobs:
                job.result()
            self._book()
            self._broker.answer_alerts()
            self._book()
            if number == 1:
                self._settle(session)
            self.history.sample(session.day)
        self.history.close(session.day)

    def _list(self, terms: list[dict[str, Any]]) -> None:
        self._admin.execute("call risk.upsert_instruments(%s)", [json.dumps(terms)])

    def _send_marks(self, symbols: Iterable[str]) -> None:
        rows = [(symbol, self._market.quotes[symbol]) for symbol in sorted(symbols)]
        volatility = self._market.session.volatility
        self._feed.execute(
            "call risk.set_marks(symbols => %s, prices => %s, bids => %s, asks => %s, ivs => %s)",
            [
                [symbol for symbol, _ in rows],
                [quote.price for _, quote in rows],
                [quote.bid for _, quote in rows],
                [quote.ask for _, quote in rows],
                [volatility if symbol in self._market.options else None for symbol, _ in rows],
            ],
        )

    def _act(self, day: date, number: int) -> None:
        if (day, number) in _EVENTS:
            self._admin.execute(*_EVENTS[day, number])

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
            in_the_money = option.intrinsic(session.previous[option.stock]) > 0
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
