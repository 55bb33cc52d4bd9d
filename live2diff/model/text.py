"""Prompts to text states, through transformers' CLIP."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from live2diff.settings import TextSettings
from live2diff.weights import load_pretrained


class TextEncoder(nn.Module):
    """A CLIP tokenizer and text model under the settings they were trained with."""

    def __init__(self, tokenizer: CLIPTokenizer, model: CLIPTextModel, settings: TextSettings):
        super().__init__()
        self.tokenizer, self.model, self.settings = tokenizer, model.eval().requires_grad_(False), settings

    @torch.no_grad()
    def forward(self, prompts: list[str]) -> torch.Tensor:
        """States (B, S, D) of `prompts`; longer ones are cut to S tokens, as CLIP does."""
        ids = self.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=self.settings.max_length,
            return_tensors="pt",
        ).input_ids.to(self.model.device)
        skip = self.settings.clip_skip
        if skip == 0:
            return self.model(ids).last_hidden_state
        states = self.model(ids, output_hidden_states=True).hidden_states[-1 - skip]
        return self._final_norm(states)

    def is_too_long(self, prompt: str) -> bool:
        return len(self.tokenizer(prompt).input_ids) > self.settings.max_length

    @property
    def _final_norm(self) -> nn.Module:
        return getattr(self.model, "text_model", self.model).final_layer_norm

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.model.save_pretrained(folder / "text_encoder")

    @classmethod
    def load(cls, folder: Path | str, settings: TextSettings) -> TextEncoder:
        """From a folder with `tokenizer/` and `text_encoder/`, as diffusers lays it out, or a hub id."""
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        model = load_pretrained(CLIPTextModel, folder, subfolder="text_encoder", dtype=torch.float32)
        return cls(tokenizer, model, settings)


def character_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level tokenizer without merges: one token per character. Needs no vocabulary file."""
    characters = sorted(_byte_characters())
    tokens = characters + [c + "</w>" for c in characters] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])


def _byte_characters() -> list[str]:
    """The printable character that byte-level BPE writes for each of the 256 bytes."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]
