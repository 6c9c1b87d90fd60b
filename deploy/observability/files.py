"""Writes generated files, or says which of them are not what they would be."""

import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_or_check"]


def write_or_check(files: Mapping[Path, str]) -> None:
    """Writes `files`; with `--check` on the command line, exits with 1 if one differs."""
    if "--check" not in sys.argv[1:]:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return
    old = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    folders = {path.parent for path in files}
    strays = [
        path
        for folder in folders
        for path in folder.iterdir()
        if path.is_file() and path not in files and path.name != "kustomization.yaml"
    ]
    for path in (*old, *strays):
        print(f"{path} is not what its program writes; run the program again", file=sys.stderr)
    if old or strays:
        sys.exit(1)
