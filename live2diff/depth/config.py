"""The shape of a depth network, as plain numbers that round-trip through JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from live2diff.errors import UsageError

# The BiT ResNet-50 of the hybrid: widths of its stages, and pixels per side behind one of its last features.
RESNET_CHANNELS = (256, 512, 1024)
RESNET_STRIDE = 16

# Whole numbers from ... to. A config may come with a downloaded file and must not cost the machine's memory.
_BOUNDS = {"taps": (0, 63), "resnet": (1, 63)}
_OTHER_BOUNDS = (1, 4096)


@dataclass(frozen=True)
class DPTConfig:
    """The shape of a DPT. `PRESETS` holds the known ones; `to_dict` and `from_dict` are its JSON form.

    Args:
        image_size: side of the square the network sees, pixels; an even number of patches.
        patch: side of the square behind one token, pixels; 16 beside a ResNet.
        width: channels of the ViT.
        heads: attention heads of the ViT.
        taps: the ViT blocks whose tokens become feature maps, rising, from 0; the ViT ends with the last.
            Four, or two beside a ResNet, whose first two stages then are the finer maps.
        neck: channels of the four feature maps, fine to coarse; beside a ResNet the first two are 256, 512.
        features: width of the decoder, even.
        resnet: bottlenecks in each of three ResNet stages before the ViT; empty for a plain ViT.

    Raises:
        UsageError: values that do not make a network.
    """

    image_size: int
    patch: int
    width: int
    heads: int
    taps: tuple[int, ...]
    neck: tuple[int, ...]
    features: int
    resnet: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _BOUNDS.get(field.name, _OTHER_BOUNDS)
            is_row = field.type == "tuple[int, ...]"
            if isinstance(value, tuple) != is_row or not all(
                type(number) is int and low <= number <= high for number in (value if is_row else [value])
            ):
                kind = "a list of whole numbers" if is_row else "a whole number"
                raise UsageError(f"depth network: {field.name} must be {kind} from {low} to {high}")
        resnet_fits = (self.patch, *self.neck[:2]) == (RESNET_STRIDE, *RESNET_CHANNELS[:2])
        rules = {
            "image_size must be an even number of patches": self.image_size % (2 * self.patch) == 0,
            "width must be a multiple of heads": self.width % self.heads == 0,
            "taps must rise": sorted(set(self.taps)) == list(self.taps),
            "taps must be four, or two beside a ResNet": len(self.taps) == (2 if self.resnet else 4),
            "neck must be four widths": len(self.neck) == 4,
            "features must be even": self.features % 2 == 0,
            "resnet must be three stages, or empty": len(self.resnet) in (0, 3),
            "a ResNet needs patch 16 and a neck that starts with 256, 512": not self.resnet or resnet_fits,
        }
        for rule, kept in rules.items():
            if not kept:
                raise UsageError(f"depth network: {rule}")

    @property
    def grid(self) -> int:
        """Tokens along a side."""
        return self.image_size // self.patch

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> DPTConfig:
        """The config of a `to_dict` result, also after a trip through JSON. Raises `UsageError`."""
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or data.keys() != names:
            raise UsageError(
                f"depth network: the config must have exactly the keys {', '.join(sorted(names))}"
            )
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


PRESETS = {
    # The MiDaS v3 files dpt_hybrid_384 and dpt_large_384.
    "dpt_hybrid": DPTConfig(384, 16, 768, 12, (8, 11), (256, 512, 768, 768), 256, resnet=(3, 4, 9)),
    "dpt_large": DPTConfig(384, 16, 1024, 16, (5, 11, 17, 23), (256, 512, 1024, 1024), 256),
    # For the embedded tiny model and tests: the same parts, trained in minutes on a CPU.
    "tiny": DPTConfig(64, 8, 64, 4, (0, 1, 2, 3), (16, 32, 64, 64), 16),
}
