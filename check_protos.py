"""Checks protos/: their format, Google's and Buf's rules, and that nothing breaks callers.

What may not be broken is what the last release tag (`v…`) promised. protoc builds the images that
buf looks at, so imports come from installed packages and nothing is fetched.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import google.api.annotations_pb2 as googleapis
from grpc_tools import protoc

ROOT = Path(__file__).parent
PROTOS = ROOT / "protos"
SITE = Path(googleapis.__file__).parents[2]
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"


def image(protos: Path, out: Path) -> Path:
    """Writes what protoc understands of `protos`, with its imports and its comments."""
    files = sorted(p.relative_to(protos).as_posix() for p in protos.rglob("*.proto"))
    arguments = [
        "protoc", f"-I{protos}", f"-I{SITE}", f"-I{WELL_KNOWN}",
        "--include_imports", "--include_source_info", f"--descriptor_set_out={out}", *files,
    ]  # fmt: skip
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")
    return out


def buf(*arguments: str) -> bool:
    """Runs buf in protos/ and tells whether it was content."""
    return (
        subprocess.run(
            [Path(sys.executable).with_name("buf"), *arguments], cwd=PROTOS, check=False
        ).returncode
        == 0
    )


def last_release() -> str | None:
    """Returns the newest release tag that leads here; None before the first release."""
    tag = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0", "--match", "v*"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return tag.stdout.strip() or None


def main() -> int:
    """Returns 0 if all is well, 1 if anything was found; what was found is printed."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        new = str(image(PROTOS, work / "new.binpb"))
        # Without --path, Google's own files in the image would be judged as well.
        content = buf("format", "--diff", "--exit-code", ".")
        content &= buf("lint", new, "--config", "buf.yaml", "--path", "reelworks")
        release = last_release()
        if release is None:
            print("protos: no release tag yet, so nothing can be broken")
            return 0 if content else 1
        archive = subprocess.run(
            ["git", "archive", release, "protos"], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", work], input=archive.stdout, check=True)
        old = str(image(work / "protos", work / "old.binpb"))
        content &= buf(
            "breaking", new, "--against", old, "--config", "buf.yaml", "--exclude-imports"
        )
        return 0 if content else 1


if __name__ == "__main__":
    sys.exit(main())
