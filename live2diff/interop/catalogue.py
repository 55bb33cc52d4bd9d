"""The public models that configurations name: how large they are and how to fetch them.

Sizes are those of the files this project reads, in 10^9 bytes. Licences stand in `licences.py`.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from live2diff.references import hub_parts

_MIDAS = "https://github.com/isl-org/MiDaS/releases/download"
# Name of a file -> its address, where it is not on the hub.
_ADDRESSES = {
    "dpt_hybrid_384.pt": f"{_MIDAS}/v3/dpt_hybrid_384.pt",
    "dpt_large_384.pt": f"{_MIDAS}/v3/dpt_large_384.pt",
    "midas_v21_small_256.pt": f"{_MIDAS}/v2_1/midas_v21_small_256.pt",
}
# Name of a file -> the hub id that has it.
_HUB_FILES = {
    "mm_sd_v14.ckpt": "guoyww/animatediff",
    "mm_sd_v15.ckpt": "guoyww/animatediff",
    "mm_sd_v15_v2.ckpt": "guoyww/animatediff",
    "v3_sd15_mm.ckpt": "guoyww/animatediff",
    "live2diff.ckpt": "Leoxing/Live2Diff",
    "v1-5-pruned-emaonly.safetensors": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "v1-5-pruned-emaonly.ckpt": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "vae-ft-mse-840000-ema-pruned.safetensors": "stabilityai/sd-vae-ft-mse-original",
    "vae-ft-mse-840000-ema-pruned.ckpt": "stabilityai/sd-vae-ft-mse-original",
    "taesd_encoder.safetensors": "madebyollin/taesd",
    "taesd_decoder.safetensors": "madebyollin/taesd",
}
_TOKENIZER_NOTES = ("tokenizer_config.json", "special_tokens_map.json")
# Hub id -> what of it is read; everything, where it is not listed.
_NEEDED = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        *(f"tokenizer/{name}" for name in _TOKENIZER_NOTES),
    ),
    "stabilityai/sd-vae-ft-mse": ("config.json", "diffusion_pytorch_model.safetensors"),
    "madebyollin/taesd": ("config.json", "diffusion_pytorch_model.safetensors"),
    "openai/clip-vit-large-patch14": ("vocab.json", "merges.txt", *_TOKENIZER_NOTES),
}
_OPTIONAL = {f"{where}{name}" for where in ("", "tokenizer/") for name in _TOKENIZER_NOTES}
_SIZES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": 4.27,
    "mm_sd_v14.ckpt": 1.67,
    "mm_sd_v15.ckpt": 1.67,
    "mm_sd_v15_v2.ckpt": 1.82,
    "v3_sd15_mm.ckpt": 1.67,
    "live2diff.ckpt": 1.68,
    "dpt_hybrid_384.pt": 0.49,
    "dpt_large_384.pt": 1.38,
    "midas_v21_small_256.pt": 0.085,
    "madebyollin/taesd": 0.010,
    "stabilityai/sd-vae-ft-mse": 0.33,
    "openai/clip-vit-large-patch14": 0.0015,
}


def fetch_command(reference: str) -> str | None:
    """The shell command that puts `reference`, a path or a hub id, where it is looked for; None: unknown."""
    path = Path(reference)
    parts = hub_parts(reference)
    home = _HUB_FILES.get(path.name)
    if parts is not None and (parts[0] == home or parts[0] in _NEEDED or not _begins_here(path)):
        repo, file = parts
        names = [file] if file else _NEEDED.get(repo, ())
        return " ".join(["hf download", repo, *(quote(name) for name in names)])
    if home:
        return f"hf download {home} {path.name} --local-dir {quote(str(path.parent))}"
    if address := _ADDRESSES.get(path.name):
        return f"curl --fail --location --create-dirs --output {quote(reference)} {address}"
    return None


def _begins_here(path: Path) -> bool:
    """Whether the first folder of a path is there: then it is a path, and no hub id."""
    return Path(path.parts[0]).is_dir()


def size_of(reference: str) -> int | None:
    """Bytes to fetch for `reference`, about; None: unknown."""
    size = _SIZES.get(reference, _SIZES.get(Path(reference).name))
    return None if size is None else round(size * 1e9)


def missing_files(folder: Path, reference: str) -> list[str]:
    """What of the hub id `reference` is read here and not in `folder`, the local copy of it."""
    return [
        name for name in _NEEDED.get(reference, ()) if name not in _OPTIONAL and not (folder / name).is_file()
    ]
