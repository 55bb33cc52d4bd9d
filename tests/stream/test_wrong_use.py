"""What cannot be streamed gets one line that says what to do, before anything is written."""

from __future__ import annotations

import psutil
import pytest
import torch

from live2diff.errors import SetupError
from live2diff.stream import Stream
from live2diff.stream.budget import advise_when_full
from tests.stream.media import still, write
from tests.stream.test_files import left_in, stream


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", still(10))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--size", "30x32"], 2, "multiples of 8"),
        (["--size", "-8x32"], 2, "--size"),
        (["--steps", "40,30"], 2, "rising whole numbers from 0 to 49"),
        (["--steps", "30,x"], 2, "--steps"),
        (["--strength", "1.5"], 2, "--strength 1.5: expected a number above 0, up to 1"),
        (["--steps", "30", "--strength", "0.5"], 2, "give one of them"),
        (["--lora", "none.safetensors:0.5"], 4, "none.safetensors"),
        (["--lora-at", "t=0s: ink=1"], 2, "no LoRA is called 'ink'; there are none"),
        (["--prompt-at", "3s: snow"], 2, "t=3s: a winter street"),
        (
            ["--blend", "4", "--on-prompt", "rewarm", "--prompt-at", "t=0s: a"],
            2,
            "only with --on-prompt keep",
        ),
        (["--similar-frame-skip", "2"], 2, "above 0, up to 1"),
        (["--seed", "-1"], 2, "--seed -1"),
        (["--device", "cuda:77"], 5, "--device=cuda:77"),
        (["--kernel", "triton"], 5, "triton"),
        (["--cuda-graph"], 5, "needs a GPU"),
        (["--model", "x"], 2, "only with replay"),
        (["--size", "80000x80000"], 5, "choose a smaller --size"),
    ],
)
def test_one_line_and_nothing_written(export, clip, tmp_path, capsys, words, code, said):
    try:
        given = stream(export, clip, tmp_path / "out.mp4", *words)
    except SystemExit as leaving:  # argparse
        given = leaving.code
    assert given == code
    errors = capsys.readouterr().err
    assert said in errors and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(("error: ", "live2diff stream: error: "))
    assert left_in(tmp_path) == []


def test_a_prompt_that_is_too_long_is_cut_off_as_clip_does(export, clip, tmp_path, capsys):
    words = ["--prompt", "word " * 80, "--prompt-at", "frame=9: " + "other " * 80]
    assert stream(export, clip, tmp_path / "out.mp4", *words) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2 and all("is longer than 77 tokens; its end is cut off" in w for w in warnings)


def test_changes_after_the_end_are_named(export, clip, tmp_path, capsys):
    assert stream(export, clip, tmp_path / "out.mp4", "--prompt-at", "t=60s: snow") == 0
    assert "the input ended before 1 of the changes asked for" in capsys.readouterr().err


def test_the_estimate_names_what_is_needed_and_what_there_is(model, monkeypatch):
    free = 2**20
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": free}))
    with pytest.raises(
        SetupError, match=r"512x512 with 2 denoising steps needs at least 1\.\d GB .*0\.0 GB are free"
    ):
        Stream(model, "x", size=(512, 512))
    monkeypatch.undo()
    assert Stream(model, "x", size=(64, 64)).size == (64, 64)


def test_a_full_gpu_is_one_line():
    with pytest.raises(
        SetupError, match=r"GPU's memory is full \(CUDA out of memory\); choose a smaller --size"
    ):
        with advise_when_full():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")
