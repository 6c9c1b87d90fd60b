"""Writes the tables of these pages that come from the code: `python -m docs.reference`.

A page marks where a table belongs: `<!-- table: settings -->` … `<!-- end of table -->`.
"""

import ast
import inspect
import itertools
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import typer
from pydantic import AfterValidator, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from services.cli.__main__ import build
from services.credits.settings import CreditsSettings
from services.generation.settings import GenerationSettings
from services.runtime.measures import DECLARED, PREFIX
from services.runtime.settings import HostAndPort, OrFile, Peer, Settings, http_address
from services.web.settings import WebSettings
from services.webhook.settings import WebhookSettings

__all__ = ["PAGES", "main", "renewed"]

FOLDER = Path(__file__).parent
PAGES = ("configuration.md", "operating.md")
SETTINGS: Mapping[str, type[Settings]] = {
    "credits": CreditsSettings,
    "generation": GenerationSettings,
    "webhook": WebhookSettings,
    "web": WebSettings,
}
UNITS = {
    "_s": "seconds",
    "_h": "hours",
    "_days": "days",
    "_percent": "percent",
    "_bytes_max": "bytes",
    "_credits": "credits",
}
WORDS: Mapping[Any, str] = {
    Path: "path",
    SecretStr: "secret",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
}
TABLE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def main() -> None:
    """Writes every page anew, and names those that were not up to date."""
    for name in PAGES:
        path = FOLDER / name
        old = path.read_text()
        new = renewed(old)
        if new != old:
            path.write_text(new)
            sys.stdout.write(f"docs/{name} is up to date now\n")


def renewed(page: str) -> str:
    """Returns a page with its tables as the code is now."""
    tables: Mapping[str, Callable[[], Iterator[str]]] = {
        "settings": _settings,
        "commands": _commands,
        "metrics": _metrics,
    }

    def anew(found: re.Match[str]) -> str:
        table = "\n".join(tables[found[2]]()).strip()
        return f"{found[1]}\n{table}\n\n{found[3]}"

    return TABLE.sub(anew, page)


def _settings() -> Iterator[str]:
    """Yields a table for each class of settings, the most shared first."""
    seen: list[type[Settings]] = []
    for settings in SETTINGS.values():
        for kind in reversed(settings.__mro__):
            if kind not in seen and issubclass(kind, Settings) and _own_fields(kind):
                seen.append(kind)
    users = {kind: [n for n, one in SETTINGS.items() if issubclass(one, kind)] for kind in seen}
    for kind in sorted(seen, key=lambda one: -len(users[one])):
        yield from (f"### {_listed(users[kind])}: {_title(kind)}", "")
        yield from _table(("variable", "value", "default", "meaning"), _rows(kind, users[kind]))
        yield ""


def _rows(kind: type[Settings], users: Sequence[str]) -> Iterator[tuple[str, ...]]:
    texts = _docstrings(kind)
    for name in _own_fields(kind):
        field = kind.model_fields[name]
        variable = _variable(name, field)
        shown = f"`{variable}`"
        if any(isinstance(mark, OrFile) for mark in field.metadata):
            shown += f" or `{variable}_FILE`"
        default = _default(field)
        others = {user: _default(SETTINGS[user].model_fields[name]) for user in users}
        default += "".join(f"; {user} {own}" for user, own in others.items() if own != default)
        yield shown, _value(name, field), default, texts[name]


def _own_fields(kind: type[Settings]) -> list[str]:
    return [name for name in inspect.get_annotations(kind) if name in kind.model_fields]


def _title(kind: type[BaseModel]) -> str:
    first = (kind.__doc__ or "").split(".")[0].split(";")[0]
    return first[0].lower() + first[1:]


def _docstrings(kind: type[BaseModel]) -> dict[str, str]:
    """Returns what is written under each field of a class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    texts = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as words)),
            ):
                texts[name] = " ".join(words.split()).replace("None: ", "Unset: ")
    return texts


def _variable(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"REELWORKS_{name.upper()}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    default = field.default
    if field.default_factory is not None or default is None or default == "":
        return "unset"
    if isinstance(default, float):
        default = f"{default:g}"
    return "unset" if default is PydanticUndefined else f"`{default}`"


def _value(name: str, field: FieldInfo) -> str:
    """Returns what a variable may be set to."""
    kind, marks = _bare(field.annotation, field.metadata)
    if get_origin(kind) is Literal:
        return _listed([f"`{one}`" for one in get_args(kind)], "or")
    patterns = [one.pattern for one in marks if getattr(one, "pattern", None)]
    if patterns:
        return f"text that matches `{patterns[0]}`".replace("|", "\\|")
    checks = [one.func for one in marks if isinstance(one, AfterValidator)]
    if _bare(HostAndPort, [])[1][0].func in checks:
        return "`host:port`"
    if any(isinstance(one, Peer) for one in marks):
        return "gRPC target"
    if http_address in checks:
        return "http or https address"
    word = WORDS.get(kind, "JSON")
    is_rate = "_per_" in name
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end) and not is_rate), "")
    return ", ".join(filter(None, (unit or word, _bounds(marks))))


def _bare(annotation: Any, marks: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Returns a type without `None` and marks, and all marks."""
    found = list(marks)
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            found += more
        elif get_origin(annotation) in (Union, types.UnionType):
            (annotation,) = (one for one in get_args(annotation) if one is not type(None))
        else:
            break
    flat = [part for one in found for part in (one.metadata if _is_field(one) else [one])]
    return annotation, flat


def _is_field(mark: Any) -> bool:
    return isinstance(mark, FieldInfo)


def _bounds(marks: Sequence[Any]) -> str:
    low = high = ""
    for mark in marks:
        match mark:
            case annotated_types.Ge(ge=bound):
                low = f"{bound:,g}"
            case annotated_types.Gt(gt=bound):
                low = f"above {bound:,g}"
            case annotated_types.Le(le=bound):
                high = f"{bound:,.0f}"
    return f"{low} to {high}" if high else low and f"at least {low}"


def _commands() -> Iterator[str]:
    """Yields the variables that the command line reads besides its options."""
    found: dict[str, tuple[str, set[str]]] = {}
    for name, command in _commands_of(
        typer.main.get_command(build(for_terminal=False)), "reelworks"
    ):
        for option in command.params:
            if isinstance(option.envvar, str):
                flag = option.opts[0]
                found.setdefault(option.envvar, (flag, set()))[1].add(name)
    rows = [
        (f"`{variable}`", f"`{flag}`", f"`{min(names)}`" if len(names) == 1 else "many commands")
        for variable, (flag, names) in sorted(found.items())
    ]
    yield from _table(("variable", "stands for", "of"), rows)


def _commands_of(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child in getattr(command, "commands", {}).values():
        yield from _commands_of(child, f"{name} {child.name}")


def _metrics() -> Iterator[str]:
    """Yields a table of what is measured for each set of services that measures it."""
    users = dict.fromkeys(measure.services for measure in DECLARED.values())
    for services in sorted(users, key=len, reverse=True):
        yield from (f"### {_listed(services)}", "")
        rows = [
            (f"`{PREFIX}{name}`", measure.kind.value, ", ".join(measure.labels), measure.help)
            for name, measure in DECLARED.items()
            if measure.services == services
        ]
        yield from _table(("metric", "kind", "labels", "says"), rows)
        yield ""


def _table(
    head: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]
) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _listed(words: Sequence[str], last: str = "and") -> str:
    *others, final = words
    return f"{', '.join(others)} {last} {final}" if others else final


if __name__ == "__main__":
    main()
