"""What checks deploy/ is installed whole, or again the next time; what is to fill in is told."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.deploy.manifests import ROOT

PATRONI = ROOT / "deploy" / "patroni"


@pytest.mark.parametrize(("is_there", "ends"), [(True, True), (False, False)])
def test_the_checks_are_installed_only_with_all_their_tools(
    tmp_path: Path, is_there: bool, ends: bool
) -> None:
    # Within `make test` it would be told what the outer one is told, and say where it is.
    recipe = subprocess.run(
        ["/usr/bin/make", "--dry-run", "--always-make", ".deploy-venv/installed"],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True,
        timeout=50,
    ).stdout  # fmt: skip
    step = recipe[recipe.index("rm -rf .deploy-venv/debian") :]
    tools = tmp_path / "tools"
    tools.mkdir()
    fetch = "touch promtool.deb" if is_there else "exit 100"
    for name, line in (("apt-get", fetch), ("dpkg-deb", "true")):
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)

    done = subprocess.run(
        ["/bin/sh", "-c", step],
        cwd=tmp_path, env={"PATH": f"{tools}:/usr/bin:/bin"}, capture_output=True, text=True,
        check=True, timeout=50,
    )  # fmt: skip

    assert (tmp_path / ".deploy-venv/installed").exists() is ends
    assert ("cannot be had" in done.stdout) is not ends


@pytest.mark.parametrize("name", ["etcd.yaml", "haproxy.cfg", "patroni.yaml"])
def test_every_word_that_is_to_be_filled_in_is_told(name: str) -> None:
    words = set(re.findall(r"\$\{(\w+)\}", (PATRONI / name).read_text()))
    told = set(re.findall(r"`(\w+)`", (PATRONI / "README.md").read_text()))

    assert words
    assert words - told == set()


def test_a_server_with_tls_is_told_of_its_certificate() -> None:
    text = (PATRONI / "patroni.yaml").read_text()

    assert "ssl_cert_file: ${certificate_file}" in text
    assert "ssl_key_file: ${key_file}" in text
