"""What the demo shows at the end: read from the views, as any analyst would."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pgrisk.cli.demo_chart import area
from pgrisk.cli.demo_firm import DESKS, FIRM

if TYPE_CHECKING:
    import psycopg
    from rich.console import Console

    from pgrisk.cli.demo_breakers import BreakerStory
    from pgrisk.cli.demo_history import Equity, History
    from pgrisk.client.cache import CacheStats

_ROWS = 15
_EQUITY_LINES, _DRAWDOWN_LINES = 8, 4

_REASONS = """
select coalesce(d.reason, d.decision), coalesce(d.detail #>> '{violations,0,limit_type}', ''),
  count(*), round(count(*) * 100.0 / sum(count(*)) over (), 1)
from risk.decisions as d
group by d.decision, d.reason, 2
order by d.decision, sum(count(*)) over (partition by d.reason) desc, 3 desc"""

_AGENTS = """
select coalesce(s.path[2], 'all'), coalesce(d.account, ''), count(*),
  count(*) filter (where d.decision = 'ACCEPTED'), count(*) filter (where d.decision = 'REJECTED'),
  round(count(*) filter (where d.decision = 'REJECTED') * 100.0 / count(*), 1)
from risk.decisions as d
join risk.scopes as s on s.scope = d.account
group by grouping sets ((s.path[2], d.account), (s.path[2]), ())
order by grouping(s.path[2]), s.path[2], grouping(d.account) desc, d.account"""

_LIFE = """
select o.state, count(distinct o.order_id)
from risk.orders as o where o.decision = 'ACCEPTED' group by o.state order by 2 desc, 1"""

_FILLS = """
select f.kind, coalesce(f.flag, ''), count(*)
from risk.fills as f group by f.kind, f.flag order by 3 desc, 1, 2"""

_UTILIZATION = """
select u.scope, u.limit_type, coalesce(u.symbol, u.underlying, u.sector, u.instrument, 'all'),
  u.limit_value, u.used, u.worst_case, u.utilization_pct, u.status
from risk.limit_utilization as u
where u.limit_type not in ('order_rate', 'order_rate_minute') limit %s"""

_BREAKERS = """
select b.name, b.scope, b.action, coalesce(b.last_value, 0), b.threshold
from risk.breakers as b order by b.name"""

_POSITIONS = """
select p.account, p.symbol, p.quantity, p.open_buy, p.open_sell, round(p.average_price, 2), p.mark,
  round(p.market_value), round(p.unrealized_pnl)
from risk.positions as p
order by abs(p.market_value) desc nulls last, p.account, p.symbol limit %s"""


def show(console: Console, connection: psycopg.Connection[Any]) -> None:
    """Print what was decided, what became of it, and where the firm stands."""

    def table(title: str, columns: str, query: str, *parameters: int) -> None:
        rows = connection.execute(query.encode(), parameters).fetchall()
        _print_table(console, title, columns.split("|"), rows)

    held = connection.execute("select count(*) from risk.positions").fetchone()
    table("Decisions", "outcome|limit|orders|%", _REASONS)
    table("Desks and agents", "desk|agent|decisions|accepted|refused|refused %", _AGENTS)
    table("What became of accepted orders", "state|orders", _LIFE)
    table("Executions", "kind|flag|number", _FILLS)
    table(
        f"Tightest {_ROWS} limits (risk.limit_utilization)",
        "scope|limit|of|amount|filled|worst case|%|status",
        _UTILIZATION,
        _ROWS,
    )
    table(
        f"Largest {_ROWS} of {held[0] if held else 0:,} positions (risk.positions)",
        "account|symbol|quantity|open buy|open sell|average|mark|value|unrealized",
        _POSITIONS,
        _ROWS,
    )


def show_breakers(
    console: Console, connection: psycopg.Connection[Any], story: BreakerStory
) -> None:
    """Print every trip, and the breakers that never tripped."""
    rows: list[tuple[Any, ...]] = [
        (
            trip.breaker,
            trip.scope,
            trip.action,
            round(trip.value, 2),
            round(trip.threshold, 2),
            f"{trip.day:%m-%d} {trip.at:%H:%M:%S}",
            "" if trip.milliseconds is None else round(trip.milliseconds),
            *story.flow_of(trip),
            story.cancels_of(trip),
            f"{trip.reset_by.removeprefix('demo_')} {trip.reset_on:%m-%d}" if trip.reset_on else "",
        )
        for trip in story.trips
    ]
    tripped = {trip.breaker for trip in story.trips}
    rows += [
        (*row[:3], round(row[3], 2), round(row[4], 2), "never", *("",) * 5)
        for row in connection.execute(_BREAKERS).fetchall()
        if row[0] not in tripped
    ]
    columns = "breaker|scope|action|value|threshold|tripped|ms|refused|passed|cancels|reset by"
    title = "Circuit breakers (risk.breaker_events; ms from the breach to the first refusal)"
    _print_table(console, title, columns.split("|"), rows)


def show_cache(console: Console, stats: CacheStats, held_back: int) -> None:
    """Print what the cache of limits was good for."""
    reads = stats.hits + stats.misses + stats.bypasses + stats.shared
    _print_table(
        console,
        "Limits read by agents before they asked (client.cache)",
        ["reads", "hits", "hit %", "misses", "shared", "bypasses", "orders held back"],
        [
            (
                reads,
                stats.hits,
                Decimal(f"{100 * stats.hits / max(1, reads):.1f}"),
                stats.misses,
                stats.shared,
                stats.bypasses,
                held_back,
            )
        ],
    )


def show_course(console: Console, history: History) -> None:
    """Print how the desks came through the days, and the firm's equity as a chart."""
    closes = {scope: history.closes(scope) for scope in (FIRM, *DESKS)}
    _print_table(
        console,
        "Profit and loss by desk at each close (risk.pnl)",
        ["day", "equity", FIRM, "drawdown %", *DESKS],
        [
            (
                close.day,
                round(close.equity),
                round(close.pnl),
                Decimal(f"{close.drawdown:.2f}"),
                *(round(closes[desk][number].pnl) for desk in DESKS),
            )
            for number, close in enumerate(closes[FIRM])
        ],
    )
    _show_risks(console, history)
    _show_chart(console, history.of(FIRM))


def _show_risks(console: Console, history: History) -> None:
    """The Greeks of the days around the firm's wildest one."""
    closes = history.closes(FIRM)
    wildest = max(range(len(closes)), key=lambda number: abs(closes[number].pnl))
    days = {close.day for close in closes[max(0, wildest - 3) : wildest + 4]}
    risks = [risk for risk in history.risks if risk.day in days]
    order = (FIRM, *DESKS)
    _print_table(
        console,
        "Greeks and concentration by desk at the close (risk.portfolio_greeks)",
        ["day", "desk", "$ delta", "$ gamma 1 %", "vega", "theta", "largest", "% of equity"],
        [
            (
                risk.day,
                risk.scope,
                *map(round, (risk.dollar_delta, risk.dollar_gamma, risk.vega, risk.theta)),
                risk.largest,
                Decimal(f"{risk.concentration:.1f}"),
            )
            for risk in sorted(risks, key=lambda r: (r.day, order.index(r.scope)))
        ],
    )


def _show_chart(console: Console, samples: list[Equity]) -> None:
    """The firm's equity, and how far it is below its peak, after every round."""
    is_unicode = console.encoding.lower().startswith("utf")
    equities = [sample.equity / 1e6 for sample in samples]
    low, high = min(equities), max(equities)
    low -= (high - low) / _EQUITY_LINES
    drawdowns = [sample.drawdown for sample in samples]
    _print_area(
        console,
        "Equity of the firm, millions",
        area(equities, _EQUITY_LINES, low, high, is_unicode),
        (f"{high:.2f}", f"{low:.2f}"),
    )
    _print_area(
        console,
        "Drawdown, % below the peak",
        area(drawdowns, _DRAWDOWN_LINES, 0, max(drawdowns), is_unicode),
        (f"{max(drawdowns):.2f}", "0"),
    )
    days = sorted({sample.day for sample in samples})
    width = len(samples) // len(days)
    console.print(" " * 8 + "".join(f"{day:%d}".ljust(width) for day in days), highlight=False)


def _print_area(console: Console, title: str, lines: list[str], ends: tuple[str, str]) -> None:
    console.print()
    console.print(title, style="bold", highlight=False)
    for number, line in enumerate(lines):
        label = {0: ends[0], len(lines) - 1: ends[1]}.get(number, "")
        console.print(f"{label:>6}  {line}", highlight=False)


def _print_table(
    console: Console, title: str, columns: list[str], rows: list[tuple[Any, ...]]
) -> None:
    console.print()
    console.print(title, style="bold", highlight=False)
    console.print(_table(columns, rows))


def _table(columns: list[str], rows: list[tuple[Any, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        is_number = any(isinstance(row[number], int | Decimal) for row in rows)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: object) -> Text:
    if isinstance(value, Decimal):
        return Text(f"{value:,f}")
    return Text(f"{value:,}" if isinstance(value, int) else str(value))
