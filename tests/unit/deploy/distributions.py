"""Which distributions an extra of the project brings, as the installed ones say it."""

import functools
import re
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement

__all__ = ["closure", "normal"]


def normal(name: str) -> str:
    """Returns a distribution's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(extra: str) -> dict[str, Distribution]:
    """Returns all that `reelworks[extra]` needs here, by name; "" is the project without extras."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [("reelworks", extra)]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        name, of = one
        found[name] = _distribution(name)
        for text in found[name].requires or ():
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": of}):
                waiting += [(normal(need.name), wanted) for wanted in ("", *need.extras)]
    del found["reelworks"]
    return found


@functools.cache
def _distribution(name: str) -> Distribution:
    return distribution(name)
