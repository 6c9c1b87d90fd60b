"""The record that a running stack leaves in its folder, by which commands find the services."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

__all__ = [
    "AlreadyUp",
    "UpFile",
    "lock_folder",
    "read_up_file",
    "remove_up_file",
    "service_address",
    "write_up_file",
]

DEFAULT_ADDRESSES = {
    "credits": "127.0.0.1:50051",
    "generation": "127.0.0.1:50052",
    "webhook_grpc": "127.0.0.1:50053",
}


class AlreadyUp(Exception):
    """Another stack uses the folder; two would write the same databases."""


@dataclass(frozen=True, slots=True)
class UpFile:
    """What `var/up.json` says; it is there while everything runs."""

    process_id: int
    """The supervisor."""
    addresses: Mapping[str, str]
    """Where to reach each process, by name."""
    processes: Mapping[str, int]
    """Process ids, by name; without those that are being started again."""


def write_up_file(var: Path, content: UpFile) -> None:
    """Writes the record of the stack in `var`; readers see the old or the new one, whole."""
    draft = var / "up.json.draft"
    draft.write_text(json.dumps(asdict(content), indent=2) + "\n")
    draft.replace(var / "up.json")


def read_up_file(var: Path) -> UpFile | None:
    """Returns the record of the stack in `var`, None if there is none."""
    try:
        return UpFile(**json.loads((var / "up.json").read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None


def remove_up_file(var: Path) -> None:
    """Removes the record of the stack in `var`."""
    (var / "up.json").unlink(missing_ok=True)


def lock_folder(var: Path) -> TextIO:
    """Takes `var` for this process until the file that is returned is closed.

    Raises AlreadyUp if another process has it. The lock ends with its process, however that ends.
    """
    file = (var / "up.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise AlreadyUp(f"Reelworks is up already with the data in {var}") from None
    return file


def service_address(service: str, var: Path) -> str:
    """Returns where to reach `credits`, `generation` or `webhook_grpc`.

    `REELWORKS_<SERVICE>_ADDRESS` wins, then what runs with the data in `var`, then the usual port.
    """
    given = os.environ.get(f"REELWORKS_{service.upper()}_ADDRESS")
    if given:
        return given
    up_file = read_up_file(var)
    return (DEFAULT_ADDRESSES if up_file is None else up_file.addresses)[service]
