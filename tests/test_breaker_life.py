"""Random lives of breakers, every action with every reset policy, told to the model alike."""

from __future__ import annotations

import random
from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.breaker_model import Breaker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.breaker_desk import Desk


ACTIONS = ("NOTIFY", "REDUCE_ONLY", "HALT", "HALT_AND_CANCEL")
RESETS = (
    ("manual", None),
    ("manual", timedelta(seconds=20)),
    ("timer", timedelta(seconds=20)),
    ("session", None),
    ("session", timedelta(seconds=20)),
)
VALUES = (10, 26, 27, 28, 29, 30, 31, 35, 36, 37, 39, 40, 41, 60)
"""Around the thresholds 30 and 40, and around nine tenths of them."""
WORSE = {"ACTIVE": 0, "REDUCE_ONLY": 1, "HALTED": 2}


class Life:
    """Breakers on the VIX, and what the model says of each."""

    def __init__(self, desk: Desk, dice: random.Random, actions: Sequence[str]) -> None:
        self.desk, self.dice = desk, dice
        self.day = desk.now.date()
        desk.firm.call("open_day", day=self.day)
        desk.firm.hold("A1", "AAPL", 10**6)
        desk.vix(10)
        self.stands, self.new = 10, list[int]()
        self.breakers: dict[str, Breaker] = {}
        for threshold, action, (policy, cooldown) in product((30, 40), actions, RESETS):
            name = f"{threshold} {action} {policy} {cooldown}"
            scope = dice.choice(("F", "D1", "A1"))
            desk.define(
                name, threshold, scope=scope, action=action, reset_policy=policy, cooldown=cooldown
            )
            self.breakers[name] = Breaker(threshold, action, policy, cooldown)

    def step(self) -> None:
        """One thing that may happen, then an evaluation."""
        self.dice.choice((self.tell, self.tell, self.tell, self.wait, self.meddle, self.open_day))()
        self.desk.sweep()
        for breaker in self.breakers.values():
            breaker.evaluate(self.stands, self.new, self.desk.now, self.day)
        self.new.clear()

    def tell(self) -> None:
        """Values, all but the last gone before anybody looks."""
        for _ in range(self.dice.randint(1, 3)):
            self.stands = self.dice.choice(VALUES)
            self.new.append(self.stands)
            self.desk.vix(self.stands, sweeps=False)

    def wait(self) -> None:
        self.desk.wait(self.dice.choice((5, 19, 20, 60)))

    def meddle(self) -> None:
        """By hand."""
        for name in self.dice.sample(sorted(self.breakers), 8):
            breaker = self.breakers[name]
            if self.dice.random() < 0.3:
                self.desk.trip(name)
                breaker.trip(self.day, is_manual=True)
            else:
                allowed = breaker.reset(self.stands, self.desk.now)
                assert self.is_reset(name) is allowed, name

    def is_reset(self, name: str) -> bool:
        try:
            self.desk.reset(name)
        except psycopg.Error as error:
            if error.sqlstate != "RK409":
                raise
            return False
        return True

    def open_day(self) -> None:
        self.desk.wait(1)
        self.day += timedelta(days=1)
        self.desk.firm.call("open_day", day=self.day)

    def check(self) -> None:
        """The engine says what the model says, of every breaker and of the next orders."""
        rows = self.desk.firm.rows("select name, state, is_manual from risk.breakers")
        assert {row["name"]: (row["state"], bool(row["is_manual"])) for row in rows} == {
            name: (breaker.state, breaker.state == "TRIPPED" and breaker.is_manual)
            for name, breaker in self.breakers.items()
        }
        effect = max((each.effect for each in self.breakers.values()), key=WORSE.__getitem__)
        reason = "ACCEPTED" if effect == "ACTIVE" else "CIRCUIT_BREAKER_TRIPPED"
        assert self.desk.buy() == reason
        name = self.desk.firm.new_name()
        closes = self.desk.firm.check("A1", name, "AAPL", "sell", 1, 100).is_accepted
        assert closes is (effect != "HALTED")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_breakers_live_as_the_model_does(desk: Desk, number: int) -> None:
    """With the mildest so many actions, so that the grave ones do not hide the others."""
    life = Life(desk, random.Random(number), ACTIONS[:number])
    seen = set()
    for _ in range(60):
        life.step()
        life.check()
        seen |= {breaker.state for breaker in life.breakers.values()}
    assert seen == {"ARMED", "TRIPPED", "COOLDOWN"}
    assert desk.firm.differences() == []
