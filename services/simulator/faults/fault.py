"""Which faults there are: where each fires, what it does then, and how often."""

from dataclasses import dataclass
from typing import Annotated, Generic, Self, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.simulator.faults.action import Action, Operation, Seconds
from services.simulator.faults.actions import (
    AnswerAction,
    CancelRace,
    FileAction,
    LifeAction,
    ListAction,
    ShownAction,
    WorldAction,
)
from services.simulator.faults.webhook_actions import AttemptAction, EventAction

__all__ = [
    "ANSWER",
    "ATTEMPT",
    "CANCEL",
    "EVENT",
    "FILE",
    "LIFE",
    "LIST",
    "SHOWN",
    "WORLD",
    "AnyAction",
    "Fault",
    "Group",
    "Match",
    "Subject",
]

AnyAction = (
    AnswerAction
    | ShownAction
    | ListAction
    | CancelRace
    | LifeAction
    | FileAction
    | EventAction
    | AttemptAction
    | WorldAction
)
ActionType = TypeVar("ActionType")


@dataclass(frozen=True, slots=True)
class Group(Generic[ActionType]):
    """The actions that are asked for at one kind of place."""

    name: str
    types: tuple[type[Action], ...]

    def member(self, action: Action) -> ActionType | None:
        """Returns `action` if it belongs to the group."""
        return cast("ActionType", action) if isinstance(action, self.types) else None


ANSWER: Group[AnswerAction] = Group("answer", get_args(AnswerAction))
SHOWN: Group[ShownAction] = Group("shown", get_args(ShownAction))
LIST: Group[ListAction] = Group("list", get_args(ListAction))
CANCEL: Group[CancelRace] = Group("cancel", (CancelRace,))
LIFE: Group[LifeAction] = Group("life", get_args(LifeAction))
FILE: Group[FileAction] = Group("file", get_args(FileAction))
EVENT: Group[EventAction] = Group("event", get_args(EventAction))
ATTEMPT: Group[AttemptAction] = Group("attempt", get_args(AttemptAction))
WORLD: Group[WorldAction] = Group("world", get_args(WorldAction))


@dataclass(frozen=True, slots=True)
class Subject:
    """What is being done, as far as a fault can tell it from others."""

    operation: Operation
    account: str
    """Key of the account; empty where no token is asked for."""
    model: str | None = None
    """`owner/name`."""
    generation: str | None = None
    """`g` in the query of the prediction's webhook address."""
    prediction: str | None = None
    event: str | None = None
    """Of a webhook: `start`, `output`, `logs` or `completed`."""


class Match(BaseModel):
    """Where a fault fires; what is not given matches everything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Operation | None = None
    model: str | None = None
    """`owner/name`."""
    token: Annotated[str, Field(min_length=1)] | None = None
    """API token of the account."""
    generation: str | None = None
    """`g` in the query of the prediction's webhook address."""
    prediction: str | None = None
    event: Annotated[str, Field(pattern="^(start|output|logs|completed)$")] | None = None
    """Of a webhook."""
    nth: Annotated[int, Field(ge=1)] | None = None
    """Fires at the n-th time only that all else matches."""
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the times that all else matches."""


class Fault(BaseModel):
    """A fault as the control API takes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: Match = Match()
    action: Annotated[AnyAction, Field(discriminator="kind")]
    times: Annotated[int, Field(ge=1)] | None = 1
    """How often it fires; None means without end."""
    lasts_s: Seconds | None = None
    """For how long it is there; None means until it is removed."""

    @model_validator(mode="after")
    def _fires_somewhere(self) -> Self:
        wanted = self.match.operation
        if wanted is not None and wanted not in self.action.operations:
            places = ", ".join(sorted(self.action.operations))
            raise ValueError(
                f"{self.action.kind} cannot fire at operation {wanted}, only at: {places}"
            )
        if self.match.event is not None and Operation.WEBHOOK not in self.action.operations:
            raise ValueError(f"{self.action.kind} cannot fire at an event: it is of no webhook")
        return self
