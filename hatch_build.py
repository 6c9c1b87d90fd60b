"""Generates the Python code of protos/ into gen/, whenever the project is installed or built.

Run as a program, it does only that: `python hatch_build.py`. That needs what [build-system] names.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent


def generate() -> None:
    """Replaces gen/ by what protoc makes of protos/."""
    import google.api.annotations_pb2 as googleapis  # Beside it lie google/api/*.proto.

    site = Path(googleapis.__file__).parents[2]
    out = ROOT / "gen"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    files = (ROOT / "protos").rglob("*.proto")
    protos = sorted(f.relative_to(ROOT / "protos").as_posix() for f in files)
    if not protos:
        sys.exit("protos/ holds no .proto file")
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc",
            f"-I{ROOT / 'protos'}", f"-I{site}",
            f"--python_out={out}", f"--pyi_out={out}",
            f"--grpc_python_out={out}", f"--mypy_grpc_out={out}",
            *protos,
        ],
        check=True,
        # protoc looks for its plugins on the path, where those of a virtual environment that was
        # not activated are missing.
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    # Type checkers believe the annotations of a package only where this marker says so.
    (out / "reelworks" / "py.typed").touch()


class ProtocHook(BuildHookInterface):  # type: ignore[type-arg]  # Hatch's own documentation.
    """Runs `generate` before Hatch collects the files of the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Makes the stubs and has them packed, although git ignores them."""
        generate()
        build_data["artifacts"].append("gen/**")


if __name__ == "__main__":
    generate()
