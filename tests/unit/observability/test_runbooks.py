"""What runbooks tell people to type exists."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from services.cli.__main__ import build

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "deploy" / "runbooks").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Returns the words of each `reelworks …` of a page, in blocks and in the text."""
    lines = [line for _, block in FENCE.findall(text) for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return [shlex.split(line) for line in lines if line.startswith("reelworks ")]


def complain(words: list[str]) -> str | None:
    """Returns what the command line says against words, None if it takes them."""
    # Words in capitals stand for what people type; numbers are numbers everywhere.
    known = ["17" if word == "NUMBER" else word for word in words[1:]]
    command: Any = typer.main.get_command(build(for_terminal=False))
    name = "reelworks"
    try:
        while hasattr(command, "commands"):
            name, *known = known
            command = command.commands[name]
        command.make_context(name, known)
    except KeyError as error:
        return f"there is no command {error}"
    except Exception as error:  # noqa: BLE001  Whatever it is, the page is wrong.
        return str(error) or type(error).__name__
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_taken_by_the_command_line(page: Path) -> None:
    wrong = {
        " ".join(words): complaint
        for words in commands(page.read_text())
        if (complaint := complain(words)) is not None
    }

    assert not wrong


def test_commands_are_found_and_wrong_ones_are_seen() -> None:
    assert sum(len(commands(page.read_text())) for page in PAGES) > 40
    assert complain(["reelworks", "credits", "verify"]) is None
    assert complain(["reelworks", "credits", "prove"]) is not None
    assert complain(["reelworks", "credits", "verify", "--everything"]) is not None
    assert complain(["reelworks", "generations", "resume"]) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_pages(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []
