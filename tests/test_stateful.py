"""The engine and the oracle side by side, over random histories, compared after every step.

`PGRISK_RUNS` is the number of histories (500), each of at least 50 steps; `PGRISK_SEED` picks
other histories: a number, or `random`.
"""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.databases import create_database
from tests.stateful.adjusting import Adjusting
from tests.stateful.control import Control
from tests.stateful.engine import Engine
from tests.stateful.firm import Stage
from tests.stateful.following import Following

if TYPE_CHECKING:
    from pgrisk.client.embedded import Server

SHARDS = 4
RUNS_PER_SHARD = -(-int(os.environ.get("PGRISK_RUNS", "500")) // SHARDS)
RUNS_PER_SEED = 8  # one seed makes variations of what it began with
SETTINGS = settings(
    stateful_step_count=60,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


class EngineAndOracle(Following, Adjusting, Control):
    """One history of a small firm."""


def base_seed() -> int:
    """The seed of the first shard; the same on every run unless PGRISK_SEED says otherwise."""
    value = os.environ.get("PGRISK_SEED", "20150810")
    return random.SystemRandom().getrandbits(32) if value == "random" else int(value)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_engine_and_oracle_agree(server: Server, template: str, shard: int) -> None:
    first = base_seed()
    print(f"PGRISK_SEED={first}")
    with ExitStack() as databases:

        def new_engine() -> Engine:
            databases.close()
            database = create_database(server, template)
            databases.callback(database.drop)
            return Engine(databases.enter_context(database.connect()))

        stage = Stage(new_engine)

        while stage.full_runs < RUNS_PER_SHARD:

            @seed(first + shard + stage.runs * SHARDS)
            class Machine(EngineAndOracle):
                def __init__(self) -> None:
                    super().__init__(stage)

            examples = min(RUNS_PER_SEED, RUNS_PER_SHARD - stage.full_runs)
            run_state_machine_as_test(Machine, settings=settings(SETTINGS, max_examples=examples))
    print(f"{stage.runs} runs, {stage.steps} steps, {dict(stage.seen.most_common())}")
