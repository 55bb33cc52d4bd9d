"""The Triton kernel equals its plain PyTorch, through Triton's interpreter on the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from live2diff.errors import SetupError
from live2diff.model.kernels import check_triton
from tests.model.kernels import drill

pytest.importorskip("triton")
# The kernel rounds only its result to bfloat16; the plain way rounds logits and weights too.
TOLERANCE = {"bfloat16": 0.05}


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", drill.__name__]
    run = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("case", [*drill.CASES, "a whole UNet"])
def test_equals_plain_pytorch(errors, case):
    """Also that dead rows full of NaN reach nobody, and that both leave the same memory: see `drill.both`."""
    assert errors[case] < TOLERANCE.get(case, 1e-5)


def test_without_a_gpu_it_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(SetupError, match="kernel=triton: needs a GPU, the model is on cpu"):
        check_triton(torch.device("cpu"))


def test_triton_is_imported_only_when_used():
    code = "import sys, live2diff.model.attention; assert 'live2diff.model.kernels.step' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
