"""What every action of a fault is made of, and the operations at which one can fire."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["API", "SHOWN", "Action", "Operation", "Seconds"]


class Operation(StrEnum):
    """What is being done when a fault may fire."""

    CREATE = "create"
    GET = "get"
    LIST = "list"
    CANCEL = "cancel"
    MODEL = "model"
    """A model or one of its versions is read."""
    SECRET = "secret"  # noqa: S105  A word of the control API.
    UPLOAD = "upload"
    """Any call about uploaded files."""
    ACCOUNT = "account"
    FILE = "file"
    """A video or an uploaded file is fetched from the delivery listener."""
    LIFE = "life"
    """A prediction begins to live."""
    WEBHOOK = "webhook"
    """An event is sent."""


API = frozenset(Operation) - {Operation.FILE, Operation.LIFE, Operation.WEBHOOK}
"""The operations that are calls of the API."""
SHOWN = frozenset({Operation.CREATE, Operation.GET, Operation.LIST, Operation.CANCEL})
"""The operations that answer with predictions."""

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
"""A span of real time, whatever the simulator's speed."""


class Action(BaseModel):
    """What a fault does when it fires; `kind` names it in the control API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    operations: ClassVar[frozenset[Operation]]
    """Where it can fire."""

    def __init_subclass__(cls, at: frozenset[Operation] | Operation) -> None:
        super().__init_subclass__()
        cls.operations = at if isinstance(at, frozenset) else frozenset({at})
