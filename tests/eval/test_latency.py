"""Latency figures of a tiny model: the parts make up the whole, and nothing stays behind on the model."""

from __future__ import annotations

from live2diff.eval import latency
from live2diff.eval.results import signature_text
from live2diff.model.video_model import VideoModel


def test_parts_and_whole(export):
    model = VideoModel.load(export)
    before = dict(vars(model)), dict(vars(model.unet))
    figures = latency.measure(model, 3, (40, 32), None)
    assert (dict(vars(model)), dict(vars(model.unet))) == before
    assert list(figures) == [kind.name for kind in latency.KINDS]
    parts = [figures[f"latency_{name}"].mean for name in ("encode", "depth", "unet", "decode", "other")]
    assert min(parts) > 0 and figures["latency_unet"].mean == max(parts)
    # A frame comes out one tick after it went in: there are two rows.
    assert figures["latency_delay"].mean > 1.3 * figures["latency"].mean
    for figure in figures.values():
        assert figure.unit == "s" and figure.better == "lower" and figure.videos == 0
        assert figure.low is not None and figure.high is not None
        assert figure.low <= figure.mean <= figure.high
        for word in ("frames:3", "resolution:40x32", "dtype:float32", "steps:"):
            assert word in signature_text(figure.signature)
