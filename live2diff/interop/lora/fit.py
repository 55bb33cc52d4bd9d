"""Fitting the layers of a LoRA file to the modules of a model."""

from __future__ import annotations

from dataclasses import replace

from peft.tuners.lora import LoraLayer
from torch import nn

from live2diff.errors import CheckpointError
from live2diff.interop.lora.layer import Layer, Layers, shown
from live2diff.interop.lora.layouts import flat
from live2diff.interop.lora.read import LoraFile
from live2diff.model.video_model import VideoModel

# The UNet's width of text states tells what a LoRA was made for.
_FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}


def fit(file: LoraFile, model: VideoModel) -> Layers:
    """The file's layers by the path of their module in `model`, in the module's own shape.

    All of them must fit. Layers for a motion module in the mid block, which AnimateDiff v2 has and v1 lacks,
    are left out where `model` has none.

    Raises:
        CheckpointError: layers for modules the model lacks, or of other widths; the first are named.
    """
    modules = adaptable_modules(model)
    paths = {flat(*path.split(".", 1)): path for path in modules}
    layers = file.layers
    if not hasattr(model.unet.mid_block, "motion_modules"):
        layers = {k: v for k, v in layers.items() if not k.startswith("unet_mid_block_motion_modules")}
    fitted: Layers = {}
    strangers, misshapen = [], []
    for name, layer in layers.items():
        path = paths.get(name)
        if path is None:
            strangers.append(shown(layer.key))
            continue
        shaped = _in_shape_of(modules[path], layer)
        if shaped is None:
            given = f"{tuple(layer.up.shape)} x {tuple(layer.down.shape)}"
            wanted = tuple(modules[path].weight.shape)
            misshapen.append(f"{shown(layer.key)} is {given}, the weight {wanted}")
        else:
            fitted[path] = shaped
    if strangers or misshapen or not fitted:
        faults = [
            f"{len(keys)} of {len(layers)} layers {what} ({', '.join(keys[:2])}{', ...' if keys[2:] else ''})"
            for keys, what in ((strangers, "have no place in it"), (misshapen, "have another shape"))
            if keys
        ]
        reason = "; ".join(faults) or "it has no layers for it"
        raise CheckpointError(f"{file.path}: is no LoRA for this model: {reason}{_family(file)}")
    return fitted


def _family(file: LoraFile) -> str:
    for name, layer in file.layers.items():
        if name.endswith("_attn2_to_k") and "motion" not in name and layer.down.shape[1] in _FAMILIES:
            return f". It was made for {_FAMILIES[layer.down.shape[1]]}"
    return ""


def adaptable_modules(model: VideoModel) -> dict[str, nn.Linear | nn.Conv2d]:
    """Every linear and convolutional layer of UNet and text encoder by path, without adapters."""
    modules: dict[str, nn.Linear | nn.Conv2d] = {}
    for part, root in parts(model).items():
        wrapped = ""
        for name, module in root.named_modules():
            if wrapped and name.startswith(wrapped):
                continue
            if isinstance(module, LoraLayer):
                wrapped = f"{name}."
                module = module.get_base_layer()
            if isinstance(module, nn.Linear | nn.Conv2d):
                modules[f"{part}.{name}"] = module
    return modules


def parts(model: VideoModel) -> dict[str, nn.Module]:
    """What a LoRA can adapt, by the first word of its layers' paths."""
    return {"unet": model.unet, "text": model.text.model}


def _in_shape_of(module: nn.Linear | nn.Conv2d, layer: Layer) -> Layer | None:
    """`layer` with its matrices as `module` needs them, or None when it is for another module."""
    channels_out, channels_in = module.weight.shape[:2]
    kernel = tuple(module.weight.shape[2:])
    down = (layer.rank, channels_in, *kernel)
    up = (channels_out, layer.rank, *(1 for _ in kernel))
    for given, wanted in ((layer.down.shape, down), (layer.up.shape, up)):
        # Files write the two axes of a 1 x 1 kernel or leave them out, whatever the module does.
        if tuple(given) != wanted and (given[:2] != wanted[:2] or {*given[2:], *wanted[2:]} != {1}):
            return None
    return replace(layer, down=layer.down.reshape(down), up=layer.up.reshape(up))
