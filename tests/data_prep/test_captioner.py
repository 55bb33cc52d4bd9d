"""Captions from a tiny, random vision-language model made here: nothing is downloaded."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.captioner import PROMPT, Captioner
from live2diff.errors import CheckpointError, SetupError

NARROW = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = 0.5  # initial weights this large make random words depend on the picture
SIZE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def blip(tmp_path_factory) -> Path:
    """A model that continues a prompt."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("captioner") / "blip"
    folder.mkdir()
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a red blue star of photo moves".split()
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    BlipProcessor(BlipImageProcessor(size=SIZE), tokenizer).save_pretrained(folder)
    marks = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        text_config={**NARROW, **marks, "vocab_size": len(words), "initializer_range": WIDE},
        vision_config={**NARROW, "image_size": 32, "patch_size": 8, "initializer_range": WIDE},
        projection_dim=32,
    )
    torch.manual_seed(3)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    """A model that answers in a conversation."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = "<pad> <s> </s> <unk> <image> USER: ASSISTANT: a red blue star moves left".split()
    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, additional_special_tokens=["<image>"], **marks
    )
    parts = "{% if c.type == 'image' %}<image> {% else %}{{ c.text }} {% endif %}"
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}USER: {% for c in m.content %}"
        + parts
        + "{% endfor %}{% endfor %}ASSISTANT:",
    )
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**NARROW, image_size=32, patch_size=8, projection_dim=32),
        text_config=LlamaConfig(**NARROW, **ids, vocab_size=len(words), initializer_range=WIDE),
        image_token_index=words.index("<image>"),
        image_seq_length=16,
        vision_feature_layer=-1,
    )
    folder = tmp_path_factory.mktemp("captioner") / "llava"
    processor.save_pretrained(folder)
    torch.manual_seed(3)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (2, 2, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((20, 28, 1), np.uint8))


@pytest.mark.parametrize("kind", ["blip", "llava"])
def test_a_caption_is_one_line_about_the_picture_and_the_same_every_time(kind: str, request, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model = str(request.getfixturevalue(kind))
    captioner = Captioner(model, device="cpu")
    said = [captioner(picture(seed)) for seed in range(6)]
    assert any(said) and not any("\n" in text or "<" in text for text in said)
    assert len(set(said)) > 1, "the picture has no say"
    again = Captioner(model, device="cpu")
    assert [again(picture(seed)) for seed in range(6)] == said


def test_a_prompt_begins_the_caption_of_a_model_that_does_not_chat(blip: Path):
    captioner = Captioner(str(blip), prompt="a photo of", device="cpu")
    assert captioner(picture(0)).startswith("a photo of")
    assert captioner.identity["prompt"] == "a photo of"
    assert Captioner(str(blip)).identity["prompt"] == ""


def test_a_model_that_chats_is_asked_greedily(llava: Path, monkeypatch):
    captioner = Captioner(str(llava))
    assert captioner.identity["prompt"] == PROMPT
    network, seen = captioner._pipeline.model, []
    generate = network.generate
    monkeypatch.setattr(network, "generate", lambda **inputs: seen.append(inputs) or generate(**inputs))
    said = captioner(picture(0))
    (inputs,) = seen
    asked = inputs["input_ids"][0].tolist()
    assert asked.count(4) == 16, "as many image tokens as patches"
    assert asked.count(3) > 10, "the prompt's words, unknown to this vocabulary, are not there"
    assert inputs["do_sample"] is False and not said.startswith("USER: ")


def test_the_identity_tells_other_weights(blip: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(blip, tmp_path / "other")
    path = folder / "model.safetensors"
    state = {key: value.clone() for key, value in load_file(path).items()}
    next(iter(state.values())).add_(1)
    path.unlink()
    save_file(state, path, {"format": "pt"})
    one, two = Captioner(str(blip)).identity, Captioner(str(folder)).identity
    assert one["weights_sha256"] != two["weights_sha256"]
    assert one == Captioner(str(blip)).identity and json.dumps(one)


def spoil(blip: Path, target: Path, how: str) -> Path:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(blip, target)
    weights = folder / "model.safetensors"
    if how == "pickle":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    elif how == "missing weight":
        state = load_file(weights)
        kept = {
            key: value.clone() for key, value in state.items() if "vision_model.post_layernorm" not in key
        }
        weights.unlink()
        save_file(kept, weights, {"format": "pt"})
    elif how == "code":
        config = json.loads((folder / "config.json").read_text())
        config["model_type"] = "mine"
        config["auto_map"] = {"AutoConfig": "mine.C", "AutoModelForImageTextToText": "mine.M"}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    elif how == "html":
        (folder / "config.json").write_text("<html>")
    return folder


@pytest.mark.parametrize("how", ["pickle", "missing weight", "code", "html"])
def test_what_cannot_be_trusted_is_refused_in_one_line(blip: Path, tmp_path: Path, how: str):
    folder = spoil(blip, tmp_path / "model", how)
    with pytest.raises(CheckpointError) as error:
        Captioner(str(folder))
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert not (folder / "ran").exists()


def test_a_model_that_is_not_here_is_named_with_what_to_do(tmp_path: Path):
    with pytest.raises(
        CheckpointError, match="captioner=someone/none: is not on this machine; .*someone/none"
    ):
        Captioner("someone/none")
    with pytest.raises(CheckpointError, match="nowhere: is not on this machine"):
        Captioner(str(tmp_path / "nowhere"))


def test_a_device_that_is_not_here(blip: Path):
    with pytest.raises(SetupError, match="captioner_device=cuda:99"):
        Captioner(str(blip), device="cuda:99")
