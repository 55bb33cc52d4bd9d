"""LoRA in every layout people own: read, weigh, fuse, save.

name = add_lora(model, "disney.safetensors", 0.8)   # beside the weights
name = start_lora(model, rank=16, alpha=16)         # a new one, to be trained
set_lora_scales(model, {name: 0.5})                 # a live number
fuse_lora(model); unfuse_lora(model)                # into the weights, and exactly back
merge_loras(model, [("disney.safetensors", 0.8)])   # into the weights, for good
save_lora(extract_lora(model, name), "out.safetensors", "kohya")
"""

from live2diff.interop.lora.attach import (
    add_lora,
    bake_lora,
    check_lora_names,
    extract_lora,
    fuse_lora,
    lora_names,
    remove_lora,
    set_lora_scales,
    start_lora,
    unfuse_lora,
)
from live2diff.interop.lora.fit import fit
from live2diff.interop.lora.merge import merge_into_export, merge_loras, parse_lora
from live2diff.interop.lora.read import read_lora
from live2diff.interop.lora.save import save_lora

__all__ = [
    "add_lora",
    "bake_lora",
    "check_lora_names",
    "extract_lora",
    "fit",
    "fuse_lora",
    "lora_names",
    "merge_into_export",
    "merge_loras",
    "parse_lora",
    "read_lora",
    "remove_lora",
    "save_lora",
    "set_lora_scales",
    "start_lora",
    "unfuse_lora",
]
