"""What the pages say of files, headings, commands, settings and metrics is so."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.reference import FOLDER, PAGES, renewed
from services.cli.__main__ import build
from services.credits.callers import CALLERS as CREDITS
from services.generation.callers import CALLERS as GENERATION
from services.runtime.measures import DECLARED, PREFIX
from services.webhook.callers import CALLERS as WEBHOOK

ROOT = Path(__file__).parents[2]
PAGES_ALL = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.parts
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"(?:(?:^|(?<!--namespace)\s)(?:\.venv/bin/)?reelworks|docker compose run .*cli) ([^|&;<>]+)"
)
"""A command of `reelworks`: not what comes after `--namespace`; and compose runs it as `cli`."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROGRAM = typer.main.get_command(build(for_terminal=False))
MEASURED = re.compile(rf"`{PREFIX}([a-z_]+)")
BUCKETS = re.compile(r"_(bucket|count|sum)$")


def code_of(text: str) -> Iterator[str]:
    """Yields the lines of blocks, and what stands in single backticks outside of them."""
    for found in FENCE.finditer(text):
        yield from found[2].splitlines()
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def headings_of(path: Path) -> set[str]:
    """Returns the names that the headings of a page are linked by."""
    text = FENCE.sub("", path.read_text())
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_pages_are_found() -> None:
    assert {"README.md", "SECURITY.md", "docs/configuration.md"} <= set(map(names, PAGES_ALL))
    assert "help" in TARGETS


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_as_the_code_is(name: str) -> None:
    page = (FOLDER / name).read_text()

    assert renewed(page) == page, "run `make docs`"
    assert page.count("<!-- table:") == page.count("<!-- end of table -->") > 0


@pytest.mark.parametrize("path", PAGES_ALL, ids=names)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    wrong = []
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        file, _, heading = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (heading and heading not in headings_of(target)):
            wrong.append(link)

    assert wrong == []


def test_make_help_lists_every_target() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert {name for line in phony for name in line.split()} == TARGETS


@pytest.mark.parametrize("path", PAGES_ALL, ids=names)
def test_targets_of_make_exist(path: Path) -> None:
    wanted = [
        word
        for line in code_of(path.read_text())
        for words in re.findall(r"^(?:\$ )?make ([^#|&;]+)", line)
        for word in words.split()
        if re.fullmatch(r"[a-z-]+", word)
    ]

    assert [word for word in wanted if word not in TARGETS] == []


@pytest.mark.parametrize("path", PAGES_ALL, ids=names)
def test_commands_and_their_options_exist(path: Path) -> None:
    wrong = [
        line
        for line in code_of(path.read_text())
        for said in re.findall(COMMAND, line)
        if not exists(PROGRAM, said)
    ]

    assert wrong == []


@pytest.mark.parametrize(
    ("said", "is_there"),
    [
        ("credits verify --user ada", True),
        ("generate PROMPT --image FILE", True),
        ("credits nothing", False),
        ("credits verify --nothing", False),
        ("nothing", False),
    ],
)
def test_a_command_that_is_not_there_would_be_found(said: str, is_there: bool) -> None:
    assert exists(PROGRAM, said) is is_there


def exists(command: Any, said: str) -> bool:
    """Tells whether the command line has a command, and all options that are named with it."""
    try:
        words = shlex.split(said, comments=True)
    except ValueError:  # A quotation that goes on in the next line.
        words = said.split()
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            return words[0] == "--help"
        if not re.fullmatch(r"[a-z-]+", words[0]):
            return True
        command = command.commands.get(words.pop(0).strip(",."))
        if command is None:
            return False
    known = {"--help", *(flag for option in command.params for flag in option.opts)}
    return all(
        word.partition("=")[0] in known for word in words if re.fullmatch(r"--[a-z][a-z-]*.*", word)
    )


@pytest.mark.parametrize("path", PAGES_ALL, ids=names)
def test_metrics_that_are_named_are_measured(path: Path) -> None:
    named = {BUCKETS.sub("", name) for name in MEASURED.findall(path.read_text())}

    assert {name for name in named if name not in DECLARED and f"{name}_total" not in DECLARED} == (
        set()
    )


@pytest.mark.parametrize("role", ["generation", "webhook", "web"])
def test_the_table_of_roles_is_that_of_the_code(role: str) -> None:
    rows = re.findall(
        rf"^\| `{role}` \| (.*) \|$", (FOLDER / "security.md").read_text(), re.MULTILINE
    )
    allowed = {
        method.rpartition("/")[2]
        for callers in (CREDITS, GENERATION, WEBHOOK)
        for method, roles in callers.items()
        if role in roles
    }

    assert [set(re.findall(r"[A-Z][A-Za-z]+", row)) for row in rows] == [allowed]
