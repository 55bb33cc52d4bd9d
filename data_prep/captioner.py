"""Captions by a vision-language model, for clips that came without one. Torch is imported when it is made.

Any model of transformers' `image-text-to-text` task will do, from a local folder or from the hub's cache:
nothing is downloaded, no code of the model's own is run, and only safetensors weights are read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import numpy as np

from live2diff.errors import CheckpointError

# For models that hold a conversation. The paper captions the middle frame with a prompt too (A.6); its words
# are not at hand here, so these are our own.
PROMPT = (
    "Describe this picture in one short sentence: the main object, what it does, and where it is. "
    "Do not begin with 'The image shows'."
)
_MOST_TOKENS = 60  # the text encoder reads 77
_MOST_CHARS = 1000


class Captioner:
    """Calls a model on one picture at a time; the same picture gives the same caption.

    Attributes:
        identity: what made the captions: model, revision, weight hash, prompt and library version.

    Args:
        model: a folder, or the id of a model in the hub's local cache.
        prompt: what to ask. None: `PROMPT` for a model with a chat template; nothing for one without, such as
            BLIP, which continues the prompt as if the caption began with it.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        CheckpointError: no such model here, one that does not caption, or without whole safetensors weights.
        SetupError: no such device.
    """

    def __init__(self, model: str, prompt: str | None = None, device: str = "auto"):
        import torch
        import transformers
        from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

        from live2diff.devices import find_device
        from live2diff.references import find
        from live2diff.terminal import quiet_libraries
        from live2diff.weights import load_pretrained

        quiet_libraries()
        chosen = find_device(device, "captioner_device")
        folder = find(model, "captioner")
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor = AutoProcessor.from_pretrained(folder, **options)
            network = load_pretrained(
                cast(type[torch.nn.Module], AutoModelForImageTextToText),
                folder,
                use_safetensors=True,
                dtype=torch.float32 if chosen.type == "cpu" else torch.bfloat16,
                **options,
            )
        except CheckpointError:
            raise
        except Exception as error:  # the library raises a dozen kinds on folders it cannot read
            words = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"captioner={model}: is not a captioning model that transformers loads from safetensors "
                f"without code of its own ({words}); name an image-text-to-text model"
            ) from error
        self._chats = getattr(processor, "chat_template", None) is not None
        self._prompt = prompt if prompt is not None else PROMPT if self._chats else ""
        self._pipeline: Any = pipeline(
            "image-text-to-text", model=cast(Any, network.eval()), processor=processor, device=chosen
        )
        self.identity = {
            "model": model,
            "revision": folder.name if folder.parent.name == "snapshots" else None,  # of the hub's cache
            "weights_sha256": _hash(folder),
            "prompt": self._prompt,
            "transformers": transformers.__version__,
        }

    def __call__(self, image: np.ndarray) -> str:
        """One line of text about `image`, uint8 RGB (H, W, 3)."""
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(image))
        how = {"do_sample": False, "num_beams": 1, "max_new_tokens": _MOST_TOKENS}
        if self._chats:
            content = [{"type": "image", "image": picture}, {"type": "text", "text": self._prompt}]
            messages = [{"role": "user", "content": content}]
            answer = self._pipeline(text=messages, return_full_text=False, generate_kwargs=how)
        else:
            answer = self._pipeline(picture, text=self._prompt, generate_kwargs=how)
        return " ".join(str(answer[0]["generated_text"]).split())[:_MOST_CHARS]


def _hash(folder: Path) -> str:
    """SHA-256 over the weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
