"""The rules of the house that no linter knows."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE_LINES_MAX = 450
FUNCTION_LINES_MAX = 70
SOURCES = sorted(
    path
    for path in (ROOT / "services").rglob("*.py")
    if "versions" not in path.parts and "__pycache__" not in path.parts
)


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_route(node: ast.stmt) -> bool:
    """Tells whether a function is handed to a router, whom alone others see."""
    return any(
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and isinstance(decorator.func.value, ast.Name)
        and decorator.func.value.id == "router"
        for decorator in getattr(node, "decorator_list", ())
    )


def test_the_services_are_found() -> None:
    assert len(SOURCES) > 50


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_one_job_of_bounded_size(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)

    assert ast.get_docstring(tree), "a module says its job"
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    for function in functions(tree):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        assert lines <= FUNCTION_LINES_MAX, f"{function.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_listed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not is_route(node)
    }
    listed = {
        name.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "__all__"
        for name in ast.walk(node.value)
        if isinstance(name, ast.Constant)
    }

    if path.name != "__main__.py":
        assert defined <= listed, f"not in __all__: {sorted(defined - listed)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_cancellation_is_never_swallowed(path: Path) -> None:
    """A handler that swallows it leaks memory in every call: grpc/grpc#43360."""
    for handler in ast.walk(ast.parse(path.read_text())):
        if not isinstance(handler, ast.ExceptHandler) or handler.type is None:
            continue
        names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(handler.type)}
        if names & {"CancelledError", "BaseException"}:
            assert any(isinstance(node, ast.Raise) for node in ast.walk(handler)), (
                f"line {handler.lineno} swallows a cancellation"
            )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_importing_a_module_starts_nothing(path: Path) -> None:
    started = {"run", "connect", "open_database", "create_async_engine", "create_task"}
    calls = {
        getattr(call.func, "attr", getattr(call.func, "id", ""))
        for statement in ast.parse(path.read_text()).body
        if isinstance(statement, ast.Expr | ast.Assign)
        for call in ast.walk(statement)
        if isinstance(call, ast.Call)
    }

    assert not calls & started


def test_no_room_is_called_common() -> None:
    forbidden = {"utils.py", "common.py", "helpers.py", "misc.py"}

    assert not [path for path in SOURCES if path.name in forbidden]


def test_generated_code_is_not_committed() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "gen", "*_pb2.py"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert tracked.stdout == ""
