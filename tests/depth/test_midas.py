"""DPT against transformers' `DPTForDepthEstimation`: the same random weights, handed over in a MiDaS file."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
import timm
import torch
import transformers

from live2diff.depth import DPT, PRESETS, DPTConfig

TAU = 1e-4  # largest difference, as a share of the largest depth

# transformers' names -> MiDaS's; query, key and value are joined before.
RENAMES = [
    (r"^dpt\.embeddings\.(cls_token)$", r"pretrained.model.\1"),
    (r"^dpt\.embeddings\.position_embeddings$", "pretrained.model.pos_embed"),
    (r"^dpt\.embeddings\.(patch_embeddings\.)?projection\.", "pretrained.model.patch_embed.proj."),
    (r"^dpt\.embeddings\.backbone\.bit\.", "pretrained.model.patch_embed.backbone."),
    (r"backbone\.embedder\.convolution", "backbone.stem.conv"),
    (r"backbone\.embedder\.norm", "backbone.stem.norm"),
    (r"backbone\.encoder\.stages\.(\d)\.layers\.", r"backbone.stages.\1.blocks."),
    (r"^dpt\.encoder\.layer\.", "pretrained.model.blocks."),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(blocks\.\d+)\.output\.dense", r"\1.mlp.fc2"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^dpt\.layernorm", "pretrained.model.norm"),
    (r"^neck\.reassemble_stage\.readout_projects\.(\d)\.0", r"pretrained.act_postprocess<\1>.0.project.0"),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.projection", r"pretrained.act_postprocess<\1>.3"),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.resize", r"pretrained.act_postprocess<\1>.4"),
    (r"^neck\.convs\.(\d)", r"scratch.layer<\1>_rn"),
    (r"<(\d)>", lambda match: str(int(match[1]) + 1)),  # MiDaS counts from 1 ...
    # ... and numbers the fusion from fine to coarse.
    (r"^neck\.fusion_stage\.layers\.(\d)", lambda match: f"scratch.refinenet{4 - int(match[1])}"),
    (r"residual_layer(\d)\.convolution", r"resConfUnit\1.conv"),
    (r"(refinenet\S+)\.projection", r"\1.out_conv"),
    (r"^head\.head\.", "scratch.output_conv."),
]


def to_midas(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weights = dict(theirs)
    for key in list(weights):
        if match := re.fullmatch(r"(.*)\.attention\.attention\.query\.(weight|bias)", key):
            parts = [
                weights.pop(f"{match[1]}.attention.attention.{part}.{match[2]}")
                for part in ("query", "key", "value")
            ]
            weights[f"{match[1]}.attn.qkv.{match[2]}"] = torch.cat(parts)
    result = {}
    for key, value in weights.items():
        for pattern, name in RENAMES:
            key = re.sub(pattern, name, key)
        result[key] = value
    # MiDaS files also hold ImageNet's classifier.
    width = result["pretrained.model.cls_token"].shape[-1]
    result["pretrained.model.head.weight"] = torch.zeros(1000, width)
    result["pretrained.model.head.bias"] = torch.zeros(1000)
    return result


def transformers_dpt(config: DPTConfig) -> transformers.DPTForDepthEstimation:
    """Their model of our shape, every parameter random, at scales that keep the depth alive and varied."""
    hybrid = {}
    if config.resnet:
        hybrid["backbone_config"] = transformers.BitConfig(
            depths=config.resnet,
            layer_type="bottleneck",
            global_padding="same",
            embedding_dynamic_padding=True,
            out_features=["stage1", "stage2", "stage3"],
        )
    model = transformers.DPTForDepthEstimation(
        transformers.DPTConfig(
            is_hybrid=bool(config.resnet),
            hidden_size=config.width,
            num_hidden_layers=config.taps[-1] + 1,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            layer_norm_eps=1e-6,  # timm's; their default is 1e-12
            image_size=config.image_size,
            patch_size=config.patch,
            backbone_out_indices=[0, 1, *config.taps][-4:],
            neck_hidden_sizes=config.neck,
            fusion_hidden_size=config.features,
            backbone_featmap_shape=[1, 1024, config.grid, config.grid],
            **hybrid,
        )
    )
    for parameter in model.parameters():
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.normal_(std=1 / math.sqrt(parameter[0].numel()))
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    with torch.no_grad():
        model.dpt.embeddings.position_embeddings.normal_()  # as large as the tokens: resizing it must show
        model.head.head[4].weight.abs_()  # so that the last ReLU passes
    return model.eval()


def difference(config: DPTConfig, path, size: int | None = None) -> float:
    """Largest difference of the two depths, as a share of the largest, at the net's own or another size."""
    theirs = transformers_dpt(config)
    torch.save(to_midas(theirs.state_dict()), path)
    size = size or config.image_size
    images = torch.rand(1, 3, size, size) * 2 - 1
    with torch.no_grad():
        embeddings: Any = theirs.dpt.embeddings
        embeddings.image_size = size, size  # the hybrid would refuse another size
        expected = theirs(pixel_values=images).predicted_depth
    del theirs
    ours = DPT.load_midas(path, dataclasses.replace(config, image_size=size))
    with torch.no_grad():
        depth = ours(images)
    assert depth.shape == expected.shape
    assert expected.std() > 1e-3 * expected.max() > 0, "a flat depth proves nothing"
    return ((depth - expected).abs().max() / expected.max()).item()


SMALL_HYBRID = DPTConfig(384, 16, 96, 4, (1, 2), (256, 512, 64, 48), 32, resnet=(2, 1, 1))
SMALL_VIT = DPTConfig(384, 16, 96, 4, (0, 1, 3, 4), (48, 64, 80, 96), 32)


@pytest.mark.parametrize("config", [SMALL_HYBRID, SMALL_VIT], ids=["hybrid", "vit"])
@pytest.mark.parametrize("size", [384, 256])
def test_parity_with_transformers(config, size, tmp_path):
    """At 256 the position embedding of a 384 file is resized; transformers does it in forward, as MiDaS."""
    assert difference(config, tmp_path / "midas.pt", size) < TAU


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpt_hybrid", "dpt_large"])
def test_parity_at_full_size(name, tmp_path):
    error = difference(PRESETS[name], tmp_path / "midas.pt")
    print(f"{name}: {error:.1e}")
    assert error < TAU


HYBRID_KEYS = {
    "pretrained.model.cls_token": (1, 1, 768),
    "pretrained.model.pos_embed": (1, 577, 768),
    "pretrained.model.patch_embed.backbone.stem.conv.weight": (64, 3, 7, 7),
    "pretrained.model.patch_embed.backbone.stages.2.blocks.8.conv3.weight": (1024, 256, 1, 1),
    "pretrained.model.patch_embed.proj.weight": (768, 1024, 1, 1),
    "pretrained.model.blocks.11.attn.qkv.weight": (2304, 768),
    "pretrained.act_postprocess3.0.project.0.weight": (768, 1536),
    "pretrained.act_postprocess3.3.weight": (768, 768, 1, 1),
    "pretrained.act_postprocess4.4.weight": (768, 768, 3, 3),
    "scratch.layer1_rn.weight": (256, 256, 3, 3),
    "scratch.layer2_rn.weight": (256, 512, 3, 3),
    "scratch.layer4_rn.weight": (256, 768, 3, 3),
    "scratch.refinenet1.resConfUnit1.conv1.weight": (256, 256, 3, 3),
    "scratch.refinenet4.resConfUnit2.conv2.bias": (256,),
    "scratch.refinenet4.out_conv.weight": (256, 256, 1, 1),
    "scratch.output_conv.0.weight": (128, 256, 3, 3),
    "scratch.output_conv.2.weight": (32, 128, 3, 3),
    "scratch.output_conv.4.bias": (1,),
}
LARGE_KEYS = {
    "pretrained.model.patch_embed.proj.weight": (1024, 3, 16, 16),
    "pretrained.model.blocks.23.mlp.fc1.weight": (4096, 1024),
    "pretrained.act_postprocess1.0.project.0.bias": (1024,),
    "pretrained.act_postprocess1.3.weight": (256, 1024, 1, 1),
    "pretrained.act_postprocess1.4.weight": (256, 256, 4, 4),
    "pretrained.act_postprocess2.4.weight": (512, 512, 2, 2),
    "pretrained.act_postprocess4.4.weight": (1024, 1024, 3, 3),
    "scratch.layer3_rn.weight": (256, 1024, 3, 3),
}


@pytest.mark.parametrize(
    "name, timm_name, keys, bare",
    [
        ("dpt_hybrid", "vit_base_r50_s16_384", HYBRID_KEYS, ("act_postprocess1", "act_postprocess2")),
        ("dpt_large", "vit_large_patch16_384", LARGE_KEYS, ("act_postprocess3.4",)),
    ],
)
def test_official_key_layout(name, timm_name, keys, bare):
    """The documented keys with their shapes, and all of timm's but the norm and head that have no effect."""
    with torch.device("meta"):
        weights = DPT(PRESETS[name]).state_dict()
        reference = timm.create_model(timm_name, pretrained=False).state_dict()
    assert {key: tuple(weights[key].shape) for key in keys if key in weights} == keys
    assert not [key for key in weights if any(part in key for part in bare)]
    prefix = "pretrained.model."
    backbone = {k.removeprefix(prefix): v.shape for k, v in weights.items() if k.startswith(prefix)}
    unused = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert backbone == {key: value.shape for key, value in reference.items() if key not in unused}
