"""Commands as they are typed, where no service runs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def reelworks(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REELWORKS_", "REPLICATE_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env=inherited | {"REELWORKS_VAR": str(folder / "var")} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "a red fox in the snow"],
        ["models"],
        ["credits", "balance"],
        ["credits", "transactions", "--csv"],
        ["generations", "list"],
        ["generations", "cancel", "x"],
        ["generations", "stats"],
        ["generate", "a red fox in the snow", "--quote"],
    ],
)
def test_without_services_one_line_says_what_to_start(tmp_path: Path, arguments: list[str]) -> None:
    nobody = {
        "REELWORKS_CREDITS_ADDRESS": free_address(),
        "REELWORKS_GENERATION_ADDRESS": free_address(),
    }

    result = reelworks(tmp_path, *arguments, **nobody)

    assert result.returncode == 1
    assert result.stderr == "error: Reelworks does not answer; start it with `reelworks up`\n"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["generate"], "PROMPT"),
        (["generate", "a red fox in the snow", "--kind", "song"], "--kind"),
        (["generate", "a red fox in the snow", "--output", "missing/x.mp4"], "--output"),
        (["generate", b"a red fox \xff in the snow"], "UTF-8"),
        (["credits", "grant", "9" * 30], "64 bits"),
        (["credits", "grant", "5", "--type", "loan"], "--type"),
        (["credits", "adjust", "ann", "5", "--reason", "a gift"], "sign"),
        (["credits", "adjust", "ann", "-" + "9" * 30, "--reason", "too much"], "64 bits"),
        (["credits", "adjust", "ann", "+5"], "--reason"),
        (["credits", "reservations", "--state", "lost"], "--state"),
        (["credits", "reservations", "--older-than", "1y"], "--older-than"),
        (["credits", "transactions", "--csv", "--json"], "--csv"),
        (["generate", "a red fox in the snow", "--image", "missing.png"], "--image"),
        (
            ["generate", "a red fox", "--image", "x.png", "--image-uri", "https://a.example/x.png"],
            "--image",
        ),
        (
            ["generate", "a red fox", "--image", "x.png", "--image-uri", "https://a.example/x.png"],
            "give one of the two",
        ),
        (["generate", "a red fox in the snow", "--output", __file__], "--force"),
        (["generations", "retry", "x", "--output", __file__], "--force"),
        (["generations", "resume", "x", "--at", "completed"], "reserving, ready, submitting"),
        (["generations", "list", "--status", "lost"], "--status"),
        (["generations", "list", "--kind", "song"], "--kind"),
        (["generations", "delete", *(str(number) for number in range(101))], "100"),
        (["generations", "resume", "x", "--at", "lunch"], "--at"),
        (["generations", "retry", "x", "--output", "missing/x.mp4"], "--output"),
        (["migrate", "studio"], "studio"),
        (["up", "--speed", "0"], "--speed"),
    ],
)
def test_wrong_usage_is_named_with_exit_code_2(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    result = reelworks(tmp_path, *arguments)

    assert result.returncode == 2
    assert named in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])

        result = reelworks(tmp_path, "up", "--webhook-port", port, "--simulator-port", "0")

    assert result.returncode == 2
    assert result.stderr == (
        f"error: port {port}, for webhook, is taken by another process; "
        "stop that one, or choose another with --webhook-port\n"
    )
    assert result.stdout == ""
    assert not (tmp_path / "var").exists()


def test_migrating_tells_each_result_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    first = reelworks(tmp_path, "migrate")
    before = {file.name: file.read_bytes() for file in (tmp_path / "var").glob("*.sqlite3")}

    second = reelworks(tmp_path, "migrate", "credits", "--json")

    assert first.returncode == 0, first.stderr
    assert sorted(first.stdout.splitlines()) == [
        f"{service}: has the newest schema" for service in ("credits", "generation", "webhook")
    ]
    (result,) = map(json.loads, second.stdout.splitlines())
    assert (result["service"], result["succeeded"]) == ("credits", True)
    assert before == {f.name: f.read_bytes() for f in (tmp_path / "var").glob("*.sqlite3")}
    assert len(before) == 3


def test_a_migration_that_fails_is_told_with_the_service_s_own_words(tmp_path: Path) -> None:
    result = reelworks(tmp_path, "migrate", "credits", REELWORKS_CREDITS_DATABASE_URL="mysql://x/y")

    assert result.returncode == 1
    assert "credits: error: REELWORKS_DATABASE_URL" in result.stderr
