"""`live2diff bench stream` on the tiny model: a table, figures that belong together, and clear refusals."""

from __future__ import annotations

import json

import pytest
import torch

from live2diff.bench.meter import flops
from live2diff.bench.models import make_model
from live2diff.cli import main

WORDS = ["bench", "stream", "--model", "tiny", "--device", "cpu", "--frames", "2"]


def test_table_and_json(tmp_path, capsys):
    file = tmp_path / "figures.json"
    words = [*WORDS, "--size", "40x72", "--rows", "1,2", "--memory", "int8", "--json", str(file)]
    assert main(words) == 0
    said = capsys.readouterr().out
    for word in ("End to end", "The UNet alone", "paper's listings", "no cache", "diffusers", "Not counted"):
        assert word in said
    figures = json.loads(file.read_text())
    assert figures["machine"]["cpu"] and figures["machine"]["versions"]["torch"]
    assert min(figures["ceilings"].values()) > 0
    one, two = figures["stream"]
    assert (one["rows"], two["rows"]) == (1, 2)
    assert two["memory_bytes"] > 1.9 * one["memory_bytes"]
    for line in (one, two):
        assert line["p50_ms"] <= line["p95_ms"] <= line["p99_ms"]
        assert line["operators"] > 1000
        # A frame comes out T - 1 ticks after it went in.
        assert line["delay_ms"] >= line["rows"] * line["p50_ms"] * 0.5
    assert [line["way"] for line in figures["unet"]] == ["ours", "listing", "no_cache", "chunks"] * 2
    # Of T rows everything is done T times, but the depth branch, which only the entering frame needs.
    unet = make_model("tiny", torch.device("cpu"), torch.float32).unet
    depth = flops(lambda: unet.depth_residual(torch.zeros(1, 4, 18, 10))) / 1e12
    row, rows = (figures["unet"][line]["tflop"] for line in (0, 4))
    assert depth > 0 and rows - depth == pytest.approx(2 * (row - depth))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--rows", "5"], "--rows 5: expected some of 1, 2, 3, 4"),
        (["--size", "30x32"], "--size 30x32: both sides must be multiples of 8"),
        (["--rivals", "magic"], "--rivals magic: expected some of listing, no_cache, chunks"),
        (["--frames", "0"], "--frames 0: expected 1 to 10000"),
        (["--threads", "0"], "--threads 0: expected 1 to 1024"),
        (["--cuda-graph"], "cuda_graph: needs a GPU, the model is on cpu; leave it out"),
        (["--json", "/nowhere/figures.json"], "--json /nowhere/figures.json: no such folder"),
    ],
)
def test_wrong_use_is_one_line(words, line, capsys):
    assert main([*WORDS, *words]) in (2, 5)
    assert line in capsys.readouterr().err
