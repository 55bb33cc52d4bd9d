"""The `model` group of a configuration: what may stand in it, and what of it is on this machine.

`live2diff.model.build` makes the model. All but `outlined` is known without it, and in no time.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from live2diff.errors import CheckpointError, Live2DiffError, UsageError
from live2diff.references import find, references

if TYPE_CHECKING:
    from live2diff.model.video_model import VideoModel

# The tables of a group that is not `saved`, and their keys; those that must be there end in !.
_PARTS = {
    "unet": ("pretrained!", "motion!", "depth_branch", "config"),
    "vae": ("pretrained!", "kind", "config"),
    "text": ("pretrained!", "tokenizer", "config"),
    "depth": ("preset!", "weights!"),
}
# As `live2diff.model.vae.KINDS` and `live2diff.depth.NETWORKS`, which take seconds to load.
VAES = ("AutoencoderKL", "AutoencoderTiny")
DEPTHS = ("dpt_hybrid", "dpt_large", "tiny", "midas_v21_small")
# The sizes that a `config` may give: what the classes take, which take seconds to load as well.
_BLOCKS = (
    "in_channels out_channels down_block_types up_block_types block_out_channels layers_per_block act_fn"
)
CONFIGS = {
    "unet": f"""{_BLOCKS} sample_size downsample_padding mid_block_scale_factor norm_num_groups norm_eps
        cross_attention_dim transformer_layers_per_block temporal_transformer_layers_per_block
        use_linear_projection num_attention_heads motion_max_seq_length motion_num_attention_heads
        use_motion_mid_block window warmup depth_channels""",
    "AutoencoderKL": f"""{_BLOCKS} latent_channels norm_num_groups sample_size scaling_factor
        shift_factor latents_mean latents_std force_upcast use_quant_conv use_post_quant_conv
        mid_block_add_attention""",
    "AutoencoderTiny": """in_channels out_channels encoder_block_out_channels decoder_block_out_channels
        act_fn upsample_fn latent_channels upsampling_scaling_factor num_encoder_blocks num_decoder_blocks
        latent_magnitude latent_shift force_upcast scaling_factor shift_factor""",
    "text": """vocab_size hidden_size intermediate_size projection_dim num_hidden_layers num_attention_heads
        max_position_embeddings hidden_act layer_norm_eps attention_dropout initializer_range
        initializer_factor pad_token_id bos_token_id eos_token_id""",
}
_LONGEST = {"v1": 24, "v3": 32}  # positional encodings of AnimateDiff's motion modules; v2 has 32, too


def check_group(model: Mapping[str, Any]) -> None:
    """Refuse keys that are none, and values of a wrong kind. Raises UsageError."""
    parts = {} if "saved" in model else _PARTS
    _check_keys("model", model, ("saved",) if "saved" in model else parts, ("settings", "loras"))
    for part in (*parts, "settings"):
        if not isinstance(model.get(part), Mapping):
            raise UsageError(f"model.{part}={model.get(part)}: expected a table of keys, see conf/model")
    for part, names in parts.items():
        table = model[part]
        _check_keys(f"model.{part}", table, [name.rstrip("!") for name in names])
        for name in names:
            if name.endswith("!") and name[:-1] not in table:
                raise UsageError(f"model.{part}.{name[:-1]}: is missing; see conf/model")
        for name in {*table} - {"config", "kind", "preset"}:
            if not isinstance(table[name], str | None):
                raise UsageError(f"model.{part}.{name}={table[name]}: expected a path, a hub id or null")
        _check_sizes(part, table)
    _check_one_of("model.depth.preset", model.get("depth", {}).get("preset", "tiny"), DEPTHS)
    if parts and model["vae"]["pretrained"] is None:
        _check_one_of("model.vae.kind", model["vae"].get("kind"), VAES)
    _check_loras(model.get("loras"))


def _check_keys(where: str, table: Mapping[str, Any], known: Iterable[str], more: Iterable[str] = ()) -> None:
    known = [*known, *more]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"unknown setting {where}.{key}; {hint}")


def _check_sizes(part: str, table: Mapping[str, Any]) -> None:
    """`config`: what a net of random weights is made of, and what differs in one from a single file."""
    sizes = table.get("config")
    if not isinstance(sizes, Mapping) and (sizes is not None or table.get("pretrained", "") is None):
        raise UsageError(f"model.{part}.config={sizes}: expected a table of keys, see conf/model")
    kind = table.get("kind", "AutoencoderKL") if part == "vae" else part
    if kind in CONFIGS:
        _check_keys(f"model.{part}.config", sizes or {}, CONFIGS[kind].split())
    longest = (sizes or {}).get("motion_max_seq_length", 1)
    if type(longest) is not int or longest < 1:
        raise UsageError(f"model.{part}.config.motion_max_seq_length={longest}: expected 1 or more")


def _check_one_of(key: str, value: Any, known: Iterable[str]) -> None:
    if value not in known:
        raise UsageError(f"{key}={value}: expected one of {', '.join(known)}")


def _check_loras(loras: Any) -> None:
    example = "expected a list, as [{path: style.safetensors, scale: 0.8}]"
    if loras is not None and not isinstance(loras, list):
        raise UsageError(f"model.loras={loras}: {example}")
    for i, lora in enumerate(loras or ()):
        entry = lora if isinstance(lora, Mapping) else {}
        known = {*entry} <= {"path", "scale"} and type(entry.get("scale", 1)) in (int, float)
        if not known or not isinstance(entry.get("path"), str):
            raise UsageError(f"model.loras[{i}]={lora}: {example}")


def encodings(model: Mapping[str, Any]) -> int:
    """How many positional encodings the motion modules have at most, as far as the settings tell."""
    unet = model.get("unet")
    if unet is None or unet["motion"] is not None:
        return _LONGEST["v3"]
    return (unet.get("config") or {}).get("motion_max_seq_length", _LONGEST["v1"])


def check_settings(model: Mapping[str, Any]) -> None:
    """Refuse model settings out of range. Raises UsageError."""
    from live2diff.settings import Settings

    if "saved" not in model:
        try:
            Settings.from_dict(dict(model["settings"]))
        except UsageError as error:
            raise UsageError(str(error).replace("settings: ", "model.settings.", 1)) from error


def missing_models(model: Mapping[str, Any]) -> list[CheckpointError]:
    """What the model is made of and is not on this machine; with the command that fetches it, where known."""
    found: dict[str, CheckpointError] = {}
    for key, reference in references(model):
        try:
            if key != "saved" and reference not in found:
                find(reference, f"model.{key}")
        except CheckpointError as error:
            found[reference] = error
    return list(found.values())


def outlined(config: Mapping[str, Any]) -> VideoModel:
    """The model of a run without its weights, on the meta device, and what of it is trained.

    Raises:
        CheckpointError: `model.saved` names nothing, or what lies there cannot be read.
        UsageError: sizes that cannot be, or a name in `trainer.trainable` that stands for nothing.
    """
    from live2diff.model.build import as_trained
    from live2diff.model.outline import outline
    from train.toy_tasks import choose_toy_parts
    from train.trainable import choose_trainable

    try:
        model = outline(config["model"])
    except Live2DiffError:
        raise
    except Exception as error:  # diffusers and transformers raise anything for sizes that do not fit
        raise UsageError(f"model: {' '.join(str(error).split())[:200]}") from error
    if config["trainer"]["task"] == "diffusion":
        model = as_trained(model, config)
        choose_trainable(model.unet, config["trainer"]["trainable"], config["trainer"]["depth"])
    else:
        choose_toy_parts(model, config["trainer"]["task"])
    return model
