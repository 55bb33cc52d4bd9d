"""The parity certificate: what streams is the function that was trained, on the weights as they lie on disk.

Four things are measured on the written and reloaded model, in float32 on the CPU, with random latents:

- streaming: the masked forward pass against the stream, for every row of pipelines of 1, 2 and, where that is
  cheap, 4 rows, on the frames inside the window and on those beyond it;
- causality: with frame k changed, the masked forward gives every frame before k bit for bit as before;
- round trip: the tensors are bit for bit those that were exported, and so is what they compute;
- files: their hashes are those in `config.json`.

Sizes are small (8 x 8 latents, a few frames past the window): the claim is about attention over time, which
does the same at every size.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

from live2diff.errors import CheckpointError
from live2diff.model.folder import check_files, read_config, short_name
from live2diff.model.masks import Mask
from live2diff.model.video_model import VideoModel
from live2diff.terminal import progress
from live2diff.weights import read_json

FILE = "parity.json"
FORMAT = "live2diff parity"
_PIPELINES = (1, 2, 4)  # denoising rows
_CHEAP = 100e6  # parameters of a UNet that is run with 4 rows too; larger ones take minutes on a CPU as it is
TOLERANCE = 1e-4  # largest difference over the largest value; float32 gives about 1e-6
_LATENT = 8  # pixels of a side
_BEYOND = 6  # frames past the window: the ring turns over
_TOKENS = 8
_TIMESTEPS = (799, 599, 399, 199)  # one per row, noisiest first; the rows of a shorter pipeline are the first
_LIBRARIES = ("torch", "diffusers", "transformers", "safetensors")


@dataclass(frozen=True)
class Fingerprint:
    """What a model is, to the bit: hashes of its parts' weights, and the outputs of one masked forward."""

    parts: dict[str, str]
    outputs: torch.Tensor


def fingerprint(model: VideoModel) -> Fingerprint:
    """Take the fingerprint of `model`, which is in float32 afterwards."""
    model.to("cpu", torch.float32)
    return Fingerprint(model.hashes(), _masked(model, _Probe.of(model)))


def certify(
    folder: str | Path, model: VideoModel | None = None, exported: Fingerprint | None = None
) -> dict[str, Any]:
    """Measure the model folder and return its certificate, the content of `parity.json`.

    A bidirectional model cannot stream: its certificate has `certified` false and says why.

    Args:
        model: what `VideoModel.load(folder)` gave; None loads it here.
        exported: of the model before it was written. None: the hashes in the folder's own `parity.json`
            stand for it, where there is one.

    Raises:
        CheckpointError: something that should hold does not, or the folder cannot be loaded.
    """
    folder = Path(folder)
    config = read_config(folder)
    check_files(folder, config)
    model = model or VideoModel.load(folder)
    found = fingerprint(model)
    probe = _Probe.of(model)
    mask = model.settings.mask
    certificate: dict[str, Any] = {
        "format": FORMAT,
        "certified": mask != "bidirectional",
        "reason": "",
        "round_trip": _round_trip(folder, found, exported),
        "stored_as": short_name(config.dtype),
        "computed_in": "fp32 on the CPU",
        "sizes": {
            "mask": mask,
            "window": model.settings.window,
            "warmup": model.settings.streamed_warmup,
            "frames": probe.frames,
            "latent": [_LATENT, _LATENT],
            "timesteps": list(_TIMESTEPS[: probe.rows]),
            "depth": probe.depths is not None,
        },
        "versions": _versions(),
        "files": {name: entry["sha256"] for name, entry in config.files.items()},
    }
    if mask == "bidirectional":
        certificate["reason"] = "mask=bidirectional sees the future; such a model is a base and cannot stream"
        return certificate
    ticks = sum(probe.frames - model.settings.streamed_warmup + rows - 1 for rows in probe.pipelines)
    with progress("certifying", ticks, unit="steps") as advance:
        certificate["streaming"] = _streaming(folder, model, probe, found.outputs, advance)
    certificate["causality"] = _causality(folder, model, probe, found.outputs)
    return certificate


def summary(certificate: Mapping[str, Any]) -> str:
    """One line for the terminal and the model card."""
    if not certificate["certified"]:
        return f"not certified: {certificate['reason']}"
    worst = max(max(row["inside"], row["beyond"]) for row in certificate["streaming"]["rows"])
    known = certificate["round_trip"]["bit_equal"]
    return (
        f"certified: streaming equals the masked forward within {worst:.1e} of the largest value "
        f"(tolerance {TOLERANCE:.0e}), earlier frames never see later ones, "
        + (
            "the weights are bit for bit the exported ones"
            if known
            else "the folder has no earlier certificate"
        )
    )


# -- what is measured -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Probe:
    """Seeded random inputs: samples and depths (T, C, F, h, w), text states (1, S, D)."""

    samples: torch.Tensor
    depths: torch.Tensor | None
    text: torch.Tensor

    @property
    def rows(self) -> int:
        return self.samples.shape[0]

    @property
    def frames(self) -> int:
        return self.samples.shape[2]

    @property
    def pipelines(self) -> list[int]:
        return [rows for rows in _PIPELINES if rows <= self.rows]

    @classmethod
    def of(cls, model: VideoModel) -> _Probe:
        generator = torch.Generator().manual_seed(0)
        frames = model.settings.window
        if model.settings.mask != "bidirectional":
            frames += _BEYOND
        rows = 4 if sum(p.numel() for p in model.unet.parameters()) < _CHEAP else 2
        shape = (rows, model.unet.config.in_channels, frames, _LATENT, _LATENT)
        samples, depths = (torch.randn(shape, generator=generator) for _ in range(2))
        text = torch.randn(1, _TOKENS, model.unet.config.cross_attention_dim, generator=generator)
        return cls(samples, depths if model.settings.uses_depth else None, text)


@torch.no_grad()
def _masked(model: VideoModel, probe: _Probe) -> torch.Tensor:
    """What every row predicts for every frame when the whole clip is seen under the mask: (T, C, F, h, w)."""
    mask = cast(Mask, model.settings.mask)
    return model.unet(probe.samples, torch.tensor(_TIMESTEPS[: probe.rows]), probe.text, probe.depths, mask)


def _streamed(model: VideoModel, probe: _Probe, rows: int, advance: Callable[[], None]) -> torch.Tensor:
    """The same when frames come one at a time, through a pipeline as the engine runs it.

    Row r works on frame n - r at tick n: rows begin and end one after another. `advance` counts the ticks.
    """
    first = model.settings.streamed_warmup
    timesteps = torch.tensor(_TIMESTEPS[:rows])
    memory = model.unet.new_memory(rows, _LATENT, _LATENT, warmup=first)
    out = torch.full_like(probe.samples[:rows], float("nan"))
    for row in range(rows if first else 0):
        at = slice(row, row + 1)
        depth = None if probe.depths is None else probe.depths[at, :, :first]
        sample = probe.samples[at, :, :first]
        out[at, :, :first] = model.unet.warm_up(memory, row, sample, timesteps[row], probe.text, depth)
    for tick in range(first, probe.frames + rows - 1):
        frames = [tick - row for row in range(rows)]
        live = [first <= frame < probe.frames for frame in frames]
        sample, depth = (
            None if whole is None else _pick(whole, frames, live) for whole in (probe.samples, probe.depths)
        )
        assert sample is not None
        eps = model.unet.step(memory, sample, timesteps, probe.text, depth, torch.tensor(live))
        for row, frame in enumerate(frames):
            if live[row]:
                out[row, :, frame] = eps[row]
        advance()
    return out


def _pick(whole: torch.Tensor, frames: list[int], live: list[bool]) -> torch.Tensor:
    """Each row's frame, (T, C, h, w). Rows that have none get NaN, which must reach nobody."""
    nothing = torch.full_like(whole[0, :, 0], float("nan"))
    return torch.stack([whole[row, :, frame] if live[row] else nothing for row, frame in enumerate(frames)])


def _streaming(
    folder: Path, model: VideoModel, probe: _Probe, masked: torch.Tensor, advance: Callable[[], None]
) -> dict[str, Any]:
    """Errors by pipeline and row, relative to the row's largest value."""
    window, results = model.settings.window, []
    for rows in probe.pipelines:
        streamed = _streamed(model, probe, rows, advance)
        for row in range(rows):
            error = (streamed[row] - masked[row]).abs() / masked[row].abs().amax()
            worst = {"inside": error[:, :window].amax(), "beyond": error[:, window:].amax()}
            where = f"row {row} of {rows}"
            for part, value in worst.items():
                if not value <= TOLERANCE:  # NaN is not
                    raise CheckpointError(
                        f"{folder}: not certified: streaming differs from the masked forward by "
                        f"{float(value):.1e} of the largest value ({where}, frames {part} the window; "
                        f"tolerance {TOLERANCE:.0e}); what was trained is not what streams"
                    )
            named = {part: float(f"{float(value):.3g}") for part, value in worst.items()}
            results.append({"pipeline": rows, "row": row, "timestep": _TIMESTEPS[row], **named})
    return {"tolerance": TOLERANCE, "rows": results}


def _causality(folder: Path, model: VideoModel, probe: _Probe, before: torch.Tensor) -> dict[str, Any]:
    """Change frames at and after the warm-up, at and past the window's end; a different one in each row."""
    first, window = model.settings.streamed_warmup, model.settings.window
    changed = [max(first, 1), (first + window) // 2, window, probe.frames - 1]
    for some in (changed[i : i + probe.rows] for i in range(0, len(changed), probe.rows)):
        samples = probe.samples.clone()
        depths = None if probe.depths is None else probe.depths.clone()
        for row, frame in enumerate(some):
            samples[row, :, frame] += 1
            if depths is not None:
                depths[row, :, frame] -= 1
        after = _masked(model, _Probe(samples, depths, probe.text))
        for row, frame in enumerate(some):
            _check_change(folder, frame, before[row], after[row])
    return {"changed_frames": changed, "largest_change_of_an_earlier_frame": 0.0}


def _check_change(folder: Path, frame: int, before: torch.Tensor, after: torch.Tensor) -> None:
    """Predictions (C, F, h, w) of one row without and with a change of `frame`."""
    if not torch.equal(after[:, :frame], before[:, :frame]):
        difference = float((after[:, :frame] - before[:, :frame]).abs().amax())
        raise CheckpointError(
            f"{folder}: not certified: a change of frame {frame} changes earlier frames by "
            f"{difference:.1e}; the model sees the future and cannot stream"
        )
    if torch.equal(after[:, frame], before[:, frame]):
        raise CheckpointError(
            f"{folder}: not certified: a change of frame {frame} does not change its own prediction; "
            "the model ignores its input"
        )


def _round_trip(folder: Path, found: Fingerprint, exported: Fingerprint | None) -> dict[str, Any]:
    """Compare what was loaded with what was written, or with what `parity.json` says was written."""
    if exported is None:
        recorded = read_json(folder / FILE).get("round_trip") if (folder / FILE).is_file() else None
        if recorded is not None and (not isinstance(recorded, dict) or recorded.get("parts") != found.parts):
            raise CheckpointError(f"{folder / FILE}: belongs to other weights; export the model again")
        return {"bit_equal": recorded is not None, "parts": found.parts}
    if found.parts != exported.parts:
        raise CheckpointError(f"{folder}: not certified: the weights on disk are not those of the model")
    if not torch.equal(found.outputs, exported.outputs):
        raise CheckpointError(
            f"{folder}: not certified: the reloaded model has the same weights but computes something else; "
            "part of its configuration was lost in writing"
        )
    return {"bit_equal": True, "parts": found.parts}


def _versions() -> dict[str, str]:
    own = {"live2diff": version("live2diff"), "python": platform.python_version()}
    return own | {library: version(library) for library in _LIBRARIES}
