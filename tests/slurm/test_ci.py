""".ci/run is not green by skipping: where a cluster should start and cannot, it ends with an error."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import TOOLS


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder for PATH: root on Debian, where `make` and `apt-get` do nothing but say what was asked."""
    if not (Path("/etc/debian_version").exists() and (ROOT / ".venv/bin/python").exists()):
        pytest.skip("needs Debian and the checkout's .venv")
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    for tool in ("make", "apt-get"):
        (tmp_path / tool).write_text(f'#!/bin/sh\necho "{tool} $@" >&2\n')
    (tmp_path / "id").write_text("#!/bin/sh\necho 0\n")
    (tmp_path / "chromium").write_text("")
    for path in tmp_path.iterdir():
        if not path.is_symlink():
            path.chmod(0o755)
    return tmp_path


def ci(machine: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(ROOT / ".ci/run")], env={"PATH": str(machine)}, capture_output=True, text=True
    )


def test_one_tool_of_three_is_not_enough(machine):
    (machine / "munged").touch(0o755)
    done = ci(machine)
    assert "apt-get install" in done.stderr
    assert done.returncode == 5 and "make test-slurm" not in done.stderr
    assert "error: no SLURM cluster can be started here: " in done.stderr and "slurmctld" in done.stderr


def test_nothing_is_installed_where_all_is_there(machine):
    for tool in TOOLS:
        (machine / tool).touch(0o755)
    done = ci(machine)
    if os.geteuid() == 0:  # SLURM's daemons need the real one
        assert done.returncode == 0 and "make test-slurm" in done.stderr and "apt-get" not in done.stderr
    else:
        assert done.returncode == 5 and "needs root" in done.stderr
