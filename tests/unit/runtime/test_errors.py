"""An error that one side raises is the error that the other side gets."""

import logging

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.runtime import errors
from services.runtime.errors import (
    FieldViolation,
    InvalidRequest,
    Overloaded,
    ServiceError,
    ServiceFailed,
    Unavailable,
    from_rpc_error,
    to_status,
)

DOMAIN = "toy.reelworks.dev"


def travelled(error: ServiceError) -> ServiceError:
    """Returns what a client makes of an error that a server raised."""
    return from_rpc_error(on_the_wire(to_status(error, DOMAIN)))


def on_the_wire(status: status_pb2.Status) -> grpc.aio.AioRpcError:
    sent = rpc_status.to_status(status)
    return grpc.aio.AioRpcError(
        sent.code,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*sent.trailing_metadata),
        details=sent.details,
    )


def details(error: ServiceError) -> dict[str, bytes]:
    status = to_status(error, DOMAIN)
    return {detail.TypeName().rpartition(".")[2]: detail.value for detail in status.details}


@pytest.mark.parametrize(
    "kind",
    [
        errors.NotFound,
        errors.AlreadyExists,
        errors.PreconditionFailed,
        errors.NotAllowed,
        errors.Overloaded,
        errors.Conflict,
        errors.Unavailable,
        errors.DeadlineExceeded,
    ],
)
def test_each_kind_keeps_status_reason_message_and_metadata(kind: type[ServiceError]) -> None:
    arrived = travelled(kind("SOME_REASON", "Said so.", required=5, available="4"))

    assert type(arrived) is kind
    assert (arrived.reason, str(arrived)) == ("SOME_REASON", "Said so.")
    assert arrived.metadata == {"required": "5", "available": "4"}


def test_a_defect_tells_no_more_than_that() -> None:
    arrived = travelled(ServiceFailed())

    assert isinstance(arrived, ServiceFailed)
    assert arrived.reason == "INTERNAL_FAILURE"
    assert arrived.log_level == logging.ERROR


def test_all_bad_fields_travel() -> None:
    sent = [FieldViolation("user_id", "must be set"), FieldViolation("a.b[2]", "must be even")]

    arrived = travelled(InvalidRequest(sent))

    assert isinstance(arrived, InvalidRequest)
    assert list(arrived.violations) == sent
    assert arrived.reason == "INVALID_FIELD"
    assert arrived.message == "user_id must be set; a.b[2] must be even"


def test_a_single_violation_gives_the_error_its_own_reason() -> None:
    special = FieldViolation("model", "must be known", "MODEL_NOT_FOUND", {"model": "x"})

    alone = travelled(InvalidRequest([special]))
    in_company = travelled(InvalidRequest([special, FieldViolation("prompt", "must be set")]))

    assert (alone.reason, alone.metadata) == ("MODEL_NOT_FOUND", {"model": "x"})
    assert (in_company.reason, in_company.metadata) == ("INVALID_FIELD", {})


def test_overload_says_when_to_come_back() -> None:
    arrived = travelled(Overloaded("SERVICE_OVERLOADED", "Too much.", retry_after_s=0.3))

    assert isinstance(arrived, Overloaded)
    assert arrived.retry_after_s == 0.3
    assert "RetryInfo" in details(arrived)


def test_the_domain_is_the_services_own() -> None:
    info = error_details_pb2.ErrorInfo()
    info.MergeFromString(details(Unavailable("GONE", "Away."))["ErrorInfo"])

    assert (info.reason, info.domain) == ("GONE", DOMAIN)
    assert "ErrorInfo" not in details(Unavailable("", "Nobody gave a reason."))


def test_details_stay_below_what_a_header_may_hold() -> None:
    many = InvalidRequest([FieldViolation(f"field{n}", "x" * 10_000) for n in range(1000)])
    long = errors.NotFound("GONE", "x" * 100_000, **{f"key{n}": "y" * 10_000 for n in range(8)})

    assert to_status(many, DOMAIN).ByteSize() < 16 * 1024
    assert to_status(long, DOMAIN).ByteSize() < 16 * 1024


def test_an_error_without_details_keeps_its_kind() -> None:
    def bare(code: grpc.StatusCode) -> ServiceError:
        return from_rpc_error(
            grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="proxy")
        )

    assert type(bare(grpc.StatusCode.UNAVAILABLE)) is Unavailable
    assert type(bare(grpc.StatusCode.UNIMPLEMENTED)) is ServiceFailed
    assert type(bare(grpc.StatusCode.UNKNOWN)) is ServiceFailed
    # A stopping server cancels what nobody here canceled.
    assert type(bare(grpc.StatusCode.CANCELLED)) is Unavailable
    assert bare(grpc.StatusCode.UNAVAILABLE).reason == ""


def test_details_that_cannot_be_read_do_not_hide_the_status() -> None:
    broken = grpc.aio.AioRpcError(
        grpc.StatusCode.NOT_FOUND,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff")),
        details="gone",
    )

    assert type(from_rpc_error(broken)) is errors.NotFound
