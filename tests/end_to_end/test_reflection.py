"""What an operator's tool finds out by reflection alone: every method, and how to call it."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.client.generations import new_generation_id
from tests.end_to_end.running import Running
from tests.pictures import make_picture

pytestmark = pytest.mark.timeout(300)

BUF = Path(sys.executable).with_name("buf")
CREDITS = "reelworks.credits.v1.CreditsService"
GENERATION = "reelworks.generation.v1.GenerationService"
EVENTS = "reelworks.generation.v1.PredictionEventService"
WEBHOOKS = "reelworks.webhook.v1.WebhookService"
WANTED: dict[str, object] = {
    "kind": "TEXT_TO_VIDEO",
    "model": "t2v-1.3B",
    "resolution": "480p",
    "prompt": "a kite over the dunes [stuck]",
}
UNREADABLE = {"webhookId": "msg_1", "receivedTime": "2026-11-21T12:00:00Z", "payload": "e30="}


def buf_curl(address: str, *arguments: str) -> str:
    done = subprocess.run(
        [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments[:-1],
         f"http://{address}/{arguments[-1]}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def list_methods(address: str) -> set[str]:
    listed = buf_curl(address, "--list-methods", "").split()
    return {method for method in listed if method.startswith("reelworks.")}


def call(address: str, method: str, **fields: object) -> dict[str, object]:
    answer: dict[str, object] = json.loads(buf_curl(address, "-d", json.dumps(fields), method))
    return answer


def watch(address: str, method: str, **fields: object) -> str:
    """The first message of a stream, as JSON; the stream has no end of its own."""
    command = [
        str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge",
        "-d", json.dumps(fields), f"http://{address}/{method}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        lines = []
        for line in watching.stdout:
            lines.append(line)
            if line.startswith(("{", "}")) and line.endswith("}\n"):  # On one line, or on many.
                break
        watching.kill()
    return "".join(lines)


def test_every_method_of_credits_can_be_listed_and_called(
    stack: Running, new_user: Callable[[], str]
) -> None:
    address, user = stack.up_file.addresses["credits"], new_user()
    calls: dict[str, dict[str, object]] = {
        "OpenAccount": {},
        "GetBalance": {},
        "AddCredits": {"credits": 5, "type": "PURCHASE", "requestId": "payment-1"},
        "Reserve": {"reservationId": "r1", "credits": 20},
        "Commit": {"reservationId": "r1", "credits": 15},
        "Reimburse": {"reservationId": "r1", "credits": 5, "requestId": "c1", "reason": "blurred"},
        "GetReservation": {"reservationId": "r1"},
        "ListReservations": {"state": "COMMITTED"},
        "ListTransactions": {"afterVersion": "2"},
        "VerifyLedger": {},
    }

    answers = {
        name: call(address, f"{CREDITS}/{name}", userId=user, **fields)
        for name, fields in calls.items()
    }
    call(address, f"{CREDITS}/Reserve", userId=user, reservationId="r2", credits=20)
    refunded = call(address, f"{CREDITS}/Refund", userId=user, reservationId="r2")
    watched = watch(address, f"{CREDITS}/WatchBalance", userId=user)

    names = [*calls, "Refund", "WatchBalance"]
    assert list_methods(address) == {f"{CREDITS}/{name}" for name in names}
    assert answers["GetReservation"]["state"] == "COMMITTED"
    assert answers["GetReservation"]["reimbursedCredits"] == "5"
    assert len(answers["ListReservations"]["reservations"]) == 1  # type: ignore[arg-type]  # JSON.
    assert len(answers["ListTransactions"]["transactions"]) == 3  # type: ignore[arg-type]  # JSON.
    assert "violations" not in answers["VerifyLedger"]
    assert refunded["balance"]["availableCredits"] == "95"  # type: ignore[index]  # JSON.
    assert '"availableCredits": "95"' in watched or '"availableCredits":"95"' in watched


def test_every_method_of_generation_can_be_listed_and_called(
    stack: Running, new_user: Callable[[], str]
) -> None:
    addresses, user, generation_id = stack.up_file.addresses, new_user(), new_generation_id()
    address = addresses["generation"]
    call(addresses["credits"], f"{CREDITS}/OpenAccount", userId=user)

    created = call(
        address,
        f"{GENERATION}/CreateGeneration",
        userId=user,
        generationId=generation_id,
        **WANTED,
    )
    got = call(address, f"{GENERATION}/GetGeneration", userId=user, generationId=generation_id)
    listed = call(address, f"{GENERATION}/ListGenerations", userId=user)
    models = call(address, f"{GENERATION}/ListModels")
    delivered = call(address, f"{EVENTS}/DeliverPredictionEvent", **UNREADABLE)
    watched = watch(
        address, f"{GENERATION}/WatchGenerations", userId=user, generationIds=[generation_id]
    )

    own: dict[str, object] = {"userId": user, "generationId": generation_id}
    again = new_generation_id()
    image = base64.b64encode(make_picture()).decode()
    calls: dict[str, dict[str, object]] = {
        "QuoteGeneration": {"userId": user, **WANTED},
        "UploadImage": {"userId": user, "content": image},
        "CancelGeneration": own,
        "RetryGeneration": own | {"newGenerationId": again},
        "DeleteGenerations": {"userId": user, "generationIds": [generation_id]},
        "GetStats": {},
        "ListParked": {},
    }
    answers = {name: call(address, f"{GENERATION}/{name}", **f) for name, f in calls.items()}

    assert answers["QuoteGeneration"]["costCredits"] == "10"
    assert answers["CancelGeneration"]["status"] == "CANCELED"
    assert answers["RetryGeneration"]["retryOf"] == generation_id
    assert answers["DeleteGenerations"] == {"deletedIds": [generation_id]}
    # Nothing is parked, so that nothing can be resumed.
    names = {*calls, "CreateGeneration", "GetGeneration", "ListGenerations", "ListModels"}
    methods = {f"{GENERATION}/{name}" for name in names | {"WatchGenerations", "ResumeGeneration"}}
    assert list_methods(address) == methods | {f"{EVENTS}/DeliverPredictionEvent"}
    assert created["generationId"] == got["generationId"] == generation_id
    assert len(listed["generations"]) == 1  # type: ignore[arg-type]  # JSON.
    assert len(models["models"]) == 3  # type: ignore[arg-type]  # JSON.
    assert delivered == {"disposition": "UNREADABLE"}
    assert generation_id in watched


def test_every_method_of_webhooks_can_be_listed_and_called(stack: Running) -> None:
    address = stack.up_file.addresses["webhook_grpc"]
    sent = stack.json("webhooks", "send-test")

    listed = call(address, f"{WEBHOOKS}/ListEvents", filter={"webhookIds": [sent["webhook_id"]]})
    ids = [event["eventId"] for event in listed["events"]]  # type: ignore[attr-defined]  # JSON.
    got = call(address, f"{WEBHOOKS}/GetEvent", eventId=ids[0])
    dry = call(address, f"{WEBHOOKS}/ReplayEvents", filter={"eventIds": ids}, dryRun=True)
    dropped = call(address, f"{WEBHOOKS}/DropEvents", eventIds=ids, reason="a test")

    names = {"ListEvents", "GetEvent", "ReplayEvents", "DropEvents"}
    assert list_methods(address) == {f"{WEBHOOKS}/{name}" for name in names}
    assert got["webhookId"] == sent["webhook_id"]
    assert (dry["replayedCount"], dropped["droppedCount"]) == ("1", "1")
