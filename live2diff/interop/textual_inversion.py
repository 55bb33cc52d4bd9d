"""Textual inversion: learned vectors for new tokens, from the files that other tools write.

    diffusers   {"<token>": (D,) or (N, D)}, learned_embeds.bin or .safetensors
    A1111       {"string_to_param": {"*": (N, D)}, ...} as .pt, {"emb_params": (N, D)} as .safetensors; the
                token is the file's name
    in a LoRA   {"<s1>": (D,), ...} beside the layers of a cloneofsimo file

Several vectors are several tokens, `cat`, `cat_1`, `cat_2`, as in diffusers; a prompt names only the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from live2diff.errors import CheckpointError, UsageError
from live2diff.model.text import TextEncoder
from live2diff.tensor_files import read_table

_NAMELESS = ("emb_params", "*")


def add_embedding(text: TextEncoder, path: str | Path, name: str | None = None) -> list[str]:
    """Add the tokens of an embedding file to the text encoder, in place.

    Args:
        name: the token, for a file with one; None takes the file's own, or the file's name.

    Returns:
        The tokens as prompts write them.

    Raises:
        CheckpointError: no embedding, or one of another width (SD1.x has 768, SD2 1024, SDXL two).
        UsageError: a token's name is taken or cannot be one.
    """
    path = Path(path)
    embeddings = read_embedding(path)
    if name is not None:
        if len(embeddings) != 1:
            raise UsageError(f"{path}: holds {len(embeddings)} tokens; they keep their own names")
        embeddings = {name: next(iter(embeddings.values()))}
    width = text.model.get_input_embeddings().embedding_dim
    for token, vectors in embeddings.items():
        if vectors.shape[1] != width:
            raise CheckpointError(
                f"{path}: {ascii(token)} is {vectors.shape[1]} wide, this model's tokens are {width}; "
                "it was made for another text encoder"
            )
    text.add_tokens(embeddings)
    return list(embeddings)


def read_embedding(path: Path) -> dict[str, torch.Tensor]:
    """Vectors (N, D), float32, by token. Raises CheckpointError."""
    from live2diff.interop.lora import cloneofsimo, read_lora  # merging a LoRA adds the words it brings

    data = read_table(path)
    if isinstance(data, dict) and isinstance(data.get("string_to_param"), dict):
        data = data["string_to_param"]
    elif isinstance(data, dict) and {"clip_l", "clip_g"} & set(data):
        raise CheckpointError(f"{path}: is an embedding for SDXL; this model reads those of SD1.x")
    elif isinstance(data, dict) and cloneofsimo.is_cloneofsimo(data):
        data = read_lora(path).embeddings
    if isinstance(data, torch.Tensor):
        data = {"*": data}
    embeddings = {}
    for token, vectors in data.items() if isinstance(data, dict) else ():
        if not isinstance(token, str) or not _is_vectors(vectors):
            raise CheckpointError(f"{path}: is no textual inversion; expected vectors by token")
        vectors = vectors.detach().float()
        embeddings[path.stem if token in _NAMELESS else token] = vectors.reshape(-1, vectors.shape[-1])
    if not embeddings:
        raise CheckpointError(f"{path}: holds no textual inversion")
    return embeddings


def _is_vectors(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and value.ndim in (1, 2)
        and value.numel() > 0
        and bool(value.isfinite().all())
    )
