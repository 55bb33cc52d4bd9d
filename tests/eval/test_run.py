"""`live2diff eval run` from end to end on small made videos: figures, signatures, refusals."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from live2diff.cli import main
from live2diff.eval import translate
from live2diff.eval.results import Results, read
from live2diff.eval.settings import EvalSettings
from live2diff.video import VideoReader, write_video
from tests.eval.videos import noisy, pan, texture, write_pictures

SIZE = (40, 32)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """source/ and pred/ with the videos `pan`, a folder of pictures, and `still`, a file."""
    root = tmp_path_factory.mktemp("videos")
    still = np.repeat(texture(32, 40)[None] // 2 + 60, 5, axis=0)
    write_pictures(root / "source/pan", pan(4, SIZE))
    write_pictures(root / "pred/pan", noisy(pan(4, SIZE), 5))
    write_video(root / "source/still.mp4", still, fps=12, crf=0)
    write_pictures(root / "pred/still", noisy(still, 5))
    return root


def run(root: Path, out: Path, *words: str) -> tuple[int, Results | None]:
    places = ["--source", str(root / "source"), "--out", str(out)]
    if "--export" not in words:
        places += ["--pred", str(root / "pred")]
    code = main(["eval", "run", *places, *words])
    return code, read(out) if (out / "results.json").exists() else None


def test_figures_values_and_report(videos, tmp_path, capsys):
    code, found = run(videos, tmp_path / "out")
    assert code == 0 and found is not None
    said = capsys.readouterr().out
    assert "warp_error" in said and "x 10^-3" in said and "report.html" in said
    assert [video.name for video in found.videos] == ["pan", "still"]
    pan_video, still = found.videos
    assert (pan_video.frames, still.frames, still.fps) == (4, 5, 12)
    error, flicker = found.figures["warp_error"], found.figures["flicker"]
    assert error.mean == pytest.approx((pan_video.values["warp_error"] + still.values["warp_error"]) / 2)
    assert error.low == pytest.approx(min(v.values["warp_error"] for v in found.videos))
    # Independent noise of deviation s on two frames: 2 s^2.
    assert still.values["warp_error"] == pytest.approx(2 * (5 / 255) ** 2, rel=0.1)
    per_frame = still.per_frame["warp_error"]
    assert per_frame[0] is None and np.mean(per_frame[1:]) == pytest.approx(still.values["warp_error"])
    assert flicker.videos in (1, 2) and still.values["flicker"] > 0
    assert found.environment["versions"]["live2diff"] and found.environment["bootstrap"]["samples"] == 10_000
    assert found.created
    assert pan_video.source_hash != still.source_hash
    assert "what counts of frame" in (tmp_path / "out/report.html").read_text()
    for name in ("report.html", "report.md"):
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_identical_videos_are_perfect_to_the_flow(videos, tmp_path, no_report):
    code = main(
        ["eval", "run", "--source", str(videos / "source"), "--pred", str(videos / "source")]
        + ["--out", str(tmp_path), "--allow-skipped"]
    )
    found = read(tmp_path)
    values = {video.name: video.values for video in found.videos}
    assert code == 0
    assert values["still"]["warp_error"] < 1e-7 and values["still"]["flicker"] < 1e-4
    assert values["pan"]["warp_error"] < 2e-3


def test_the_same_run_gives_the_same_file(videos, tmp_path, no_report):
    figures = [run(videos, tmp_path / name)[1] for name in ("a", "b")]
    assert figures[0] is not None and figures[1] is not None
    assert (figures[0].figures, figures[0].videos) == (figures[1].figures, figures[1].videos)


# What changes a number changes its signature.
CHANGES = {
    "size=[24,24]": {"resolution"},
    "fit=stretch": {"fit"},
    "length=shortest": {"length"},
    "frames=3": {"frames"},
    "trigger=magic": {"prompt_position", "captions"},
    "dataset=mine": {"data"},
}


@pytest.fixture
def no_report(monkeypatch) -> None:
    """The numbers alone: pages take longer than measuring these videos."""
    monkeypatch.setattr("live2diff.eval.report.write_report", lambda *_: None)


def test_signatures_change_with_what_changes_the_number(videos, tmp_path, no_report):
    common = ["metrics=[flicker]", "--allow-skipped"]
    _, plain = run(videos, tmp_path / "plain", *common)
    assert plain is not None
    signature = plain.figures["flicker"].signature
    assert signature["stored_as"] == "png" and signature["resolution"] == "40x32"
    for number, (word, keys) in enumerate(CHANGES.items()):
        _, found = run(videos, tmp_path / str(number), *common, word)
        assert found is not None
        other = found.figures["flicker"].signature
        assert {key for key in {**signature, **other} if signature.get(key) != other.get(key)} == keys, word


def test_another_codec_is_another_signature(videos, tmp_path, no_report):
    (tmp_path / "in").mkdir()
    for name in ("pan", "still"):
        pictures = [cv2.imread(str(path))[..., ::-1] for path in sorted((videos / "pred" / name).glob("*"))]
        write_video(tmp_path / f"in/{name}.mp4", pictures, fps=12)
    words = [
        "--source",
        str(videos / "source"),
        "--pred",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["eval", "run", *words, "metrics=[flicker]", "--allow-skipped"]) == 0
    assert read(tmp_path / "out").figures["flicker"].signature["stored_as"] == "h264"


def test_models_by_name(videos, tmp_path, clip_model, depth_model, no_report):
    models = [
        f"clip_model={clip_model}",
        f"depth_model={depth_model}",
        "--metrics",
        "clip_temporal,depth_mse",
    ]
    code, found = run(videos, tmp_path / "out", *models)
    assert code == 0 and found is not None
    assert list(found.figures) == ["clip_temporal", "depth_mse", "depth_mse_aligned"]
    assert found.figures["clip_temporal"].better == "higher"
    assert all(len(video.per_frame["depth_mse"]) == video.frames for video in found.videos)


def test_skipped_videos_have_reasons_and_a_code(videos, tmp_path, capsys, no_report):
    for kind in ("source", "pred"):
        for name, frames in (("good", 4), ("short", 4 if kind == "source" else 3), ("damaged", 4)):
            write_pictures(tmp_path / kind / name, pan(frames, SIZE))
    (tmp_path / "pred/damaged/00002.png").write_bytes(b"no picture")
    (tmp_path / "pred/stray.mp4").write_bytes(b"no video")
    code, found = run(tmp_path, tmp_path / "out", "metrics=[warp_error]")
    assert code == 3 and found is not None
    reasons = {skip.name: skip.reason for skip in found.skipped}
    assert reasons.keys() == {"short", "damaged", "stray"}
    assert "4 frames in the source, 3 in the output" in reasons["short"]
    assert "00002.png: cannot be read" in reasons["damaged"]
    assert [video.name for video in found.videos] == ["good"]
    said = capsys.readouterr().err
    assert "skipped short: 4 frames" in said and "--allow-skipped accepts that" in said
    assert run(tmp_path, tmp_path / "out2", "metrics=[warp_error]", "--allow-skipped")[0] == 0


def test_nothing_measured_is_an_error_though_skipping_is_allowed(videos, tmp_path, capsys):
    write_pictures(tmp_path / "pred/other", pan(3))
    words = [
        "--source",
        str(videos / "source"),
        "--pred",
        str(tmp_path / "pred"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(["eval", "run", *words, "--allow-skipped"]) == 3
    assert "nothing could be measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--metrics", "psnr"], "metrics: 'psnr' is none; known: warp_error, clip_temporal"),
        (["--metrics", "flicker,flicker"], "name each metric once"),
        (["--metrics", "latency"], "latency is of a model; give --export"),
        (["--metrics", "clip_temporal"], "needs clip_model=FOLDER"),
        (["--metrics", "depth_mse"], "needs depth_model=FOLDER"),
        (["--flow", "raft_large"], "needs raft_weights=FILE"),
        (["--flow", "farneback"], "flow=farneback: expected dis or raft_large"),
        (["fit=zoom"], "fit=zoom: expected crop or pad or stretch"),
        (["size=64"], "size=64: expected [width,height]"),
        (["frames=0"], "frames=0: expected a whole number above 0"),
        (["tigger=x"], "unknown setting tigger; did you mean trigger?"),
        (["eval=davsi"], "did you mean davis?"),
        (["steps=[a]"], "expected a list of indices"),
        (["captions=none.csv"], "captions=none.csv: no such file"),
        (["device=gpu"], "expected auto, cpu"),
    ],
)
def test_wrong_use_is_one_line(videos, tmp_path, capsys, words, line):
    code, found = run(videos, tmp_path / "out", *words)
    assert code == 2 and found is None
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1] and said[-1].startswith("error: ")


def test_places_that_do_not_go_together(videos, tmp_path, capsys, no_report):
    out = ["--out", str(tmp_path / "out")]
    assert main(["eval", "run", *out, "--source", "a"]) == 2
    assert "give --pred DIR, or --export EXPORT" in capsys.readouterr().err
    assert main(["eval", "run", *out, "--pred", str(videos / "pred")]) == 2
    assert "--source is missing" in capsys.readouterr().err
    assert run(videos, tmp_path / "out", "metrics=[flicker]", "--allow-skipped")[0] == 0
    assert run(videos, tmp_path / "out", "metrics=[flicker]")[0] == 2
    assert "exists already; choose another --out" in capsys.readouterr().err
    assert run(videos, tmp_path / "out", "metrics=[flicker]", "--allow-skipped", "--overwrite")[0] == 0


def test_an_export_translates_first(videos, tmp_path, export, no_report):
    words = ["--export", str(export), "--metrics", "warp_error,flicker,latency", "--allow-skipped"]
    short = ["latency_frames=1", "latency_size=[32,32]", "frames=3", "trigger=cartoon", "steps=[30]"]
    code, found = run(videos, tmp_path / "out", *words, *short)
    assert code == 0 and found is not None
    assert [video.name for video in found.videos] == ["pan", "still"]
    for video in found.videos:
        assert (video.frames, video.caption) == (3, "cartoon")
        with VideoReader(video.pred) as reader:
            assert (reader.size, len(list(reader))) == ((32, 32), 3)
    latency = found.figures["latency"]
    assert (latency.videos, latency.low, latency.signature["steps"]) == (0, None, "30") and latency.mean > 0
    signature = found.figures["warp_error"].signature
    assert signature["prompt_position"] == "trigger as prefix" and signature["captions"] == "none"
    assert {"unet", "vae", "depth"} < set(found.environment["model"]["weights"])
    # The outputs can be measured again, to the same numbers.
    pred = ["--source", str(videos / "source"), "--pred", str(tmp_path / "out/pred")]
    again = ["eval", "run", *pred, "--out", str(tmp_path / "again"), "frames=3", "--allow-skipped"]
    assert main(again) == 0
    for name in found.figures.keys() & {"warp_error", "flicker"}:
        assert read(tmp_path / "again").figures[name].mean == found.figures[name].mean


def test_a_signal_ends_it_between_two_frames(videos, tmp_path, export, monkeypatch, capsys):
    def run_after_signal(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        translate_run(*args, **options)

    translate_run = translate.run
    monkeypatch.setattr(translate, "run", run_after_signal)
    code, found = run(videos, tmp_path / "out", "--export", str(export), "frames=1")
    assert (code, found) == (143, None)
    assert "the outputs until then are in" in capsys.readouterr().err


DAVIS = ("bear", "camel")


def test_the_davis_protocol(tmp_path, export, clip_model, depth_model, capsys):
    """On a folder laid out as DAVIS-2017-trainval-480p is, with masks beside the pictures."""
    for name in DAVIS:
        write_pictures(tmp_path / "DAVIS/JPEGImages/480p" / name, pan(9, (54, 30)), "jpg")
        write_pictures(tmp_path / "DAVIS/Annotations/480p" / name, pan(9, (54, 30)))
    table = tmp_path / "captions.csv"
    table.write_text("name,caption\nbear,a bear walks\n")
    words = ["eval=davis", f"captions={table}", f"clip_model={clip_model}", f"depth_model={depth_model}"]
    words += ["trigger=flat cartoon", "trigger_position=suffix", "size=[48,32]", "outputs=png"]
    places = ["--source", str(tmp_path / "DAVIS"), "--export", str(export), "--out", str(tmp_path / "out")]
    assert main(["eval", "run", *words, *places]) == 3
    said = capsys.readouterr().err
    assert "2 videos; the protocol has 90" in said
    assert f"skipped camel: has no caption in {table}" in said
    found = read(tmp_path / "out")
    assert [(video.name, video.caption) for video in found.videos] == [("bear", "a bear walks, flat cartoon")]
    assert list(found.figures) == ["depth_mse", "depth_mse_aligned", "clip_temporal", "warp_error"]
    for figure in found.figures.values():
        assert figure.signature["resolution"] == "48x32"
        assert figure.signature["data"] == "DAVIS-2017 in part"
        assert figure.signature["prompt_position"] == "trigger as suffix"
        assert figure.signature["stored_as"] == "png"
        assert str(figure.signature["captions"]).startswith("table ")
    with open(tmp_path / "out/results.json") as file:
        assert json.load(file)["environment"]["settings"]["trigger"] == "flat cartoon"


def test_the_davis_settings():
    settings = EvalSettings.of(["eval=davis"])
    assert settings.metrics == ("depth_mse", "clip_temporal", "warp_error")
    assert (settings.size, settings.videos, settings.subfolder) == ((768, 512), 90, "JPEGImages/480p")
    assert settings.length == "equal" and settings.frames is None and settings.captions is not None
    default = EvalSettings.of([])
    assert default.metrics == ("warp_error", "flicker") and default.rule.size is None


def test_the_list_says_what_each_metric_is(capsys):
    assert main(["eval", "list"]) == 0
    said = capsys.readouterr().out
    for word in ("warp_error", "clip_temporal", "depth_mse_aligned", "flicker", "latency_unet", "higher is"):
        assert word in said
