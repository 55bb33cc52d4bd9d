"""Prompts to text states, through transformers' CLIP."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AddedToken, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from live2diff.errors import CheckpointError, UsageError
from live2diff.interop.single_file import text_weights
from live2diff.interop.sizes import folder_config, part_folder, sd15_config
from live2diff.settings import TextSettings
from live2diff.weights import fit_weights, read_folder, read_weights, without_weights

CLIP_ID = "openai/clip-vit-large-patch14"  # where CLIP's vocabulary is published
_LARGEST_VOCABULARY = 32 << 20  # bytes; CLIP's files are 1 and 2 MB


class TextEncoder(nn.Module):
    """A CLIP tokenizer and text model under the settings they were trained with."""

    def __init__(self, tokenizer: CLIPTokenizer, model: CLIPTextModel, settings: TextSettings):
        super().__init__()
        self.tokenizer, self.model, self.settings = tokenizer, model.eval().requires_grad_(False), settings

    @torch.no_grad()
    def forward(self, prompts: list[str]) -> torch.Tensor:
        """States (B, S, D) of `prompts`; longer ones are cut to S tokens, as CLIP does."""
        ids = self.tokens(prompts).to(self.model.device)
        skip = self.settings.clip_skip
        if skip == 0:
            return self.model(ids).last_hidden_state
        states = self.model(ids, output_hidden_states=True).hidden_states[-1 - skip]
        return self._final_norm(states)

    def tokens(self, prompts: list[str]) -> torch.Tensor:
        """What the model reads of `prompts`: numbers of tokens (B, S), on the CPU."""
        return self.tokenizer(
            [self._spelled_out(prompt) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self.settings.max_length,
            return_tensors="pt",
        ).input_ids

    def is_too_long(self, prompt: str) -> bool:
        return len(self.tokenizer(self._spelled_out(prompt)).input_ids) > self.settings.max_length

    @torch.no_grad()
    def add_tokens(self, words: Mapping[str, torch.Tensor]) -> None:
        """Teach the encoder new words, in place (textual inversion); they are saved with it.

        Args:
            words: vectors (N, D) by word, N up to 75. A word of several vectors becomes as many tokens,
                `word`, `word_1`, `word_2`, as diffusers names them; a prompt writes the first.

        Raises:
            UsageError: a word has spaces, is known already, or reads like one of another word's tokens.
        """
        known = {token.removesuffix("</w>").lower() for token in self.tokenizer.get_vocab()}
        added = {token.lower() for token in self.tokenizer.added_tokens_encoder}
        tokens: dict[str, torch.Tensor] = {}
        for word, vectors in words.items():
            if not re.fullmatch(r"\S{1,100}", word) or not word.isprintable():
                raise UsageError(
                    f"{ascii(word)} cannot be a token: it has spaces or is too long; name it anew"
                )
            if not 1 <= len(vectors) <= self.settings.max_length - 2:
                raise UsageError(
                    f"{word}: {len(vectors)} vectors do not fit {self.settings.max_length} tokens"
                )
            own = [word, *(f"{word}_{i}" for i in range(1, len(vectors)))]
            taken = [token for token in own if token.lower() in known]
            # A `cat_1` of its own would make `cat` a word of two vectors, whichever came first.
            base = re.sub(r"_\d+$", "", word).lower()
            taken += [token for token in (f"{word}_{len(own)}".lower(), base) if token in added]
            if taken:
                raise UsageError(f"{word}: the tokenizer knows {taken[0]} already; give it another name")
            known |= {token.lower() for token in own}
            added |= {token.lower() for token in own}
            tokens |= dict(zip(own, vectors, strict=True))
        # Found as whole words, in any case, as CLIP reads everything else.
        new: list[str | AddedToken] = [AddedToken(token, single_word=True) for token in tokens]
        self.tokenizer.add_tokens(new)
        table = cast(nn.Embedding, self.model.get_input_embeddings())
        rows = max(len(self.tokenizer), table.num_embeddings)
        table = self.model.resize_token_embeddings(rows, mean_resizing=False).requires_grad_(False)
        for token, vector in tokens.items():
            table.weight[self.tokenizer.convert_tokens_to_ids(token)] = vector.to(table.weight)

    def _spelled_out(self, prompt: str) -> str:
        """The prompt with all tokens of added words: `cat` as `cat cat_1 cat_2`."""
        added = self.tokenizer.added_tokens_encoder
        spelled = {}
        for word in added:
            tokens = [word]
            while (token := f"{word}_{len(tokens)}") in added:
                tokens.append(token)
            spelled[word.lower()] = " ".join(tokens)
        # The longest first: one word may begin like another.
        words = "|".join(re.escape(word) for word in sorted(spelled, key=len, reverse=True))
        whole_word = re.compile(rf"(?<!\w)({words})(?!\w)", re.IGNORECASE)
        return whole_word.sub(lambda match: spelled.get(match[0].lower(), match[0]), prompt)

    @property
    def _final_norm(self) -> nn.Module:
        return getattr(self.model, "text_model", self.model).final_layer_norm

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.model.save_pretrained(folder / "text_encoder")

    @classmethod
    def load(
        cls,
        path: Path | str,
        settings: TextSettings,
        tokenizer: Path | str | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> TextEncoder:
        """A text encoder in float32 on the CPU.

        Args:
            path: a folder in diffusers' layout, with `text_encoder/` and `tokenizer/`, or in transformers';
                or a single file: CLIP's text encoder alone or in a Stable Diffusion model.
            tokenizer: the folder of its vocabulary; None: in `path`. A single file has none.
            changes: for a single file, what differs from SD1.5's sizes.

        Raises:
            CheckpointError: not a text encoder of this kind, damaged, or without its vocabulary.
        """
        path = Path(path)
        if path.is_dir():
            folder = part_folder(path, "text_encoder")
            config = folder_config(folder, section="text_config")
            weights = read_folder(folder)
        else:
            config, weights = sd15_config("text_encoder", changes), read_weights(path)
        words = load_tokenizer(path if tokenizer is None else Path(tokenizer))
        with without_weights():
            model = CLIPTextModel(CLIPTextConfig.from_dict(config))
        fit_weights(model, text_weights(weights, path), path)
        if len(words) > model.config.vocab_size:
            raise CheckpointError(
                f"{path}: its vocabulary has {len(words)} words, the text encoder knows "
                f"{model.config.vocab_size}; they do not belong together"
            )
        return cls(words, model, settings)


def load_tokenizer(path: Path) -> CLIPTokenizer:
    """CLIP's tokenizer from a folder, or its `tokenizer/`, with vocab.json and merges.txt, or tokenizer.json.

    Raises:
        CheckpointError: a single file, a folder without them, or files that cannot be read.
    """
    if path.is_file():
        raise CheckpointError(
            f"{path}: a single file has no vocabulary; name a folder that has it as model.text.tokenizer, "
            f"or {CLIP_ID} after `hf download {CLIP_ID} vocab.json merges.txt`"
        )
    folder = path / "tokenizer" if (path / "tokenizer").is_dir() else path
    files = [folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")]
    if not (files[0].is_file() or files[1].is_file() and files[2].is_file()):
        raise CheckpointError(f"{folder}: holds no vocabulary (vocab.json and merges.txt); get it again")
    for file in files:
        if file.is_file() and file.stat().st_size > _LARGEST_VOCABULARY:
            raise CheckpointError(f"{file}: is too large for a vocabulary; get it again")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        ids = tokenizer("a", padding="max_length", max_length=3, truncation=True).input_ids
    except Exception as error:  # the library raises a dozen kinds on files that are not its own
        raise CheckpointError(f"{folder}: is no readable vocabulary of CLIP's; get it again") from error
    if ids[0] != tokenizer.bos_token_id or len(ids) != 3:
        raise CheckpointError(f"{folder}: is no vocabulary of CLIP's (no start token); give another")
    return tokenizer


def character_tokenizer(merges: Sequence[tuple[str, str]] = ()) -> CLIPTokenizer:
    """CLIP's byte-level tokenizer without a vocabulary file: one token per character, and one per merge."""
    characters = sorted(_byte_characters())
    tokens = characters + [c + "</w>" for c in characters] + ["".join(pair) for pair in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=cast(Any, list(merges)))


def _byte_characters() -> list[str]:
    """The printable character that byte-level BPE writes for each of the 256 bytes."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]
