"""A small firm that tests trade in, and the calls on the engine as they need them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from threading import Barrier
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from tests.databases import Database

Row = dict[str, Any]
Number = int | str | Decimal
T = TypeVar("T")
U = TypeVar("U")

PLENTY = Decimal(10) ** 9
SCOPES = {
    "F": ("firm", None),
    "D1": ("desk", "F"),
    "D2": ("desk", "F"),
    "A1": ("account", "D1"),
    "A2": ("account", "D1"),
    "B1": ("account", "D2"),
    "B2": ("account", "D2"),
    "S1": ("strategy", "B2"),
    "S2": ("strategy", "B2"),
}
LEAVES = ("A1", "A2", "B1", "S1", "S2")
STOCKS = {"AAPL": "Tech", "MSFT": "Tech", "XOM": "Energy"}
OPTIONS = {
    "AAPL C100": ("call", 100, "2099-03-20"),
    "AAPL C110": ("call", 110, "2099-03-20"),
    "AAPL P100": ("put", 100, "2099-03-20"),
    "AAPL P90": ("put", 90, "2099-03-20"),
    "AAPL C100 LATE": ("call", 100, "2099-06-19"),
}
MARKS = {"AAPL": 100, "MSFT": 50, "XOM": 80} | dict.fromkeys(OPTIONS, 5)


@dataclass(frozen=True)
class Answer:
    """What the engine said of one order."""

    order_id: UUID
    decision: str
    reason: str | None
    allowed_quantity: Decimal
    violations: tuple[Row, ...]
    warnings: tuple[Row, ...]

    @property
    def is_accepted(self) -> bool:
        return self.decision == "ACCEPTED"

    @property
    def reasons(self) -> set[str]:
        """The reason of every violation."""
        return {violation["reason"] for violation in self.violations}

    @property
    def failed(self) -> set[tuple[str | None, str | None, str]]:
        """Limit type, scope and dimension of every violation."""
        return {(v["limit_type"], v["scope"], v["dimension"]) for v in self.violations}


class Caller:
    """One connection to the engine; every call is a statement of its own."""

    def __init__(self, connection: psycopg.Connection[Any], number: int = 0) -> None:
        self.connection = connection
        self.number = number
        self._names = 0
        self._cursor = connection.cursor(row_factory=dict_row)

    def new_name(self) -> str:
        """An id that no other caller of another number makes."""
        self._names += 1
        return f"{self.number}-{self._names}"

    def call(self, procedure: str, **arguments: object) -> Row:
        """`call risk.<procedure>`, and the row of its INOUT arguments."""
        pairs = [
            sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name))
            for name in arguments
        ]
        statement = sql.SQL("call risk.{}({})").format(
            sql.Identifier(procedure), sql.SQL(", ").join(pairs)
        )
        self._cursor.execute(statement, arguments)
        return (self._cursor.fetchone() or {}) if self._cursor.description else {}

    def rows(self, query: str, *parameters: object, **named: object) -> list[Row]:
        """The rows of a query."""
        self._cursor.execute(query.encode(), named or parameters)
        return self._cursor.fetchall() if self._cursor.description else []

    def value(self, query: str, *parameters: object) -> Any:
        """The only column of the only row of a query."""
        (row,) = self.rows(query, *parameters)
        (value,) = row.values()
        return value

    def check(
        self,
        account: str,
        client_order_id: str,
        symbol: str,
        side: str,
        quantity: Number,
        price: Number | None = None,
        **rest: object,
    ) -> Answer:
        row = self.call(
            "check_order",
            account=account,
            client_order_id=client_order_id,
            symbol=symbol,
            side=side,
            quantity=quantity,
            price=price,
            **rest,
        )
        return _answer(row)

    def combo(
        self,
        account: str,
        client_order_id: str,
        legs: str,
        quantity: Number,
        price: Number | None = None,
        **rest: object,
    ) -> Answer:
        row = self.call(
            "check_combo",
            account=account,
            client_order_id=client_order_id,
            legs=Jsonb(parse_legs(legs)),
            quantity=quantity,
            price=price,
            **rest,
        )
        return _answer(row)

    def batch(self, items: Sequence[Row]) -> list[Answer]:
        row = self.call("check_orders", orders=json.dumps(items, default=str))
        return [_answer(decision) for decision in row["decisions"]]

    def replace(
        self,
        account: str,
        client_order_id: str,
        new_client_order_id: str,
        quantity: Number,
        price: Number | None = None,
    ) -> Answer:
        row = self.call(
            "replace_order",
            account=account,
            client_order_id=client_order_id,
            new_client_order_id=new_client_order_id,
            quantity=quantity,
            price=price,
        )
        return _answer(row)

    def fill(
        self,
        account: str,
        client_order_id: str,
        exec_id: str,
        quantity: Number,
        price: Number,
        **rest: object,
    ) -> Row:
        row = self.call(
            "record_fill",
            account=account,
            client_order_id=client_order_id,
            exec_id=exec_id,
            quantity=quantity,
            price=price,
            **rest,
        )
        return row["detail"] or {}

    def hold(self, account: str, symbol: str, quantity: Number, price: Number = 1) -> None:
        """Give an account a position, long or (below 0) short."""
        number = self.value("select count(*) from risk_private.fills")
        self.call(
            "record_trade",
            account=account,
            symbol=symbol,
            side="buy" if Decimal(quantity) > 0 else "sell",
            quantity=abs(Decimal(quantity)),
            price=price,
            exec_id=f"opening {number}",
            kind="opening",
        )

    def limit(self, scope: str, limit_type: str, amount: Number, **rest: object) -> None:
        """Set a limit that warns of nothing before it is reached."""
        arguments = {"warn_pct": 100} | rest
        self.call("set_limit", scope=scope, limit_type=limit_type, amount=amount, **arguments)

    def mark(self, prices: Mapping[str, Number], **rest: object) -> None:
        numbers = [Decimal(price) for price in prices.values()]
        self.call("set_marks", symbols=list(prices), prices=numbers, **rest)

    def alerts(self, kind: str) -> list[Row]:
        """The messages of that kind on risk_alerts, oldest first."""
        rows = self.rows("select message from pgmq.q_risk_alerts order by msg_id")
        return [row["message"] for row in rows if row["message"]["kind"] == kind]

    def position(self, account: str, symbol: str) -> tuple[Number, Number, Number]:
        """Position, open buys and open sells."""
        rows = self.rows(
            """select quantity, open_buy, open_sell from risk_private.positions as p
               join risk_private.scopes as s on s.scope_id = p.account_id
               join risk_private.instruments as i using (instrument_id)
               where s.code = %s and i.symbol = %s""",
            account,
            symbol,
        )
        return tuple(rows[0].values()) if rows else (Decimal(0),) * 3

    def differences(self) -> list[Row]:
        """What verify_counters() finds."""
        return self.rows("select * from risk.verify_counters()")


def _answer(row: Row) -> Answer:
    detail = row["detail"]
    return Answer(
        row["order_id"],
        row["decision"],
        row["reason"],
        Decimal(row["allowed_quantity"]),
        tuple(detail["violations"]),
        tuple(detail["warnings"]),
    )


def parse_legs(legs: str) -> list[Row]:
    """`"buy 1 AAPL C100, sell 2 AAPL C110"` as check_combo wants it."""
    words = [leg.strip().split(" ", 2) for leg in legs.split(",")]
    return [{"side": side, "ratio": int(ratio), "symbol": symbol} for side, ratio, symbol in words]


def item(account: str, client_order_id: str, what: str, quantity: Number, **rest: object) -> Row:
    """One order of a batch; `what` is `"buy AAPL"`, or legs as `parse_legs` takes them."""
    side, _, symbol = what.partition(" ")
    order: Row = {"account": account, "client_order_id": client_order_id, "quantity": str(quantity)}
    if symbol[0].isdigit():
        return order | {"legs": parse_legs(what)} | rest
    return order | {"symbol": symbol, "side": side} | rest


@contextmanager
def callers(database: Database, number: int, user: str | None = None) -> Iterator[list[Caller]]:
    """So many connections, closed in the end."""
    with ExitStack() as stack:
        yield [
            Caller(stack.enter_context(closing(database.connect(user))), each)
            for each in range(number)
        ]


@contextmanager
def open_firm(database: Database) -> Iterator[Caller]:
    """A connection to a new firm of two desks.

    Its instruments are marked, the freshness gates are off, and the only limit is the one that
    must exist.
    """
    with callers(database, 1) as (caller,):
        _set_up(caller)
        yield caller


def _set_up(caller: Caller) -> None:
    for name in ("max_mark_age", "max_heartbeat_age"):
        caller.call("set_setting", name=name, value="0")
    for code, (kind, parent) in SCOPES.items():
        caller.call("create_scope", code=code, kind=kind, parent=parent)
    stocks = [{"symbol": s, "kind": "stock", "sector": sector} for s, sector in STOCKS.items()]
    options = [
        {
            "symbol": symbol,
            "kind": "option",
            "underlying": "AAPL",
            "option_right": right,
            "strike": strike,
            "expiry": expiry,
        }
        for symbol, (right, strike, expiry) in OPTIONS.items()
    ]
    caller.call("upsert_instruments", instruments=Jsonb(stocks + options))
    caller.mark(MARKS)
    caller.limit("F", "net_position", PLENTY)


def all_at_once(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Run every action in a thread of its own, all starting together; their results in order."""
    barrier = Barrier(len(actions))

    def run(action: Callable[[], T]) -> T:
        barrier.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


def each_at_once(workers: Sequence[U], act: Callable[[U], T]) -> list[T]:
    """Let every worker act in a thread of its own, all starting together."""
    return all_at_once([partial(act, worker) for worker in workers])


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fail after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_waiting(firm: Caller, other: Caller) -> bool:
    """Whether another connection waits for a lock."""
    pid = other.connection.info.backend_pid
    state = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
    return firm.value(state, pid) is True
