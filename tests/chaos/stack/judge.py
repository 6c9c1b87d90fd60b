"""Judges a run by the folder that it left: `python -m tests.chaos.stack.judge FOLDER`.

Prints each violation in words, and ends with 1 if there is one, with 2 if evidence is missing.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from tests.chaos.stack.exhibits import read
from tests.chaos.stack.rules import judge_all


def main() -> None:
    """Judges the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.stack.judge", description=__doc__)
    parser.add_argument("folder", type=Path, help="what a run of tests.chaos.stack has left")
    folder: Path = parser.parse_args().folder
    if not (folder / "run.json").exists():
        parser.error(f"{folder} holds no run that came to its end")
    console = Console(soft_wrap=True)
    try:
        exhibits = read(folder)
    except (FileNotFoundError, KeyError) as missing:
        parser.error(f"{folder} cannot be judged, since something is missing: {missing}")
    findings = judge_all(exhibits)
    for finding in findings:
        console.print(str(finding), markup=False, highlight=False)
    console.print(f"{len(findings)} violations" if findings else "no violation")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
