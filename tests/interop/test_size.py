"""At SD1.5's sizes: build, import, export, certify and reload with one copy of the weights in memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SLACK = 1.0  # GB beside the weights: a few of the largest tensors, activations, buffers of the allocator


def drill(task, folder) -> str:
    words = [sys.executable, "-m", "tests.interop.size_drill", task, str(folder)]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_full_size_run_is_exported_with_one_copy_of_its_weights(tmp_path):
    drill("make", tmp_path)
    found = json.loads(drill("export", tmp_path).splitlines()[-1])
    print(json.dumps({key: value for key, value in found.items() if key != "certificate"}, indent=2))
    assert found["parameters"] == 859_520_964 + 417_137_600 + 1_086_624
    for name, stage in found["stages"].items():
        assert stage["anonymous"] < found["base"] + found["weights"] + SLACK, name
        assert stage["all"] < 24, name
    assert found["certificate"]["certified"]
