"""Carries out the faults that change the stand-in itself."""

from typing import assert_never

from services.simulator.accounts import Accounts
from services.simulator.conditions import Conditions
from services.simulator.faults.actions import ExpireNow, Jump, Rotate, SchemaDrift, Skew
from services.simulator.faults.fault import WORLD, Subject
from services.simulator.predictions import Predictions

__all__ = ["World"]


class World:
    """What the faults of the world change."""

    def __init__(
        self,
        conditions: Conditions,
        accounts: Accounts,
        predictions: Predictions,
    ) -> None:
        self._conditions = conditions
        self._accounts = accounts
        self._predictions = predictions

    def strike(self, subject: Subject) -> bool:
        """Carries out all that fires at `subject`, before it is done.

        Returns whether the retention of its prediction was ended.
        """
        clock = self._conditions.clock
        expired = False
        for action in self._conditions.faults.fire_all(subject, WORLD):
            match action:
                case Skew():
                    clock.skew_s = action.skew_s
                case Jump():
                    clock.jump(action.jump_s)
                case Rotate():
                    self._accounts.rotate(clock.now() + action.overlap_s)
                case SchemaDrift():
                    self._conditions.switchboard.change({"schemas": action.generation})
                case ExpireNow():
                    if subject.prediction is not None:  # Else it is an uploaded file.
                        self._predictions.expire(subject.prediction)
                        expired = True
                case _:
                    assert_never(action)
        return expired
