"""Compose files as compose reads them: one laid over the other, variables at their defaults."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from tests.unit.deploy.manifests import ROOT

COMPOSE = ROOT / "deploy" / "compose"
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(:?-(?P<default>[^}]*))?\}")


@dataclass(frozen=True)
class Composition:
    """What the files say together."""

    content: dict[str, Any]

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        services = self.content["services"]
        assert isinstance(services, dict)
        return services

    def environment(self, name: str) -> dict[str, str]:
        return dict(self.services[name].get("environment", {}))


def composed(*names: str) -> Composition:
    """Returns what the files of deploy/compose say, the last strongest."""
    content: Any = {}
    for name in names:
        loaded = yaml.load((COMPOSE / name).read_text(), yaml.CSafeLoader)
        content = _over(content, _with_defaults(loaded))
    return Composition(content)


def _over(below: Any, above: Any) -> Any:
    match below, above:
        case dict(), dict():
            merged = dict(below)
            for key, value in above.items():
                merged[key] = _over(below[key], value) if key in below else value
            return merged
        case list(), list():
            return [*below, *(one for one in above if one not in below)]
        case _:
            return above


def _with_defaults(value: Any) -> Any:
    match value:
        case dict():
            return {key: _with_defaults(one) for key, one in value.items()}
        case list():
            return [_with_defaults(one) for one in value]
        case str():
            return _VARIABLE.sub(lambda found: found["default"] or "", value)
        case _:
            return value
