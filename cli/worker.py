"""`pgrisk worker`: the process that evaluates circuit breakers."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from pgrisk.cli.server import data_dir_option
from pgrisk.client.settings import database_url
from pgrisk.worker.health import serve
from pgrisk.worker.loop import NotLeadingError, Worker

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def worker() -> None:
    """Evaluate circuit breakers and do the engine's work in the background."""


@worker.command("run")
@data_dir_option
@click.option("--once", is_flag=True, help="Do everything that is due once, then end.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Answer /metrics, /healthz and /readyz on this port; 0 picks a free one.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    help="The address to answer on.",
)
def run_command(data_dir: Path, once: bool, metrics_port: int | None, metrics_host: str) -> None:
    """Run a worker until it gets SIGTERM or SIGINT; a second one kills it.

    It evaluates every circuit breaker at least every 250 ms and gives the heartbeat without which
    orders that do not reduce are refused. Several may run: one leads, the others take over within
    2 s when it is gone. Lost connections are made again for ever. Each event worth a line is a line
    of JSON on standard output.

    \b
    Exit codes:
      0  stopped by a signal; with --once: everything was done
      1  with --once: something failed; the log says what
      2  wrong usage
      5  with --once: the database cannot be reached
      6  with --once: another worker leads, so there was nothing to do

    \b
      pgrisk worker run
      pgrisk worker run --metrics-port 9187
      pgrisk worker run --once
    """
    process = Worker(database_url(data_dir))
    _stop_on_signals(process)
    with ExitStack() as stack:
        if metrics_port is not None:
            try:
                port = stack.enter_context(
                    serve(metrics_host, metrics_port, process.status, process.metrics)
                )
            except OSError as error:
                raise click.ClickException(
                    f"cannot answer on {metrics_host}:{metrics_port}: {error.strerror}"
                ) from error
            process.log.info("metrics_served", host=metrics_host, port=port)
        if not once:
            process.run_forever()
            return
        try:
            is_done = process.run_once()
        except NotLeadingError as error:
            click.echo(str(error), err=True)
            raise click.exceptions.Exit(6) from error
    if not is_done:
        raise click.exceptions.Exit(1)


def _stop_on_signals(process: Worker) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        process.stop()

    for number in numbers:
        signal.signal(number, stop)
