"""The export of a full-size run, and the memory that each stage takes.

    python -m tests.interop.size_drill make FOLDER      random files of SD1.5's sizes, and a run on them
    python -m tests.interop.size_drill export FOLDER    exports the run and loads the export again

Two processes, so that the second begins with nothing.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GB = 1e9
_EVERY = 0.02  # seconds between two looks at the memory


def make(folder: Path) -> None:
    """SD1.5 in diffusers' layout, AnimateDiff v1 modules, dpt_hybrid, and a run on them."""
    import torch
    from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
    from omegaconf import OmegaConf
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    from live2diff.config import compose
    from live2diff.depth import new_depth
    from live2diff.interop.sizes import sd15_config
    from live2diff.model.text import character_tokenizer

    base = folder / "sd15"
    for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        _random(kind.from_config(sd15_config(part))).save_pretrained(base / part)
    _random(CLIPTextModel(CLIPTextConfig(**sd15_config("text_encoder")))).save_pretrained(
        base / "text_encoder"
    )
    character_tokenizer().save_pretrained(base / "tokenizer")
    torch.save(_random(new_depth("dpt_hybrid")).state_dict(), folder / "dpt_hybrid_384.pt")
    adapter = MotionAdapter(motion_max_seq_length=24, use_motion_mid_block=False)
    _random(adapter).save_pretrained(folder / "motion")

    names = ("unet.pretrained", "vae.pretrained", "text.pretrained")
    config = compose(
        "train",
        [
            "experiment=stage1_mask",
            *(f"model.{name}={base}" for name in names),
            f"model.unet.motion={folder / 'motion'}",
            f"model.depth.weights={folder / 'dpt_hybrid_384.pt'}",
            "data.path=none",
        ],
    )
    checkpoint = folder / "run/checkpoints/step-003000"
    checkpoint.mkdir(parents=True)
    OmegaConf.save(config, folder / "run/config.yaml")
    trained = {k: t for k, t in _random(adapter).state_dict().items() if not k.endswith("pos_embed.pe")}
    save_file(trained, checkpoint / "weights.safetensors")
    files = {"weights.safetensors": {"bytes": (checkpoint / "weights.safetensors").stat().st_size}}
    (checkpoint / "manifest.json").write_text(json.dumps({"updates": 3000, "files": files}))


def _random(module):
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale = 1 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.1
            parameter.normal_(0, scale).add_(float(parameter.ndim == 1 and name.endswith("weight")))
    return module


def export(folder: Path) -> dict:
    """Peak memory, anonymous and in all, and seconds, by stage; `weights` is what the parts weigh on disk."""
    from live2diff.interop import certificate
    from live2diff.interop import export as exporting
    from live2diff.model.folder import read_config
    from live2diff.model.video_model import VideoModel
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    watch = Watch()
    for place, name, stage in (
        (exporting, "load_model", "build"),
        (exporting, "_write", "write"),
        (exporting, "certify", "certify"),
        (exporting, "write_sample", "sample"),
        (certificate, "check_files", "hashes"),
    ):
        watch.wrap(place, name, stage)
    load = VideoModel.load
    watch.base = memory()["RssAnon"]

    def reload(*args, **options):
        with watch.stage("reload"):
            return load(*args, **options)

    VideoModel.load = reload
    with watch.stage("rest"):
        found = exporting.export(folder / "run", folder / "export")
    with watch.stage("load again"):
        model = load(folder / "export")
    parameters = sum(p.numel() for p in model.unet.parameters())
    files = read_config(folder / "export").files
    return {
        "certificate": found,
        "parameters": parameters,
        "weights": sum(entry["bytes"] for entry in files.values()) / GB,
        "base": watch.base / GB,
        "stages": watch.stages,
    }


class Watch:
    """Looks at the process's memory all the time, and books the peak on the stage in work."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self.base = 0
        self._stack: list[str] = []
        threading.Thread(target=self._look, daemon=True).start()

    def wrap(self, place, name: str, stage: str) -> None:
        function = getattr(place, name)

        def watched(*args, **options):
            with self.stage(stage):
                return function(*args, **options)

        setattr(place, name, watched)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        entry = self.stages.setdefault(name, {"anonymous": 0.0, "all": 0.0, "seconds": 0.0})
        self._stack.append(name)
        try:
            yield
        finally:
            self._stack.pop()
            entry["seconds"] += round(time.monotonic() - begin, 1)
            print(name, entry, file=sys.stderr, flush=True)

    def _look(self) -> None:
        while True:
            now = memory()
            if self._stack:
                entry = self.stages[self._stack[-1]]
                entry["anonymous"] = max(entry["anonymous"], now["RssAnon"] / GB)
                entry["all"] = max(entry["all"], now["VmRSS"] / GB)
            time.sleep(_EVERY)


def memory() -> dict[str, int]:
    """Bytes of this process: RssAnon is its own, VmRSS has the pages of mapped files too."""
    with open("/proc/self/status") as file:
        lines = [line.split() for line in file if line.startswith(("RssAnon", "VmRSS"))]
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines}


if __name__ == "__main__":
    task, where = sys.argv[1], Path(sys.argv[2])
    if task == "make":
        make(where)
    else:
        print(json.dumps(export(where)))
