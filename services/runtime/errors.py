"""The errors that callers are told about, and how they travel as `google.rpc.Status` (AIP-193).

    ServiceError
    ├── InvalidRequest      INVALID_ARGUMENT     fields are malformed; all of them are listed
    ├── NotFound            NOT_FOUND            what was named does not exist for this user
    ├── AlreadyExists       ALREADY_EXISTS       a key was used with other fields
    ├── PreconditionFailed  FAILED_PRECONDITION  a rule of the product says no
    ├── NotAllowed          PERMISSION_DENIED    this caller may not use this method
    ├── Overloaded          RESOURCE_EXHAUSTED   come back after `retry_after_s`
    ├── Conflict            ABORTED              others wrote the same rows; repeat
    ├── Unavailable         UNAVAILABLE          something cannot be reached; repeat
    ├── DeadlineExceeded    DEADLINE_EXCEEDED    the outcome is open; repeat with the same key
    └── ServiceFailed       INTERNAL             a defect; callers learn no more

A server raises one of these and a client gets the same one back, so a service that calls another
reads `error.reason` and `error.metadata` as if it had been raised at home.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

__all__ = [
    "AlreadyExists",
    "Conflict",
    "DeadlineExceeded",
    "FieldViolation",
    "InvalidRequest",
    "NotAllowed",
    "NotFound",
    "Overloaded",
    "PreconditionFailed",
    "ServiceError",
    "ServiceFailed",
    "Unavailable",
    "from_rpc_error",
    "to_status",
]

# Details above 16 KiB turn every error into RESOURCE_EXHAUSTED at the client, so texts are cut.
MESSAGE_CHARACTERS_MAX = 1000
METADATA_CHARACTERS_MAX = 256
VIOLATIONS_MAX = 32


class ServiceError(Exception):
    """An error that a caller is told about by a status, a reason and its metadata.

    `reason` is a value of the `ErrorReason` of the package that raised it, or "" where no service
    gave one. `metadata` explains it to programs, as that value's comment says.
    """

    status: grpc.StatusCode
    log_level: int = logging.INFO
    """A refusal is no fault of ours; a fault of ours is logged with its stack."""

    def __init__(self, reason: str, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of a request."""

    field: str
    """Path of the field, as `a.b[2]`."""
    rule: str
    """What the field must be, as the end of a sentence that begins with its name."""
    reason: str = "INVALID_FIELD"
    """The reason that the whole error has if this is its only violation."""
    metadata: Mapping[str, str] = dataclass_field(default_factory=dict)


class InvalidRequest(ServiceError):
    """Fields are malformed; every one is listed in `violations`."""

    status = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        self.violations = tuple(violations[:VIOLATIONS_MAX])
        only = violations[0] if len(violations) == 1 else FieldViolation("", "")
        message = "; ".join(f"{v.field} {v.rule}" for v in self.violations)
        super().__init__(only.reason, message, **only.metadata)


class NotFound(ServiceError):
    """What was named does not exist for this user."""

    status = grpc.StatusCode.NOT_FOUND


class AlreadyExists(ServiceError):
    """A key was used before with other fields."""

    status = grpc.StatusCode.ALREADY_EXISTS


class PreconditionFailed(ServiceError):
    """A rule of the product says no."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class NotAllowed(ServiceError):
    """This caller may not use this method."""

    status = grpc.StatusCode.PERMISSION_DENIED
    log_level = logging.WARNING


class Overloaded(ServiceError):
    """Too much work waits; `retry_after_s` says when to come back."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    log_level = logging.WARNING

    def __init__(
        self, reason: str, message: str, retry_after_s: float = 1.0, **metadata: object
    ) -> None:
        super().__init__(reason, message, **metadata)
        self.retry_after_s = retry_after_s


class Conflict(ServiceError):
    """Others wrote the same rows too often meanwhile; the call can be repeated."""

    status = grpc.StatusCode.ABORTED
    log_level = logging.WARNING


class Unavailable(ServiceError):
    """Something that the call needs cannot be reached; the call can be repeated."""

    status = grpc.StatusCode.UNAVAILABLE
    log_level = logging.WARNING


class DeadlineExceeded(ServiceError):
    """The time of the call is over and its outcome is open; repeat it with the same key."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


class ServiceFailed(ServiceError):
    """A defect of the service; callers are told no more than that."""

    status = grpc.StatusCode.INTERNAL
    log_level = logging.ERROR

    def __init__(
        self, reason: str = "INTERNAL_FAILURE", message: str = "The service failed."
    ) -> None:
        super().__init__(reason, message)


_BY_STATUS: dict[grpc.StatusCode, type[ServiceError]] = {
    kind.status: kind
    for kind in (
        NotFound,
        AlreadyExists,
        PreconditionFailed,
        NotAllowed,
        Conflict,
        Unavailable,
        DeadlineExceeded,
    )
}


def to_status(error: ServiceError, domain: str) -> status_pb2.Status:
    """Returns the status that tells a caller of `error`, with details in AIP-193's form."""
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.status.name), message=error.message[:MESSAGE_CHARACTERS_MAX]
    )
    if error.reason:
        metadata = {k: v[:METADATA_CHARACTERS_MAX] for k, v in error.metadata.items()}
        _attach(
            status,
            error_details_pb2.ErrorInfo(reason=error.reason, domain=domain, metadata=metadata),
        )
    if isinstance(error, InvalidRequest):
        _attach(
            status,
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field,
                        description=violation.rule[:METADATA_CHARACTERS_MAX],
                        reason=violation.reason,
                    )
                    for violation in error.violations
                ]
            ),
        )
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_rpc_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """Returns the error that the other side raised, as far as its status tells."""
    info, bad_request, retry_info = _details(error)
    message = error.details() or ""
    code = error.code()
    metadata: dict[str, str] = dict(info.metadata)
    raised: ServiceError
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        raised = InvalidRequest(
            [
                FieldViolation(v.field, v.description, v.reason or "INVALID_FIELD")
                for v in bad_request.field_violations
            ]
        )
        raised.reason, raised.message, raised.metadata = info.reason, message, metadata
        raised.args = (message,)
    elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        delay_s = retry_info.retry_delay.ToMilliseconds() / 1000
        raised = Overloaded(info.reason, message, delay_s or 1.0)
        raised.metadata = metadata
    elif code is grpc.StatusCode.CANCELLED:
        # Nobody here canceled, or the call would have raised CancelledError: a stopping server
        # cancels what waits in its queue (grpc/grpc#41785).
        raised = Unavailable(info.reason, message)
    elif code in _BY_STATUS:
        raised = _BY_STATUS[code](info.reason, message)
        raised.metadata = metadata
    else:
        raised = ServiceFailed(info.reason, f"{code.name}: {message}")
    return raised


def _attach(status: status_pb2.Status, detail: object) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]  # google.rpc has no stubs.
    status.details.append(packed)


def _details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo]:
    """Returns the details of an error, each empty where the other side sent none."""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry_info = error_details_pb2.RetryInfo()
    try:
        # An AioRpcError has the three methods of a Call that are read, though it is none.
        status = rpc_status.from_call(cast("grpc.Call", error))
        for detail in status.details if status is not None else ():
            for wanted in (info, bad_request, retry_info):
                detail.Unpack(wanted)
    except (ValueError, DecodeError):
        pass  # Whoever answered does not speak AIP-193, a proxy for one; the status stands alone.
    return info, bad_request, retry_info
