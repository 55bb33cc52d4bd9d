"""LoRA adapters on a model: added, weighed, fused and removed, through peft's layers.

Adapters stay beside the weights and their scales can change at any time, or they are fused into the weights,
which costs nothing per frame. Every change raises the UNet's `revision`, so a stream computes anew what it
derived from the weights and follows from its next frame on; what its memory already holds was computed with
the weights of then.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from live2diff.errors import CheckpointError, UsageError
from live2diff.interop.lora.fit import adaptable_modules, fit, parts
from live2diff.interop.lora.layer import Layer, Layers
from live2diff.interop.lora.read import LoraFile, read_lora
from live2diff.model.video_model import VideoModel

_MOTION_PROJECTION = r"\.motion_modules\..*\.attn\d\.to_(q|k|v|out\.0)$"


def add_lora(
    model: VideoModel, source: str | Path | LoraFile, scale: float = 1.0, name: str | None = None
) -> str:
    """Add a LoRA beside the model's weights, in place. Those it adapts keep their precision and device.

    Args:
        source: a file in any known layout (`layouts`, `cloneofsimo`), or one already read.
        scale: its strength, on top of the file's alpha / rank; any number, 0 for none.
        name: what to call it; None makes one from the file's name.

    Returns:
        The name, for `set_lora_scales` and the others.

    Raises:
        CheckpointError: the file is no LoRA, or fits the model not at all or only in part.
        UsageError: the name is taken or cannot be one, or the model's adapters are fused.
    """
    _need_unfused(model)
    file = source if isinstance(source, LoraFile) else read_lora(source)
    name = _free_name(model, name, file.path)
    layers = fit(file, model)
    for part, root in parts(model).items():
        own = {path.split(".", 1)[1]: layer for path, layer in layers.items() if path.startswith(f"{part}.")}
        if own:
            _inject(root, own, name)
    set_lora_scales(model, {name: scale})
    return name


def start_lora(model: VideoModel, rank: int, alpha: float, seed: int = 0, name: str = "motion") -> str:
    """Add a motion LoRA that changes nothing yet, to be trained; in place.

    It adapts the projections of all temporal attentions: to_q, to_k, to_v, to_out. As peft starts one, `down`
    is random and `up` zero (Hu et al. 2021, Sec. 4.1).

    Raises:
        UsageError: the name is taken, or the model's adapters are fused.
    """
    _need_unfused(model)
    name = _free_name(model, name, Path())
    generator = torch.Generator().manual_seed(seed)
    layers: Layers = {}
    for path, module in adaptable_modules(model).items():
        if re.search(_MOTION_PROJECTION, path):
            down = torch.empty(rank, module.weight.shape[1])
            nn.init.kaiming_uniform_(down, a=5**0.5, generator=generator)
            layers[path.split(".", 1)[1]] = Layer(down, torch.zeros(module.weight.shape[0], rank), alpha)
    _inject(model.unet, layers, name)
    return name


def lora_names(model: VideoModel) -> list[str]:
    """The adapters the model has, oldest first."""
    return list(dict.fromkeys(name for _, _, site in _sites(model) for name in site.lora_A))


def check_lora_names(model: VideoModel, names: Iterable[str]) -> None:
    """Raises UsageError unless the model has adapters of these names."""
    for name in names:
        _need_known(model, name)


@torch.no_grad()
def set_lora_scales(model: VideoModel, scales: Mapping[str, float]) -> None:
    """Set the strength of adapters by name; takes effect with the next forward pass. Raises UsageError."""
    _need_unfused(model)
    check_lora_names(model, scales)
    for name, scale in scales.items():
        for _, _, site in _sites(model):
            if name in site.lora_A:
                site.set_scale(name, float(scale))
    model.unet.revision += 1


@torch.no_grad()
def fuse_lora(model: VideoModel) -> None:
    """Add all adapters to the weights, in place. Each weight that changes is kept, too, for `unfuse_lora`.

    Raises:
        UsageError: there is no adapter, or they are fused already.
    """
    _need_unfused(model)
    if not lora_names(model):
        raise UsageError("there is no LoRA to fuse; add one first")
    for _, _, site in _sites(model):
        # Subtracting what was added would not give the same bits back.
        site.unfused_weight = site.get_base_layer().weight.detach().clone()
        site.merge(adapter_names=list(site.lora_A))
    model.unet.revision += 1


@torch.no_grad()
def unfuse_lora(model: VideoModel) -> None:
    """Undo `fuse_lora`: the weights have their very bits again, the adapters stand beside them."""
    if not _is_fused(model):
        raise UsageError("the LoRA are not fused")
    for _, _, site in _sites(model):
        site.get_base_layer().weight.copy_(site.unfused_weight)  # in place: a captured graph reads there
        site.merged_adapters.clear()
        del site.unfused_weight
    model.unet.revision += 1


def remove_lora(model: VideoModel, name: str | None = None) -> None:
    """Take one adapter away, or all of them. Raises UsageError."""
    _need_unfused(model)
    if name is not None:
        _need_known(model, name)
    for root in parts(model).values():
        with _same_training(root):
            for path, site in list(_sites_of(root)):
                for gone in [name] if name else list(site.lora_A):
                    site.set_adapter([other for other in site.lora_A if other != gone])
                    site.delete_adapter(gone)
                if not site.lora_A:
                    root.set_submodule(path, site.get_base_layer())
    _forget(model)


@torch.no_grad()
def bake_lora(model: VideoModel) -> None:
    """Make all adapters part of the weights for good: the model is a plain one again, and can be saved."""
    _need_unfused(model)
    for root, path, site in _sites(model):
        site.merge(adapter_names=list(site.lora_A))
        root.set_submodule(path, site.get_base_layer())
    _forget(model)


def extract_lora(model: VideoModel, name: str) -> Layers:
    """The layers of one adapter, whether it was added here or trained through peft; for `save_lora`.

    Raises:
        UsageError: no adapter has this name.
        CheckpointError: it is more than a plain LoRA (DoRA, biases).
    """
    _need_known(model, name)
    layers: Layers = {}
    for part, root in parts(model).items():
        for path, site in _sites_of(root):
            if name not in site.lora_A:
                continue
            if name in site.lora_variant or site.lora_bias[name]:
                raise CheckpointError(
                    f"LoRA {name}: {part}.{path} is more than a plain LoRA; cannot be saved"
                )
            down, up = site.lora_A[name].weight.detach(), site.lora_B[name].weight.detach()
            alpha = float(site.lora_alpha[name])
            if site.use_rslora[name]:  # peft then divides by the root of the rank
                alpha *= site.r[name] ** 0.5
            layers[f"{part}.{path}"] = Layer(down, up, alpha)
    return layers


def _sites(model: VideoModel) -> list[tuple[nn.Module, str, LoraLayer]]:
    """(part, path in it, peft's layer) of every adapted module; a list, for the caller may replace them."""
    return [(root, path, site) for root in parts(model).values() for path, site in _sites_of(root)]


def _sites_of(root: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    for path, module in root.named_modules():
        if isinstance(module, LoraLayer):
            yield path, module


def _inject(root: nn.Module, layers: Layers, name: str) -> None:
    """Wrap the modules at the paths in `layers` in peft's layers, and give those the matrices."""
    config = LoraConfig(
        target_modules="|".join(re.escape(path) for path in layers),  # whole paths; a list would match ends
        rank_pattern=_patterns({path: layer.rank for path, layer in layers.items()}),
        alpha_pattern=_patterns({path: layer.alpha for path, layer in layers.items()}),
        init_lora_weights=False,
    )
    with _same_training(root), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
        inject_adapter_in_model(config, root, name, low_cpu_mem_usage=True)
        for path, layer in layers.items():
            site = cast(LoraLayer, root.get_submodule(path))
            weight = cast(torch.Tensor, site.get_base_layer().weight)
            for matrix, values in ((site.lora_A[name], layer.down), (site.lora_B[name], layer.up)):
                values = values.to(weight.device, weight.dtype, copy=True)
                matrix.weight = nn.Parameter(values, requires_grad=False)
        for _, site in _sites_of(root):  # peft has left only the new one active
            site.set_adapter(list(site.lora_A))


@contextmanager
def _same_training(root: nn.Module) -> Iterator[None]:
    """peft freezes what it wraps and thaws what it activates: here both stay as they were."""
    before = {parameter: parameter.requires_grad for parameter in root.parameters()}
    yield
    for parameter in root.parameters():
        parameter.requires_grad_(before.get(parameter, False))


def _patterns(values: dict[str, float]) -> dict[str, float]:
    """peft's table of regular expressions: one for each value, not one for each of hundreds of paths."""
    return {
        "^(" + "|".join(re.escape(path) for path, own in values.items() if own == value) + ")": value
        for value in dict.fromkeys(values.values())
    }


def _forget(model: VideoModel) -> None:
    """Drop the configurations that peft left on the parts, for adapters that are gone."""
    for root in parts(model).values():
        names = {name for _, site in _sites_of(root) for name in site.lora_A}
        configs = getattr(root, "peft_config", {})
        for name in set(configs) - names:
            del configs[name]
        if not names and hasattr(root, "peft_config"):
            del root.peft_config
    model.unet.revision += 1


def _is_fused(model: VideoModel) -> bool:
    return any(site.merged for _, _, site in _sites(model))


def _need_unfused(model: VideoModel) -> None:
    if _is_fused(model):
        raise UsageError("the LoRA are fused into the weights; unfuse them first")


def _need_known(model: VideoModel, name: str) -> None:
    known = lora_names(model)
    if name not in known:
        raise UsageError(f"no LoRA is called {name!r}; there are {', '.join(known) or 'none'}")


def _free_name(model: VideoModel, name: str | None, path: Path) -> str:
    """`name` if it can be one, else one from the file's name that is free."""
    taken = lora_names(model)
    if name is not None:
        if not re.fullmatch(r"\w[\w-]{0,99}", name) or hasattr(nn.ModuleDict, name):
            raise UsageError(f"{name!r} cannot be the name of a LoRA; use letters, digits, _ and -")
        if name in taken:
            raise UsageError(f"a LoRA is called {name!r} already; choose another name")
        return name
    stem = re.sub(r"[^\w-]", "_", path.stem)[:90]
    stem = f"lora_{stem}" if hasattr(nn.ModuleDict, stem) or not re.match(r"\w", stem) else stem
    return next(free for i in range(len(taken) + 1) if (free := f"{stem}_{i}" if i else stem) not in taken)
