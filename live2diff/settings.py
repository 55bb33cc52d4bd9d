"""What training and streaming must agree on, stored once: the `config.json` of an exported model.

Both sides read these values from here and nowhere else, so that a model is never streamed with a noise
schedule, window or depth normalisation it was not trained with.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from live2diff.depth.policy import DepthPolicy
from live2diff.errors import UsageError
from live2diff.model.masks import MASKS

T = TypeVar("T")


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process: alpha-bar over 1000 timesteps.

    `linear` from 0.00085 to 0.012 is AnimateDiff's and Live2Diff's. SD1.5's own folder says `scaled_linear`;
    taking that over would be silently wrong.

    prediction: what the UNet says about noisy latents, `epsilon` (the noise) or `v_prediction` (Salimans & Ho
        2022). Exports that do not say are of the time when there was only epsilon.
    """

    kind: str = "linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    timesteps: int = 1000
    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        _check("noise.kind", self.kind in ("linear", "scaled_linear"), self.kind, "linear or scaled_linear")
        _check("noise.beta_start", 0 < self.beta_start < 1, self.beta_start, "a number in (0, 1)")
        _check(
            "noise.beta_end", self.beta_start <= self.beta_end < 1, self.beta_end, "beta_start or more, < 1"
        )
        _check("noise.timesteps", self.timesteps >= 50, self.timesteps, "50 or more")
        known = self.prediction in ("epsilon", "v_prediction")
        _check("noise.prediction", known, self.prediction, "epsilon or v_prediction")

    def scheduler_config(self) -> dict[str, Any]:
        """Arguments for any of diffusers' schedulers."""
        return {
            "num_train_timesteps": self.timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.kind,
            "prediction_type": self.prediction,
            "clip_sample": False,
        }


@dataclass(frozen=True)
class TextSettings:
    """How prompts become states: `max_length` tokens; `clip_skip` last layers left out, 0 for none."""

    max_length: int = 77
    clip_skip: int = 0

    def __post_init__(self) -> None:
        _check("text.max_length", 3 <= self.max_length <= 77, self.max_length, "3 to 77")
        _check("text.clip_skip", 0 <= self.clip_skip <= 11, self.clip_skip, "0 to 11")


@dataclass(frozen=True)
class Settings:
    """Everything a trained model fixes for its use.

    mask, window, warmup: who sees whom in time (`live2diff.model.masks`).
    vae_scaling: factor that brings VAE latents to unit variance (SD1.5: 0.18215).
    depth: normalisation of the conditioning depth; `uses_depth` is False for a model trained without.
    size: (width, height) the model was trained at, pixels; the default for streaming.
    steps: default denoising rows as indices into the 50-step LCM schedule, noisiest first (paper: 30, 40).
    """

    mask: str = "warmup_causal"
    window: int = 16
    warmup: int = 8
    noise: NoiseSchedule = field(default_factory=NoiseSchedule)
    text: TextSettings = field(default_factory=TextSettings)
    vae_scaling: float = 0.18215
    uses_depth: bool = True
    depth: DepthPolicy = field(default_factory=DepthPolicy)
    size: tuple[int, int] = (512, 512)
    steps: tuple[int, ...] = (30, 40)

    def __post_init__(self) -> None:
        _check("mask", self.mask in MASKS, self.mask, f"one of {', '.join(MASKS)}")
        _check("window", 2 <= self.window <= 64, self.window, "2 to 64")
        _check("warmup", 0 <= self.warmup < self.window, self.warmup, f"0 to {self.window - 1} (window - 1)")
        _check("vae_scaling", 0 < self.vae_scaling < 1e6, self.vae_scaling, "a positive number")
        ok = len(self.size) == 2 and all(s > 0 and s % 8 == 0 for s in self.size)
        _check("size", ok, self.size, "width and height, multiples of 8")
        check_steps(self.steps)

    @property
    def streamed_warmup(self) -> int:
        """Frames that a stream denoises together at its start; a plain causal model has none."""
        return self.warmup if self.mask == "warmup_causal" else 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any], skipped: list[str] | None = None) -> Settings:
        """The settings of a `to_dict` result, also after JSON or YAML; absent keys take their default.

        Args:
            skipped: where given, unknown keys are left out and their paths appended to it.

        Raises:
            UsageError: an unknown key, a wrong type or a value out of range, with the key's path.
        """
        return _read(cls, data, "", skipped)


def check_steps(steps: tuple[int, ...]) -> None:
    """Raise UsageError unless `steps` are rising indices into the 50-step schedule (later = less noise)."""
    ok = bool(steps) and all(0 <= s < 50 for s in steps) and list(steps) == sorted(set(steps))
    _check("steps", ok, steps, "rising whole numbers from 0 to 49, like 30,40")


def _check(key: str, ok: bool, value: Any, expected: str) -> None:
    if not ok:
        raise UsageError(f"settings: {key}={value!r}; expected {expected}")


_NESTED = {"noise": NoiseSchedule, "text": TextSettings, "depth": DepthPolicy}


def _read(cls: type[T], data: Any, prefix: str, skipped: list[str] | None) -> T:
    if not isinstance(data, dict):
        raise UsageError(f"settings: {prefix.rstrip('.') or 'config'} must be a table of keys, not {data!r}")
    known = {f.name: f for f in fields(cls)}  # pyright: ignore[reportArgumentType]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            if skipped is not None:
                skipped.append(f"settings.{prefix}{key}")
                continue
            raise UsageError(f"settings: unknown key {prefix}{key}; known are {', '.join(known)}")
        if key in _NESTED:
            values[key] = _read(_NESTED[key], value, f"{prefix}{key}.", skipped)
            continue
        values[key] = tuple(value) if isinstance(value, list) else value
        if not _fits(str(known[key].type), values[key]):
            raise UsageError(f"settings: {prefix}{key}={value!r}; expected {known[key].type}")
    return cls(**values)


def _fits(annotation: str, value: Any) -> bool:
    if annotation.startswith("tuple"):
        return isinstance(value, tuple) and all(type(v) is int for v in value)
    if annotation == "float":
        return type(value) in (int, float)
    return type(value).__name__ == annotation
