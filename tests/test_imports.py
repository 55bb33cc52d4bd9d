"""Imports run one way: train, data_prep -> live2diff; and every module can be the first that is imported."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("live2diff", "train", "data_prep")
    for path in (ROOT / package).rglob("*.py")
    if path.stem != "__main__"
)
FORBIDDEN = {"live2diff": {"train", "data_prep"}, "train": {"data_prep"}, "data_prep": {"train"}}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not imported(path) & FORBIDDEN[package], path


def test_every_module_can_be_the_first():
    run = subprocess.run(
        [sys.executable, "-m", "tests.test_imports"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr


def _import_each_first() -> list[str]:
    """Import each module in a fork without what is ours of this process; returns those that fail."""
    for module in MODULES:
        importlib.import_module(module)  # what is not ours is then there in all forks, which saves a minute
    failed = []
    for module in MODULES:
        child = os.fork()
        if child == 0:
            for name in list(sys.modules):
                if name.partition(".")[0] in FORBIDDEN:
                    del sys.modules[name]
            try:
                importlib.import_module(module)
            except BaseException as error:
                print(f"{module}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            failed.append(module)
    return failed


if __name__ == "__main__":
    sys.exit(bool(_import_each_first()))
