"""`live2diff eval run`: find the videos, translate them if a model is given, measure, write the results.

OUT/results.json    figures with signatures, values by video and frame
OUT/report.html     the same to look at; report.md the same to paste
OUT/pred/           outputs, where a model made them
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from live2diff import machine
from live2diff.devices import find_device
from live2diff.errors import UsageError
from live2diff.eval import bootstrap, latency, results
from live2diff.eval.captions import captions_of, prompt
from live2diff.eval.catalogue import METRICS, Needs, check_names, make_metrics
from live2diff.eval.clips import Clip, find_clips, printable
from live2diff.eval.flow import Flow
from live2diff.eval.measure import Measured
from live2diff.eval.pairs import Pair, pair_up, repeated
from live2diff.eval.results import Figure, Results, Signature, Skipped
from live2diff.eval.settings import EvalSettings
from live2diff.eval.translate import translate_all
from live2diff.eval.warp_error import WarpError
from live2diff.interop.lora import parse_lora
from live2diff.model.video_model import VideoModel
from live2diff.stream.setup import Setup, identity
from live2diff.stream.strength import steps_of

_PACKAGES = ("torch", "torchvision", "opencv-python-headless", "transformers", "diffusers", "numpy", "av")


def evaluate(
    source: str | None,
    out: Path,
    settings: EvalSettings,
    *,
    pred: str | None = None,
    export: str | None = None,
    overwrite: bool = False,
    created: str | None = None,
) -> Results:
    """Measure outputs in `pred`, or those that the model `export` makes of the sources, and write `out`.

    Args:
        source: a folder of videos or a dataset; None if only latency is measured.
        out: the folder for the results; see the head of this file.
        overwrite: replace results that lie there.
        created: when, as it is to stand in the results.

    Returns:
        What was written.

    Raises:
        UsageError: arguments that do not go together, a place without videos, results that lie there.
        DataError, CheckpointError, SetupError: a dataset, a model or the machine.
        Interrupted: a signal came while outputs were made; they are kept.
    """
    check_names(settings.metrics, export is not None)
    if (pred is None) == (export is None):
        raise UsageError("give --pred DIR, or --export EXPORT to make the outputs: one of them")
    on_pairs = [name for name in settings.metrics if METRICS[name].make is not None]
    if on_pairs and source is None:
        raise UsageError(f"--source is missing; {', '.join(on_pairs)} compare with it")
    _check_out(out, export is not None, overwrite)
    device = find_device(settings.device, "device")
    # What needs no long work first, so that what is wrong shows at once.
    metrics = make_metrics(settings.metrics, _needs(settings, device))
    clips = clips_of(source, settings) if source is not None and on_pairs else []
    captions, whence = captions_of(clips, settings.captions) if clips else ({}, "none")
    environment: dict[str, Any] = {
        **machine.describe(*_PACKAGES),
        "bootstrap": {"samples": bootstrap.SAMPLES, "level": bootstrap.LEVEL, "seed": bootstrap.SEED},
        "settings": asdict(settings),
    }
    figures: dict[str, Figure] = {}
    if export is not None:
        setup = _setup(export, settings)
        model = setup.load()
        environment["model"] = identity(setup, model)
        if "latency" in settings.metrics:
            steps = settings.steps
            if settings.strength is not None:
                steps = steps_of(settings.strength, len(model.settings.steps))
            figures |= latency.measure(model, settings.latency_frames, settings.latency_size, steps)
        pairs, skipped = _translated(clips, captions, setup, model, out / "pred", settings)
        stated = True
        del model
    else:
        assert pred is not None
        pairs, skipped = pair_up(clips, find_clips(pred))
        pairs = [replace(pair, caption=captions.get(pair.name)) for pair in pairs]
        stated = bool(settings.captions or settings.trigger)
    measured = Measured(metrics, settings.rule)
    for number, pair in enumerate(pairs, start=1):
        measured.add(pair, f"measuring {number} of {len(pairs)}, {printable(pair.name)}")
    given = {"data": _data(settings, len(measured.videos)), **_prompts(settings, whence, stated)}
    figures = measured.figures(given) | figures
    found = Results(
        source=source or "",
        pred=pred or export or "",
        figures=figures,
        videos=measured.videos,
        skipped=[*skipped, *measured.skipped],
        environment=environment,
        created=created,
    )
    flows = [metric.flow for metric in metrics if isinstance(metric, WarpError)]
    _write(found, out, flows[0] if flows else None)
    return found


def _check_out(out: Path, with_outputs: bool, overwrite: bool) -> None:
    for name in (results.NAME, *(["pred"] if with_outputs else [])):
        if (out / name).exists() and not overwrite:
            raise UsageError(f"{out / name}: exists already; choose another --out or add --overwrite")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is no folder")


def _needs(settings: EvalSettings, device: Any) -> Needs:
    names = ("flow", "raft_weights", "clip_model", "depth_model")
    return Needs(**{name: getattr(settings, name) for name in names}, device=device)


def clips_of(source: str, settings: EvalSettings) -> list[Clip]:
    """The sources. Raises UsageError, DataError."""
    place = Path(source) / settings.subfolder if settings.subfolder else Path(source)
    clips = find_clips(place, settings.split)
    if settings.videos is not None and len(clips) != settings.videos:
        print(f"warning: {place}: {len(clips)} videos; the protocol has {settings.videos}", file=sys.stderr)
    return clips


def _setup(export: str, settings: EvalSettings) -> Setup:
    loras = tuple((str(path), scale) for path, scale in map(parse_lora, settings.loras))
    return Setup(
        export,
        steps=settings.steps,
        strength=settings.strength,
        size=settings.size,
        seed=settings.seed,
        noise=settings.noise,
        loras=loras,
        device=settings.device,
        dtype=settings.dtype,
    )


def _translated(
    clips: Sequence[Clip],
    captions: Mapping[str, str | None],
    setup: Setup,
    model: VideoModel,
    folder: Path,
    settings: EvalSettings,
) -> tuple[list[Pair], list[Skipped]]:
    double = repeated(clips)
    skipped = [Skipped(name, "two sources have this name") for name in sorted(double)]
    clips = [clip for clip in clips if clip.name not in double]
    lacking = [clip.name for clip in clips if not captions[clip.name]]
    if settings.captions is not None:
        reason = f"has no caption in {settings.captions}"
        skipped += [Skipped(name, reason) for name in lacking]
        clips = [clip for clip in clips if clip.name not in lacking]
    elif lacking:
        print(
            f"warning: {len(lacking)} of {len(clips)} videos have no caption ({printable(lacking[0])}"
            f"{', ...' if len(lacking) > 1 else ''}); live2diff eval caption writes them",
            file=sys.stderr,
        )
    prompts = {
        clip.name: prompt(captions[clip.name] or "", settings.trigger, settings.trigger_position)
        for clip in clips
    }
    pairs, unreadable = translate_all(
        clips,
        prompts,
        setup,
        model,
        folder,
        how=settings.fit,
        outputs=settings.outputs,
        frames=settings.frames,
    )
    return pairs, [*skipped, *unreadable]


def _data(settings: EvalSettings, count: int) -> str:
    if settings.dataset is None:
        return "not stated"
    return settings.dataset if settings.videos in (None, count) else f"{settings.dataset} in part"


def _prompts(settings: EvalSettings, whence: str, stated: bool) -> Signature:
    """What signatures say of prompts. Which words the trigger is stands in the settings."""
    if not stated:
        return {"captions": "not stated", "prompt_position": "not stated"}
    position = f"trigger as {settings.trigger_position}" if settings.trigger else "no trigger"
    return {"captions": whence, "prompt_position": position}


def _write(found: Results, out: Path, flow: Flow | None) -> None:
    from live2diff.eval.report import write_report
    from live2diff.eval.report.worst import masks_by

    results.write(found, out / results.NAME)
    write_report(found, out, masks_by(flow) if flow else None)
