"""How much memory a training step will need, before there is a model or a GPU.

The step is run on tensors that have sizes and no contents, and the largest sum of what is alive at one time
is taken. Per device, in bytes:

    to keep
        weights      4 x all parameters: UNet, VAE, text encoder, depth net; 2 x what `train.frozen` narrows
        gradients    4 x trained parameters
        buckets      4 x trained parameters, if several processes add their gradients up (ddp)
        optimiser    8 x trained parameters: Adam's two moments
        mean         4 x trained parameters, if a running mean is kept
    at work, one after the other; the largest counts
        encoding     the frozen nets make latents and depth of a batch of frames, unless columns have them
        step         the UNet forward and backward: what is kept for the backward pass, and the half-precision
                     copies of weights that autocast makes
        update       4 x trained parameters: what the optimiser computes on the way

With trainer.strategy=fsdp the UNet's weights, gradients, moments and mean are divided by the processes, and
there are no buckets; the layer that is put together for its turn is not counted.

What is not in it: the allocator's gaps, libraries' workspaces, and the context of a GPU, about 0.5 GB.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from live2diff.model.video_model import VideoModel
from train.columns import Parts
from train.frozen import HALF, Frozen


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, as the head of this file says."""

    weights: int
    gradients: int
    buckets: int
    optimiser: int
    mean: int
    encoding: int
    step: int
    update: int

    def kept(self) -> dict[str, int]:
        return {
            name: getattr(self, name)
            for name in ("weights", "gradients", "buckets", "optimiser", "mean")
            if getattr(self, name)
        }

    @property
    def total(self) -> int:
        return sum(self.kept().values()) + max(self.encoding, self.step, self.update)


def estimate(
    model: VideoModel, trainer: Mapping[str, Any], data: Mapping[str, Any], parts: Parts, world: int = 1
) -> Memory:
    """The memory of a training step.

    Args:
        model: with its trained parameters chosen; it may stand on the meta device. Its tensors are replaced
            by ones without contents: it is of no other use afterwards.
        trainer, data: groups of the configuration.
        parts: what is read of a clip; the frozen nets make the rest.
        world: processes that train.
    """
    nets: list[nn.Module] = [model.unet, model.vae, model.text, model.depth]
    count = sum(parameter.numel() for parameter in model.unet.parameters() if parameter.requires_grad)
    # Who sees whom is worked out from values, which there are none of below.
    view = model.unet._clip_view(trainer["mask"], torch.empty(1, 1, data["frames"], 1, 1))
    view.upcast = False  # nothing a GPU would do
    with FakeTensorMode(allow_non_fake_inputs=True):
        for net in nets:
            net.to_empty(device="cpu")
        Frozen(model.unet, trainer).narrow()
        unet, *others = (sum(parameter.nbytes for parameter in net.parameters()) for net in nets)
        encoding = _encoding(model, trainer, data) if parts.frames else 0
        step = _step(model, trainer, data)
    ddp = trainer["strategy"] == "ddp"
    buckets = 4 * count if ddp and world > 1 else 0
    share = 1 if ddp else world
    count //= share
    return Memory(
        weights=unet // share + sum(others),
        gradients=4 * count,
        buckets=buckets,
        optimiser=8 * count,
        mean=4 * count if trainer["ema"] else 0,
        encoding=encoding,
        step=step,
        update=4 * count,
    )


def _encoding(model: VideoModel, trainer: Mapping[str, Any], data: Mapping[str, Any]) -> int:
    """Bytes while the frozen nets make latents and depth of a batch of frames."""
    with _Peak() as peak:
        video = torch.empty(trainer["batch"], 3, data["frames"], data["size"], data["size"])
        model.posterior(video)
        if trainer["depth"]:
            model.estimate_depth(video)
    return peak.bytes


def _step(model: VideoModel, trainer: Mapping[str, Any], data: Mapping[str, Any]) -> int:
    """Bytes of the UNet's forward and backward pass beyond weights and gradients."""
    unet, side = model.unet, data["size"] // model.downscale
    for parameter in unet.parameters():
        if parameter.requires_grad:  # gradients have a line of their own
            parameter.register_post_accumulate_grad_hook(_forget_gradient)
    unet.train()
    if trainer["gradient_checkpointing"]:
        unet.enable_gradient_checkpointing()
    half = HALF.get(trainer["precision"])
    for norm in unet.modules():
        if half and isinstance(norm, nn.GroupNorm | nn.LayerNorm):
            norm.register_forward_pre_hook(_in_full)
    with _Peak() as peak:
        shape = (trainer["batch"], unet.config["in_channels"], data["frames"], side, side)
        noisy, timestep = torch.empty(shape), torch.zeros(trainer["batch"], dtype=torch.long)
        text = torch.empty(
            trainer["batch"], model.settings.text.max_length, unet.config["cross_attention_dim"]
        )
        depth = torch.empty(shape) if trainer["depth"] else None
        with torch.autocast("cpu", half, enabled=half is not None):
            predicted = unet(noisy, timestep, text, depth, trainer["mask"])
        F.l1_loss(predicted.float(), noisy).backward()
    return peak.bytes


def _forget_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


class _Peak(TorchDispatchMode):
    """Adds up the memory of the tensors made inside, while they live; `bytes` is the most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self._now = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self._alive:  # else it is a view
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        self._alive[place] = size
        self._now += size
        self.bytes = max(self.bytes, self._now)
        weakref.finalize(storage, self._free, place)

    def _free(self, place: int) -> None:
        self._now -= self._alive.pop(place)


def _in_full(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Autocast on GPUs normalises in float32; on CPUs it leaves half precision as it is."""
    return (inputs[0].float(), *inputs[1:])


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
