"""AnimateDiff's key layout for motion modules, which the public Live2Diff checkpoint shares.

    {down,up}_blocks.{i}.motion_modules.{j}.temporal_transformer.
        norm, proj_in, proj_out
        transformer_blocks.0.attention_blocks.{0,1}.{to_q,to_k,to_v,to_out.0}
        transformer_blocks.0.attention_blocks.{0,1}.pos_encoder.pe     (1, 24 or 32, C)
        transformer_blocks.0.norms.{0,1}, ff.net.{0.proj,2}, ff_norm

diffusers (and so our UNet) calls the two attentions attn1 and attn2, the norms norm1 to norm3, and keeps one
table of positional encodings per block.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from live2diff.errors import CheckpointError
from live2diff.interop.kinds import MOTION, OFFICIAL, kind_of, refuse
from live2diff.interop.sizes import folder_config, part_folder
from live2diff.model.unet import CausalUNet
from live2diff.weights import fit_weights, read_folder, read_weights

State = dict[str, torch.Tensor]

_RENAMES = [
    (r"\.temporal_transformer\.", "."),
    (r"\.attention_blocks\.0\.pos_encoder\.", ".pos_embed."),
    (r"\.attention_blocks\.0\.", ".attn1."),
    (r"\.attention_blocks\.1\.", ".attn2."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.norms\.1\.", ".norm2."),
    (r"\.ff_norm\.", ".norm3."),
]
_RENAMES_BACK = [
    (r"(\.motion_modules\.\d+)\.", r"\1.temporal_transformer."),
    (r"\.pos_embed\.", ".attention_blocks.0.pos_encoder."),
    (r"\.attn1\.", ".attention_blocks.0."),
    (r"\.attn2\.", ".attention_blocks.1."),
    (r"\.norm1\.", ".norms.0."),
    (r"\.norm2\.", ".norms.1."),
    (r"\.norm3\.", ".ff_norm."),
]
_FIRST_TABLE, _SECOND_TABLE = (f".attention_blocks.{i}.pos_encoder." for i in (0, 1))
_TABLE = ".pos_embed.pe"
_BRANCH, _OFFICIAL_BRANCH = "depth_branch.", "flow_conv_in."
_MOST_POSITIONS = 1024
# The second attention's table equals the first's; both are the fixed sinusoid.
_DROPPED = re.compile(r"\.attention_blocks\.1\.pos_encoder\.")


def motion_keys_to_ours(state: State) -> State:
    """Rename motion-module keys to our UNet's; other keys pass unchanged."""
    renamed = {}
    for key, value in state.items():
        if "motion_modules." in key:
            if _DROPPED.search(key):
                continue
            for pattern, replacement in _RENAMES:
                key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def keys_from_ours(state: State) -> State:
    """Rename our UNet's keys to the public ones, also the depth branch's; both attentions get a table."""
    renamed = {}
    for key, value in state.items():
        if key.startswith(_BRANCH):
            key = _OFFICIAL_BRANCH + key.removeprefix(_BRANCH)
        if ".motion_modules." in key:
            for pattern, replacement in _RENAMES_BACK:
                key = re.sub(pattern, replacement, key)
        renamed[key] = value
        if _FIRST_TABLE in key:
            renamed[key.replace(_FIRST_TABLE, _SECOND_TABLE)] = value
    return renamed


def is_spatial(key: str) -> bool:
    """Whether a name in our UNet's state is one of the image model's."""
    return ".motion_modules." not in key and not key.startswith(_BRANCH)


def read_motion(path: Path, unet: CausalUNet) -> State:
    """The weights of a motion checkpoint: a file, or a folder of diffusers' `MotionAdapter`.

    Raises:
        CheckpointError: not one, damaged, or an adapter whose config does not fit `unet`.
    """
    if not path.is_dir():
        return read_weights(path)
    folder = part_folder(path, "motion_adapter")
    config = folder_config(folder)
    where = folder / "config.json"
    if config.get("_class_name") != "MotionAdapter":
        raise CheckpointError(
            f"{where}: is {ascii(config.get('_class_name'))[:50]}, not diffusers' MotionAdapter; give another"
        )
    if config.get("conv_in_channels"):
        raise CheckpointError(f"{where}: is PIA's, with an input layer of its own; give AnimateDiff's")
    heads, ours = config.get("motion_num_attention_heads", 8), unet.config["motion_num_attention_heads"]
    if heads != ours:
        raise CheckpointError(f"{where}: motion_num_attention_heads={heads!r}, this model has {ours}")
    return read_folder(folder)


def load_motion_modules(unet: CausalUNet, state: State, name: str | Path = "motion checkpoint") -> None:
    """Initialise the temporal modules from an AnimateDiff checkpoint (v1, v2, v3), in place.

    The public Live2Diff checkpoint brings its depth branch along, and spatial weights if it has any; those of
    another file are left out. A mid-block module is dropped when our UNet has none. The table of positional
    encodings becomes the file's, in its length.

    Raises:
        CheckpointError: another kind of file, a weight that is missing, unknown or of another shape, or fewer
            positions than the window has frames; `unet` is then unchanged.
    """
    kind = kind_of(state)
    if kind not in (OFFICIAL, MOTION):
        refuse(state, name, "motion modules")
    if not hasattr(unet.mid_block, "motion_modules"):
        state = {
            key: value for key, value in state.items() if not key.startswith("mid_block.motion_modules.")
        }
    _check_second_tables(state, name)
    given, tables = {}, {}
    for key, value in motion_keys_to_ours(state).items():
        (tables if key.endswith(_TABLE) else given)[_branch_to_ours(key)] = value
    if kind == OFFICIAL:
        given = {key: value for key, value in given.items() if "grid" not in key}
    elif "conv_in.weight" in given:
        given = {key: value for key, value in given.items() if not is_spatial(key)}
    has_spatial = "conv_in.weight" in given

    def is_wanted(key: str) -> bool:
        if key.startswith(_BRANCH):
            return kind == OFFICIAL
        return has_spatial if is_spatial(key) else not key.endswith(_TABLE)

    length = _table_length(unet, tables, name)
    fit_weights(unet, given, name, only=is_wanted)
    if length:
        for key, table in tables.items():
            unet.get_submodule(key.removesuffix(".pe")).pe = table.float().clone()
        unet.register_to_config(motion_max_seq_length=length)


def load_depth_branch(unet: CausalUNet, state: State, name: str | Path = "depth branch") -> None:
    """Load the depth branch alone, in place: `flow_conv_in.*` as in the public release, or our own names.

    Raises:
        CheckpointError: a weight that is missing, unknown or of another shape; `unet` is then unchanged.
    """
    given = {_branch_to_ours(key): value for key, value in state.items()}
    if not any(key.startswith(_BRANCH) for key in given):
        refuse(state, name, "a depth branch")
    fit_weights(unet, given, name, only=lambda key: key.startswith(_BRANCH))


def _branch_to_ours(key: str) -> str:
    return _BRANCH + key.removeprefix(_OFFICIAL_BRANCH) if key.startswith(_OFFICIAL_BRANCH) else key


def _check_second_tables(state: State, name: str | Path) -> None:
    """Our blocks hold one table for both attentions."""
    for key in state:
        if _DROPPED.search(key):
            first = state.get(_DROPPED.sub(".attention_blocks.0.pos_encoder.", key))
            if first is None or not torch.equal(first, state[key]):
                raise CheckpointError(f"{name}: {key} differs from the first attention's; it cannot be held")


def _table_length(unet: CausalUNet, tables: State, name: str | Path) -> int:
    """Positions in the file's tables; 0 when it has none and ours stay."""
    own = {key: tensor for key, tensor in unet.state_dict().items() if key.endswith(_TABLE)}
    for key, table in tables.items():
        length = next(iter(tables.values())).shape[1] if table.ndim == 3 else 0
        if key not in own or table.shape != (1, length, own[key].shape[2]) or not table.isfinite().all():
            raise CheckpointError(
                f"{name}: {key} {tuple(table.shape)} is no table of positions of this model"
            )
        if length < unet.window:
            raise CheckpointError(
                f"{name}: {key} has {length} positions, fewer than the window of {unet.window} frames"
            )
        if length > _MOST_POSITIONS:
            raise CheckpointError(f"{name}: {key} has {length} positions; at most {_MOST_POSITIONS} are read")
    if tables and len(tables) < len(own):
        raise CheckpointError(f"{name}: has positions for {len(tables)} of {len(own)} motion modules")
    return next(iter(tables.values())).shape[1] if tables else 0
