"""What the experiments of the paper's size lose when they are killed."""

from __future__ import annotations

from live2diff.config import compose
from tests.conftest import ROOT
from train.toy_tasks import TASKS


def test_no_more_micro_steps_between_checkpoints_than_the_paper_on_eight_gpus():
    found = {}
    for name in {path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")} - set(TASKS):
        trainer = compose("train", [f"experiment={name}", "data.path=clips"]).trainer
        if trainer.effective_batch:  # micro-steps of the toy world take no time
            found[name] = trainer.save_every * trainer.accumulate
    assert "single_gpu_24gb" in found
    assert max(found.values()) <= 500 * 32, found
