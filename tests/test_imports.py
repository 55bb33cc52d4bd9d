"""Imports run one way: train, data_prep -> live2diff; and every module can be the first that is imported."""

import ast
import importlib
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("live2diff", "train", "data_prep")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.stem != "__main__"
}
FORBIDDEN = {"live2diff": {"train", "data_prep"}, "train": {"data_prep"}, "data_prep": {"train"}}


def named(nodes: Iterator[ast.AST], modules: Collection[str]) -> Iterator[str]:
    """The modules that import statements name; of what is no module, the module it is taken from."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in modules else node.module


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: no functions, nothing that is for type checkers."""
    for child in ast.iter_child_nodes(node):
        typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not typing and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from at_import(child)


def outer(module: str) -> set[str]:
    """The packages that a module lies in: they are imported before it."""
    return {module[:at] for at, letter in enumerate(module) if letter == "."}


def first_cycle(sources: dict[str, str]) -> list[str]:
    """Modules, by name, of which each needs the next one whole while it is itself imported; [] if none do."""
    graph = {}
    for module, source in sources.items():
        graph[module] = set()
        for name in named(at_import(ast.parse(source)), sources):
            graph[module] |= {name} | (outer(name) - outer(module) - {module})
    try:
        TopologicalSorter({module: needs & sources.keys() for module, needs in graph.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        assert not {name.partition(".")[0] for name in named(tree, FILES)} & FORBIDDEN[package], path


def test_every_module_can_be_the_first():
    """None needs another that needs it."""
    assert not first_cycle({module: path.read_text(encoding="utf-8") for module, path in FILES.items()})
    for module in FILES:
        importlib.import_module(module)


@pytest.mark.parametrize(
    ("sources", "cyclic"),
    [
        ({"a": "import b", "b": "from a import x"}, True),
        ({"a": "import b", "b": "def f():\n    import a"}, False),
        ({"a": "import b", "b": "if TYPE_CHECKING:\n    import a"}, False),
        ({"p": "from p.b import x", "p.b": "from p import c", "p.c": ""}, False),
        ({"p": "from p.b import x", "p.b": "from p import y"}, True),
        ({"p": "from p.b import x", "p.a": "", "p.b": "import o", "o": "from p.a import z"}, True),
    ],
)
def test_cycles_are_found(sources, cyclic):
    assert bool(first_cycle(sources)) == cyclic
