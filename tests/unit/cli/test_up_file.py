"""Commands find what runs, and two stacks do not share a folder."""

from pathlib import Path
from typing import Any

import pytest

from services.cli.up_file import (
    AlreadyUp,
    UpFile,
    lock_folder,
    read_up_file,
    remove_up_file,
    service_address,
    write_up_file,
)

CONTENT = UpFile(7, {"credits": "127.0.0.1:1", "generation": "127.0.0.1:2"}, {"credits": 8})


def test_what_was_written_is_read_until_it_is_removed(tmp_path: Path) -> None:
    write_up_file(tmp_path, CONTENT)
    assert read_up_file(tmp_path) == CONTENT

    remove_up_file(tmp_path)
    remove_up_file(tmp_path)

    assert read_up_file(tmp_path) is None
    assert read_up_file(tmp_path / "missing") is None


def test_the_environment_wins_then_what_runs_then_the_usual_port(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.delenv("REELWORKS_CREDITS_ADDRESS", raising=False)
    assert service_address("credits", tmp_path) == "127.0.0.1:50051"

    write_up_file(tmp_path, CONTENT)
    assert service_address("credits", tmp_path) == "127.0.0.1:1"

    monkeypatch.setenv("REELWORKS_CREDITS_ADDRESS", "credits.example:50051")
    assert service_address("credits", tmp_path) == "credits.example:50051"


def test_a_folder_is_used_by_one_stack_at_a_time(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(AlreadyUp, match=str(tmp_path)):
        lock_folder(tmp_path)

    lock_folder(tmp_path).close()
