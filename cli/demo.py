"""`pgrisk demo`: a small firm's trading through a market break."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pgrisk import migrations
from pgrisk.cli import demo_report
from pgrisk.cli.demo_ending import Ending
from pgrisk.cli.demo_play import Plan, Stage
from pgrisk.cli.demo_scenarios import AUGUST_2015, SCENARIOS
from pgrisk.cli.demo_services import limit_cache, logins, worker
from pgrisk.cli.demo_trader import DemoError
from pgrisk.cli.server import start_database
from pgrisk.client import embedded
from pgrisk.client.embedded_cache import EmbeddedCacheError
from pgrisk.client.settings import real_server_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgrisk.cli.demo_scenarios import Session

_ORDERS = 3  # of each agent in each round: about 2,900 decisions in August 2015
_WIDTH_OF_A_PIPE = 120


@click.command()
@click.option(
    "--scenario",
    type=click.Choice(list(SCENARIOS)),
    default=AUGUST_2015.name,
    show_default=True,
    help="The market break to replay.",
)
@click.option(
    "--days",
    type=click.IntRange(1),
    help="Replay only so many trading days from the scenario's first on.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the embedded server.  [default: a temporary one]",
)
@click.option("--keep", is_flag=True, help="Leave the server up and print how to connect.")
def demo(scenario: str, days: int | None, data_dir: Path | None, keep: bool) -> None:
    """Replay a market break through the engine: eleven agents, circuit breakers, a worker.

    Closes are those of 2015-08-10 to 2015-08-28, or of 2018-01-29 to 2018-02-09; agents, broker
    and options are made up. The worker trips breakers by itself, an admin resets them the next day.
    It ends with what was decided and why, and with a recount of all counters: exit code 1 when one
    is wrong.

    \b
      pgrisk demo
      pgrisk demo --scenario 2018-02
      pgrisk demo --days 3
      pgrisk demo --keep --data-dir /srv/pgrisk-demo

    With PGRISK_DATABASE_URL set it runs there, provided that nobody has set up a firm there; with
    PGRISK_REDIS_URL, limits are cached there.
    """
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_PIPE
    chosen = SCENARIOS[scenario]
    plan = Plan(chosen, chosen.sessions()[:days], _ORDERS)
    with Ending() as ending, _database(data_dir, keep, console) as url:
        try:
            with ending.between_steps():
                replay(url, plan, console, ending.step, keep)
        except (DemoError, EmbeddedCacheError) as error:
            raise click.ClickException(str(error)) from error


def replay(
    url: str, plan: Plan, console: Console, step: Callable[[], None], keep: bool = False
) -> None:
    """Set the firm up in a migrated database, replay the days of the plan and report.

    `step` is called between its steps, and may raise to end it; `keep` leaves the logins there.
    Raises DemoError when the database is in use, when the worker ends, when an answer changes on
    asking again, or when what is stored is wrong.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} decisions"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = progress.add_task("setting up", total=plan.decisions)

    def tell(line: str) -> None:
        console.print("  " + line, highlight=False, soft_wrap=True)

    with psycopg.connect(url, autocommit=True) as owner:
        require_no_scopes(owner)
        with (
            logins(url, owner, keep) as made,
            worker(made) as process,
            limit_cache(made) as cache,
            Stage(
                plan, made, process, cache, step, lambda n: progress.advance(task, n), tell
            ) as stage,
        ):
            stage.set_up()
            started = time.perf_counter()
            with progress:
                for number, session in enumerate(plan.sessions, start=1):
                    progress.update(task, description=_describe(session))
                    if not console.is_terminal:
                        console.print(_describe(session), highlight=False)
                    stage.play(session)
                    asked = round(progress.tasks[task].completed)
                    progress.update(task, total=asked / number * len(plan.sessions))
            seconds = time.perf_counter() - started
            demo_report.show(console, stage.analyst)
            demo_report.show_breakers(console, stage.analyst, stage.story)
            demo_report.show_cache(console, cache.stats(), stage.held_back)
            demo_report.show_course(console, stage.history)
            console.print()
            verify(console, stage.analyst, asked)
    console.print(f"{asked:,} decisions in {seconds:.1f} s", style="bold", highlight=False)


def require_no_scopes(connection: psycopg.Connection) -> None:
    """Raises DemoError where somebody has set up a firm."""
    if connection.execute("select from risk.scopes").fetchone() is not None:
        raise DemoError(
            "the database has scopes already, and the demo needs one without: name a new directory "
            "with --data-dir, or an empty database in PGRISK_DATABASE_URL"
        )


def _describe(session: Session) -> str:
    close = session.close
    return f"{close.day}  S&P 500 {close.spx:,.2f}  VIX {close.vix:5.2f}"


def verify(console: Console, connection: psycopg.Connection, asked: int) -> None:
    """Recount everything. Raises DemoError for a wrong counter, or a decision lost or doubled."""
    differences = connection.execute("select * from risk.verify_counters()").fetchall()
    console.print(f"risk.verify_counters(): {len(differences)} differences", highlight=False)
    for difference in differences:
        console.print(*difference, highlight=False)
    (stored,) = connection.execute("select count(*) from risk.decisions").fetchone() or (0,)
    if differences:
        raise DemoError(f"{len(differences)} counters are wrong")
    if stored != asked:
        raise DemoError(f"{asked:,} orders were asked about, but {stored:,} decisions are stored")


@contextmanager
def _database(data_dir: Path | None, keep: bool, console: Console) -> Iterator[str]:
    """The URL of a migrated database: PGRISK_DATABASE_URL, else on a server for the demo."""
    url = real_server_url()
    if url:
        migrations.upgrade(url)
        yield url
        return
    directory = data_dir or Path(tempfile.mkdtemp(prefix="pgrisk-demo-"))
    keep = keep or (data_dir is not None and embedded.find(data_dir) is not None)
    try:
        with console.status("starting PostgreSQL"):
            url = start_database(directory)
            migrations.upgrade(url)
        yield url
        if keep:
            _tell_how_to_connect(console, url, directory)
    finally:
        server = None if keep else embedded.find(directory)
        if server:
            server.stop()
        if not keep and data_dir is None:
            shutil.rmtree(directory)


def _tell_how_to_connect(console: Console, url: str, directory: Path) -> None:
    psql = shutil.which("psql") or embedded.find_binaries() / "psql"
    for line in (
        "The server stays up. To connect as its superuser (the line holds the password):",
        f"  {psql} {url}",
        "The worker and the cache have stopped. Until a worker runs, only reducing orders pass:",
        f"  pgrisk worker run --data-dir {directory}",
        "To stop the server:",
        f"  pgrisk down --data-dir {directory}",
    ):
        console.print(line, highlight=False, soft_wrap=True)
