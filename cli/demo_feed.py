"""The demo's market data: lists instruments, sends marks and indicators."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pgrisk.cli.demo_market import option_terms, stock_terms

if TYPE_CHECKING:
    from pgrisk.cli.demo_broker import Connection
    from pgrisk.cli.demo_market import Market
    from pgrisk.cli.demo_scenarios import Session


class Feed:
    """Tells the engine what the market shows, as of now."""

    def __init__(self, admin: Connection, connection: Connection, market: Market) -> None:
        self._admin = admin
        self._connection = connection
        self._market = market
        self._unmarked: set[str] = set()

    def list_stocks(self) -> None:
        """List the stocks; options are listed day by day."""
        self._list(stock_terms())

    def open(self, session: Session) -> None:
        """Open the market and the engine's day."""
        is_first = not self._market.options
        new = self._market.open(session)
        self._list(option_terms(new))
        self._admin.execute("call risk.open_day(%s)", [session.day])
        # Marks of an option come from the day after it was listed on.
        self._unmarked = set() if is_first else {option.symbol for option in new}

    def send_indicators(self) -> None:
        """Send the S&P 500 and the VIX."""
        for name, value in (("SPX", self._market.spx), ("VIX", self._market.vix)):
            self._connection.execute("call risk.set_indicator(%s, %s)", [name, value])

    def send_marks(self) -> None:
        """Send what stocks and options cost."""
        market = self._market
        rows = [
            (symbol, quote)
            for symbol, quote in sorted(market.quotes.items())
            if symbol not in self._unmarked
        ]
        volatility = market.volatility
        self._connection.execute(
            "call risk.set_marks(symbols => %s, prices => %s, bids => %s, asks => %s, ivs => %s)",
            [
                [symbol for symbol, _ in rows],
                [quote.price for _, quote in rows],
                [quote.bid for _, quote in rows],
                [quote.ask for _, quote in rows],
                [volatility if symbol in market.options else None for symbol, _ in rows],
            ],
        )

    def _list(self, terms: list[dict[str, Any]]) -> None:
        self._admin.execute("call risk.upsert_instruments(%s)", [json.dumps(terms)])
