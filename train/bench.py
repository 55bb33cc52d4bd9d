"""Our training step against a plain one, on the same data and the same weights: `bench train`.

    plain    what the public training scripts of AnimateDiff and PIA do: in every step frames are decoded,
             encoded by the VAE, and captions by CLIP; diffusers' `UNetMotionModel` as it stands
    ours     `train.module.Diffusion` as `live2diff train` runs it, from columns of latents and text

Each is measured in float32 and under bfloat16 autocast. The loops take turns, two steps at a time, so that
whatever else the machine does falls on all alike. They share one set of weights, or a large model would not
fit four times; the plain loop's optimiser is torch's as it comes, ours the trainer's. What they learn does
not matter here; `tests/train/test_bench.py` shows that both compute the same loss.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DDPMScheduler, UNetMotionModel

from live2diff.bench.models import SD15_TEXT, stock_unet
from live2diff.interop.sizes import sd15_config
from live2diff.model.build import as_trained, build
from live2diff.model.unet import CausalUNet
from live2diff.model.video_model import VideoModel
from train.columns import Parts, choose_parts
from train.data import Clips, collate
from train.flops import matmul_rate, training_flops
from train.module import OPTIMISERS, Diffusion
from train.noise import draw
from train.objective import DISTANCES
from train.settings import load_config

MODELS = ("tiny", "sd15")
_PHASES = ("read", "encode", "forward", "backward", "optimise")
_PRECISIONS = ("32-true", "bf16-mixed")
# The sizes of Stable Diffusion 1.5's VAE that are not diffusers' own.
_VAE = (
    "block_out_channels", "down_block_types", "up_block_types", "layers_per_block", "norm_num_groups",
)  # fmt: skip


def settings(
    model: str, dataset: Path | str, *, size: int, frames: int, batch: int, checkpointing: bool = False
) -> dict[str, Any]:
    """The configuration of a bench run, stage 1 of the recipe."""
    large = _large() if model == "sd15" else []
    return load_config([
        "experiment=tiny", "validation=off", f"data.path={dataset}", f"data.size={size}",
        f"data.frames={frames}", "data.hflip=0", "data.caption_dropout=0", f"trainer.batch={batch}",
        f"model.settings.size=[{size},{size}]", f"trainer.gradient_checkpointing={checkpointing}", *large,
    ])  # fmt: skip


def _large() -> list[str]:
    """The sizes of Stable Diffusion 1.5, with random weights: nothing is to be downloaded."""
    sizes = sd15_config("vae")
    values = {f"model.vae.config.{name}": sizes[name] for name in _VAE}
    values |= {f"model.text.config.{name}": size for name, size in SD15_TEXT.items()}
    values["model.vae.config.mid_block_add_attention"] = True
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def save_parts(model: str, folder: Path, size: int) -> None:
    """Write a model whose VAE and text encoder have the sizes of `model`; its UNet is always the tiny one.

    Columns are made with it: they do not depend on the UNet.
    """
    build(settings(model, "none", size=size, frames=16, batch=1)["model"]).save(folder)


class Plain:
    """The plain training step.

    Args:
        model: the VAE, text encoder and noise schedule.
        unet: diffusers' own, see `live2diff.bench.models.stock_unet`.
        loss: a key of `train.objective.DISTANCES`.
    """

    def __init__(self, model: VideoModel, unet: UNetMotionModel, loss: str):
        self.model, self.unet, self._distance = model, unet, DISTANCES[loss]
        self._schedule = DDPMScheduler(**model.settings.noise.scheduler_config())

    def loss(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Mean loss of a batch of frames. Timesteps and noise are drawn as ours are, to be comparable."""
        video = batch["video"].to(self.unet.device)
        count, _, frames, height, width = video.shape
        scale = self.model.downscale
        shape = (self.unet.config["in_channels"], frames, height // scale, width // scale)
        timestep, noise, posterior = draw(
            batch["seed"], shape, len(self._schedule), cast(torch.device, self.unet.device)
        )
        with torch.no_grad():
            pictures = video.transpose(1, 2).flatten(0, 1)
            place = self.model.vae.encode(pictures).latent_dist
            mean, std = (t.unflatten(0, (count, frames)).transpose(1, 2) for t in (place.mean, place.std))
            latents = (mean + std * posterior) * self.model.vae.config.scaling_factor
            text = self.model.text(batch["caption"]).repeat_interleave(frames, dim=0)
        noisy = self._schedule.add_noise(latents, noise, timestep)  # pyright: ignore[reportArgumentType]
        predicted = self.unet(noisy, timestep, text).sample
        return self._distance(predicted.float(), noise)


def measure(
    config: dict[str, Any], parts: Path, model: str, steps: int, device: torch.device, compiled: bool = False
) -> dict[str, Any]:
    """Run all loops in turn, `steps` times two steps each, of which the second counts.

    Args:
        config: see `settings`.
        parts: see `save_parts`.
        model: one of `MODELS`.
        compiled: also measure our step with trainer.compile=true.

    Returns:
        `loops` by name, each with medians in seconds: `wall`, `processor`, and `phases`, wall time by phase;
        `ratios` of the plain loop's wall time to ours, and of its processor time; `parameters` and `trained`;
        `matmul_gflops` by precision, `step_gflop` of our step; on a GPU `memory`, see `measure_memory`.
    """
    video = VideoModel.load(parts)
    if model == "sd15":
        video.unet = CausalUNet()
    video = as_trained(video, config)
    modules = {kind: _ours(video, config, precision=kind) for kind in _PRECISIONS}  # on the same weights
    module = modules["32-true"]
    video.to(device)
    module.unet.train()
    columns = choose_parts({**config["data"], "columns": ["latents", "text"]}, video, depth=False)
    plain = Plain(video, stock_unet(module.unet).train(), config["trainer"]["loss"])
    if config["trainer"]["gradient_checkpointing"]:  # of the spatial layers alone: diffusers knows no more
        plain.unet.enable_gradient_checkpointing()
    trained = [parameter for parameter in module.unet.parameters() if parameter.requires_grad]
    # Each way its own: the plain one is what torch gives those who ask for nothing.
    optimisers = {
        "plain": OPTIMISERS[config["optim"]["kind"]](trained, lr=config["optim"]["lr"]),
        "ours": module.configure_optimizers(),
    }
    loops = {}
    for kind in _PRECISIONS:
        loops[f"plain {kind}"] = _Loop(plain, config, Parts(), kind, optimisers["plain"], device)
        loops[f"ours {kind}"] = _Loop(modules[kind], config, columns, kind, optimisers["ours"], device)
    for kind in _PRECISIONS if compiled else ():
        again = _ours(video, config, precision=kind, compile=True)
        loops[f"ours {kind}, compiled"] = _Loop(again, config, columns, kind, optimisers["ours"], device)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in loops}
    for _ in range(steps):
        for name, loop in loops.items():
            with loop.ready():
                loop.step()  # not counted: the weights were just exchanged, and what compiles does so here
                times[name].append(loop.step())
    medians = {
        name: {key: statistics.median(taken[key] for taken in all_taken) for key in all_taken[0]}
        for name, all_taken in times.items()
    }
    shape = module.encode.latent_shape(next(loops["ours 32-true"].batches))
    result: dict[str, Any] = {
        "loops": {
            name: {
                "wall": round(taken["wall"], 4),
                "processor": round(taken["processor"], 4),
                "phases": {phase: round(taken[phase], 4) for phase in _PHASES},
            }
            for name, taken in medians.items()
        },
        "ratios": {
            f"{ours} against plain {theirs}": {
                kind: round(medians[f"plain {theirs}"][kind] / medians[ours][kind], 2)
                for kind in ("wall", "processor")
            }
            for ours in medians
            if ours.startswith("ours")
            for theirs in _PRECISIONS
            if theirs in ("32-true", ours.split()[1].rstrip(","))  # the plain one as it is, and like for like
        },
        "parameters": sum(parameter.numel() for parameter in module.unet.parameters()),
        "trained": sum(parameter.numel() for parameter in trained),
        "step_gflop": round(training_flops(module, shape) * config["trainer"]["batch"] / 1e9, 1),
        "matmul_gflops": {kind: round(matmul_rate(device, kind) / 1e9, 1) for kind in _PRECISIONS},
    }
    if device.type == "cuda":
        optimisers["plain"].state.clear()  # ours is measured, and a training has one optimiser
        result["memory"] = measure_memory(modules["bf16-mixed"], config, columns, optimisers["ours"], device)
    return result


def measure_memory(
    module: Diffusion,
    config: dict[str, Any],
    parts: Parts,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> dict[str, dict[str, float]]:
    """Our step under bfloat16 with a batch of 4 clips on a GPU, with and without gradient checkpointing.

    Returns:
        For each, `peak_memory_gb` that torch held, `wall` seconds of a step, and `mfu`; nothing for one that
        does not fit.
    """
    config = {**config, "trainer": {**config["trainer"], "batch": 4}}
    loop = _Loop(module, config, parts, "bf16-mixed", optimiser, device)
    found, rate = {}, matmul_rate(device, "bf16-mixed")
    flops = 4 * training_flops(module, module.encode.latent_shape(next(loop.batches)))
    for name, switch in (
        ("without checkpointing", module.unet.disable_gradient_checkpointing),
        ("with checkpointing", module.unet.enable_gradient_checkpointing),
    ):
        switch()
        try:
            with loop.ready():
                loop.step()
                torch.cuda.reset_peak_memory_stats()
                wall = statistics.median(loop.step()["wall"] for _ in range(5))
        except torch.OutOfMemoryError:
            found[name] = {}
            module.unet.zero_grad()
            continue
        found[name] = {
            "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
            "wall": round(wall, 4),
            "mfu": round(flops / wall / rate, 3),
        }
    return found


def lines(result: Mapping[str, Any]) -> list[str]:
    """The table of a `measure` result."""
    table = [
        f"{'seconds per step':26}{'wall':>9}{'processor':>11}" + "".join(f"{phase:>10}" for phase in _PHASES)
    ]
    for name, taken in result["loops"].items():
        phases = "".join(f"{taken['phases'][phase]:10.3f}" for phase in _PHASES)
        table.append(f"{name:26}{taken['wall']:9.3f}{taken['processor']:11.3f}{phases}")
    for name, ratio in result["ratios"].items():
        table.append(f"{name}: {ratio['wall']:.2f}x wall, {ratio['processor']:.2f}x processor time")
    rates = ", ".join(f"{rate:.0f} GFLOP/s {kind}" for kind, rate in result["matmul_gflops"].items())
    table.append(f"our step: {result['step_gflop']:.1f} GFLOP; matrix product: {rates}")
    for name, found in result.get("memory", {}).items():
        told = "it does not fit"
        if found:
            told = f"{found['peak_memory_gb']:.1f} GB, {found['wall']:.3f} s, MFU {found['mfu']:.0%}"
        table.append(f"batch 4, {name}: {told}")
    return table


def _ours(video: VideoModel, config: Mapping[str, Any], **trainer: Any) -> Diffusion:
    return Diffusion(video, {**config["trainer"], **trainer}, config["optim"])


class _Loop:
    """One way to train, step by step, with its own batches in the order that all have."""

    def __init__(
        self,
        way: Plain | Diffusion,
        config: dict[str, Any],
        parts: Parts,
        precision: str,
        optimiser: torch.optim.Optimizer,
        device: torch.device,
    ):
        self._way, self._optimiser, self._device = way, optimiser, device
        self._half = precision != "32-true"
        self._trained = optimiser.param_groups[0]["params"]
        self.batches = _batches(config, parts, device)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The weights as this way keeps them between its steps; the other ways share them."""
        frozen = self._way.frozen if isinstance(self._way, Diffusion) else None
        if frozen:
            frozen.narrow()
        try:
            yield
        finally:
            if frozen:
                frozen.widen()

    def step(self) -> dict[str, float]:
        """Train on the next batch; returns seconds: `wall`, `processor`, and each phase."""
        marks, processor = [self._now()], time.process_time()
        batch = next(self.batches)
        marks.append(self._now())
        hook = self._way.unet.register_forward_pre_hook(lambda *_: marks.append(self._now()))
        autocast = torch.autocast(self._device.type, torch.bfloat16) if self._half else nullcontext()
        with autocast:
            loss = self._way.loss(batch)
        hook.remove()
        if len(marks) == 2:  # what is compiled calls no hooks: encoding counts as forward
            marks.append(marks[-1])
        marks.append(self._now())
        loss.backward()
        marks.append(self._now())
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimiser.step()
        self._optimiser.zero_grad()
        marks.append(self._now())
        spans = [after - before for before, after in zip(marks, marks[1:], strict=False)]
        taken = {"wall": marks[-1] - marks[0], "processor": time.process_time() - processor}
        return taken | dict(zip(_PHASES, spans, strict=True))

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _batches(config: dict[str, Any], parts: Parts, device: torch.device) -> Iterator[dict[str, Any]]:
    batch = config["trainer"]["batch"]
    clips = iter(Clips(config["data"], config["seed"], batch=batch, batches=1 << 30, parts=parts))
    while True:
        taken = collate([next(clips) for _ in range(batch)])
        yield {
            key: value.to(device) if isinstance(value, torch.Tensor) else value
            for key, value in taken.items()
        }
