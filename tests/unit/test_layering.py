"""The order of the house: imports go down only, there is no circle, and the pure packages do no I/O."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "wgd"

LAYERS = ["errors", "model", "policy", "config", "plan", "events", "kernel", "host", "daemon", "cli"]
"""From the bottom to the top: a module imports from its own layer or from one that stands before it."""
PURE_LAYERS = LAYERS[: LAYERS.index("kernel")]
PURE_LIBRARIES = {"voluptuous", "yaml"}
IMPURE_STANDARD_LIBRARIES = {
    *("asyncio", "fcntl", "glob", "http", "importlib", "logging", "mmap", "multiprocessing", "os", "pathlib", "random"),
    *(
        "resource",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "subprocess",
        "tempfile",
        "threading",
    ),
    *("time", "ctypes", "concurrent", "urllib", "ssl", "sched", "fileinput", "linecache", "runpy", "sqlite3"),
}
PURE_NAMES = {"socket": {"AF_INET", "AF_INET6", "inet_ntop"}}
"""What may be imported, by name, from a library that is not pure: an address as text is a value."""
IMPURE_FUNCTIONS = {"open", "input", "print", "__import__"}
CLOCK_METHODS = {"now", "today", "utcnow"}
"""Those of datetime and date."""
ONLY_IN_KERNEL = {"nftables", "pyroute2"}

PROTECTED_RESOURCE_MAY_IMPORT = {"wgd", "wgd.errors", "wgd.daemon.log", "wgd.daemon.notify"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
SYNTAX = {name: ast.parse(path.read_text(), path) for name, path in PATHS.items()}


def imports(syntax: ast.AST, modules: set[str]) -> Iterator[str]:
    """Yield every module that is imported, wherever in the file; `from a import b` is a.b if `modules` has it.

    Left out is one of which nothing but PURE_NAMES is imported.
    """
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are written in full"
            assert node.level == 0, "imports are written in full"
            if {alias.name for alias in node.names} <= PURE_NAMES.get(node.module, set()):
                continue
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                yield member if member in modules else node.module


def impure_calls(syntax: ast.AST) -> Iterator[str]:
    for node in ast.walk(syntax):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in IMPURE_FUNCTIONS:
                yield f"{function.id}() in line {node.lineno}"
            if isinstance(function, ast.Attribute) and function.attr in CLOCK_METHODS:
                yield f"{function.attr}() in line {node.lineno}"


def layer(module: str) -> str:
    return [*module.split("."), ""][1]


def own_imports(module: str) -> set[str]:
    return {name for name in imports(SYNTAX[module], set(PATHS)) if name.partition(".")[0] == "wgd"}


def libraries(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(SYNTAX[module], set(PATHS))} - {"wgd"}


def upward(module: str, imported: set[str]) -> set[str]:
    """Return which of `imported` stand above `module`. The package itself (the version) is below all."""
    reach = LAYERS[: LAYERS.index(layer(module)) + 1]
    return {name for name in imported if name != "wgd" and layer(name) not in reach}


def impure(names: set[str]) -> set[str]:
    return {
        name
        for name in names
        if name in IMPURE_STANDARD_LIBRARIES or (name not in sys.stdlib_module_names and name not in PURE_LIBRARIES)
    }


LAYERED = sorted(name for name in PATHS if layer(name) in LAYERS)
PURE = [name for name in LAYERED if layer(name) in PURE_LAYERS]


def test_every_module_stands_in_a_layer() -> None:
    assert set(PATHS) - set(LAYERED) == {"wgd", "wgd.protected_resource"}


@pytest.mark.parametrize("module", LAYERED)
def test_a_module_imports_from_its_own_layer_or_below(module: str) -> None:
    assert upward(module, own_imports(module)) == set()


def test_the_protected_resource_takes_logging_and_notification_only() -> None:
    assert own_imports("wgd.protected_resource") <= PROTECTED_RESOURCE_MAY_IMPORT
    assert own_imports("wgd") == set()


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_does_no_input_or_output_and_reads_no_clock(module: str) -> None:
    assert impure(libraries(module)) == set()
    assert list(impure_calls(SYNTAX[module])) == []


def test_only_the_doors_in_kernel_use_the_libraries_that_speak_to_it() -> None:
    users = {name for name in PATHS if libraries(name) & ONLY_IN_KERNEL}
    assert {name for name in users if layer(name) != "kernel"} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({name: own_imports(name) for name in PATHS}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_an_import_is_found_wherever_and_however_it_is_written() -> None:
    text = """
from wgd.plan import state
from wgd.plan.state import Device
import os.path as p
def late():
    from time import sleep
    if True:
        import wgd.host.files, socket
"""
    found = set(imports(ast.parse(text), {"wgd.plan", "wgd.plan.state"}))
    assert found == {"wgd.plan.state", "os.path", "time", "wgd.host.files", "socket"}
    assert list(imports(ast.parse("from socket import AF_INET, inet_ntop"), set())) == []
    assert set(imports(ast.parse("from socket import AF_INET, create_connection"), set())) == {"socket"}


def test_what_the_rules_forbid_is_noticed() -> None:
    assert upward("wgd.plan.peers", {"wgd", "wgd.model", "wgd.plan.state"}) == set()
    assert upward("wgd.plan.peers", {"wgd.kernel.links", "wgd.protected_resource"}) == {
        "wgd.kernel.links",
        "wgd.protected_resource",
    }
    assert impure({"json", "datetime", "yaml"}) == set()
    assert impure({"time", "pyroute2", "systemd"}) == {"time", "pyroute2", "systemd"}
    assert list(impure_calls(ast.parse("open('x')\ndatetime.now(UTC)\nbuilder.open()"))) == [
        "open() in line 1",
        "now() in line 2",
    ]
