"""New words for the text encoder, from the files that other tools write; diffusers is the reference."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from live2diff.errors import CheckpointError, UsageError
from live2diff.interop.textual_inversion import add_embedding
from live2diff.model.video_model import VideoModel
from tests.interop.lora.models import TEXT, make_model, make_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:.*DDIMScheduler:FutureWarning")  # of diffusers' pipeline

PROMPT = "a <cat> and <cat>, not a concat of <cats>"


def vectors(count: int, width: int = TEXT, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def write(path, content):
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


@pytest.mark.parametrize("count", [1, 3])
def test_diffusers_layout_against_diffusers(tmp_path, count):
    """The states of a prompt agree, through its own way of writing out words of several vectors."""
    model = make_model()
    pipeline = make_pipeline(model)
    content = {"<cat>": vectors(count) if count > 1 else vectors(1)[0]}
    for name in ("learned_embeds.safetensors", "learned_embeds.bin"):
        path = write(tmp_path / name, content)
        model = make_model()
        before = model.text([PROMPT, "a dog"])
        assert add_embedding(model.text, path) == ["<cat>"]
        if name.endswith("safetensors"):
            pipeline.load_textual_inversion(str(tmp_path), weight_name=name)
        words = pipeline.tokenizer(
            pipeline.maybe_convert_prompt(PROMPT, pipeline.tokenizer),
            padding="max_length",
            max_length=77,
            truncation=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            expected = pipeline.text_encoder(words.input_ids).last_hidden_state
        after = model.text([PROMPT, "a dog"])
        torch.testing.assert_close(after[:1], expected, rtol=0, atol=1e-5)
        assert (after[0] - before[0]).abs().max() > 1e-2
        torch.testing.assert_close(after[1], before[1], rtol=0, atol=1e-6)  # other prompts are as they were


@pytest.fixture(scope="module")
def model():
    """For tests that leave it as it is."""
    return make_model()


@pytest.fixture(scope="module")
def cat(tmp_path_factory):
    """A model that knows <cat> by two vectors, and the file it has them from."""
    model = make_model()
    path = write(tmp_path_factory.mktemp("cat") / "learned_embeds.safetensors", {"<cat>": vectors(2)})
    add_embedding(model.text, path)
    return model, path


def a1111_pt(tensor):
    """With what the web UI leaves beside it."""
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": tensor},
        "name": "inner name",
        "step": 1499,
        "sd_checkpoint": "81761151",
        "sd_checkpoint_name": None,
    }


@pytest.mark.parametrize(
    ("name", "content", "token"),
    [
        ("EasyNegative.pt", a1111_pt(vectors(2)), "EasyNegative"),
        ("EasyNegative.safetensors", {"emb_params": vectors(2)}, "EasyNegative"),
        ("bare.bin", vectors(2), "bare"),
        ("half.safetensors", {"<cat>": vectors(2).half()}, "<cat>"),
    ],
)
def test_layouts(tmp_path, name, content, token):
    model = make_model()
    assert add_embedding(model.text, write(tmp_path / name, content)) == [token]
    encoder = model.text.model.get_input_embeddings().weight
    half = name.startswith("half")
    assert torch.equal(encoder[-2:], vectors(2).half().float() if half else vectors(2))
    ids = model.text.tokenizer(model.text._spelled_out(f"so {token.upper()}!")).input_ids
    assert ids[-4:-2] == [len(encoder) - 2, len(encoder) - 1]  # before the mark and the end
    assert not encoder.requires_grad


def test_embeddings_of_a_cloneofsimo_lora(shared):
    file = shared / "data" / "lora" / "sd15_lora_disney_rank1.safetensors"
    model = make_model(text_width=768)
    assert add_embedding(model.text, file) == ["<s1>", "<s2>"]
    assert (model.text(["style of <s1><s2>"]) - model.text(["style of <s1>"])).abs().max() > 1e-3
    with pytest.raises(UsageError, match="holds 2 tokens"):
        add_embedding(model.text, file, name="disney")


def test_a_name_of_ones_own(tmp_path):
    model = make_model()
    path = write(tmp_path / "learned_embeds.safetensors", {"<cat>": vectors(1)})
    assert add_embedding(model.text, path, name="moggy") == ["moggy"]
    changed = model.text(["a moggy"]) - make_model().text(["a moggy"])
    assert changed.abs().max() > 1e-2
    assert torch.equal(model.text(["a <cat>"]), make_model().text(["a <cat>"]))


def test_words_are_found_whole_and_the_longest_first(tmp_path):
    model = make_model()
    for name, count in (("bad-hands", 2), ("bad-hands-5", 1), ("sks", 3)):
        add_embedding(model.text, write(tmp_path / f"{name}.safetensors", {"emb_params": vectors(count)}))
    for prompt, spelled in (
        ("sks dog", "sks sks_1 sks_2 dog"),
        ("(SKS:1.2), asks", "(sks sks_1 sks_2:1.2), asks"),
        ("bad-hands-5, bad-hands", "bad-hands-5, bad-hands bad-hands_1"),
        ("sks_1 alone", "sks_1 alone"),
        ("\u017fk\u017f", "\u017fk\u017f"),  # the long s is one only where case is ignored
    ):
        assert model.text._spelled_out(prompt) == spelled
    assert not model.text.is_too_long("sks " * 25)
    assert model.text.is_too_long("sks " * 26)  # 78 tokens and the two ends


def test_words_travel_with_the_export(tmp_path):
    model = make_model()
    add_embedding(model.text, write(tmp_path / "learned_embeds.bin", {"<cat>": vectors(3)}))
    model.save(tmp_path / "export")
    loaded = VideoModel.load(tmp_path / "export")
    assert torch.equal(loaded.text([PROMPT]), model.text([PROMPT]))
    path = write(tmp_path / "sks.safetensors", {"emb_params": vectors(2)})
    assert add_embedding(loaded.text, path) == ["sks"]  # and it can learn more


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("<cat>", "knows <cat> already"),
        ("<CAT>", "knows <CAT> already"),
        ("<cat>_1", "knows <cat>_1 already"),
        ("<cat>_7", "knows <cat> already"),
        ("a", "knows a already"),
        ("two words", "cannot be a token"),
        ("", "cannot be a token"),
        ("x\x00", "cannot be a token"),
        ("x" * 101, "cannot be a token"),
    ],
)
def test_names_that_cannot_be(cat, tmp_path, name, words):
    model, path = cat
    size = len(model.text.tokenizer)
    with pytest.raises(UsageError, match=words):
        add_embedding(model.text, path, name=name)
    assert len(model.text.tokenizer) == size


def test_a_name_that_would_lengthen_another_word(tmp_path):
    model = make_model()
    path = write(tmp_path / "x.safetensors", {"emb_params": vectors(1)})
    add_embedding(model.text, path, name="sks_1")
    with pytest.raises(UsageError, match="knows sks_1 already"):
        add_embedding(model.text, path, name="sks")


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("wide.safetensors", {"emb_params": vectors(2, 768)}, "768 wide, this model's tokens are 32"),
        ("xl.safetensors", {"clip_l": vectors(1), "clip_g": vectors(1, 64)}, "for SDXL"),
        ("nan.safetensors", {"<x>": torch.full((1, TEXT), float("nan"))}, "no textual inversion"),
        ("image.safetensors", {"<x>": torch.zeros(1, 1, TEXT)}, "no textual inversion"),
        ("whole.safetensors", {"<x>": torch.zeros(1, TEXT, dtype=torch.int32)}, "no textual inversion"),
        ("notes.pt", {"<x>": "hello"}, "no textual inversion"),
        ("numbers.pt", {3: vectors(1)}, "no textual inversion"),
        ("nothing.pt", {}, "no textual inversion"),
        ("list.pt", [vectors(1)], "no textual inversion"),
        ("code.pt", {"<x>": Canary()}, "refused"),
        ("module.pt", {"string_to_param": torch.nn.ParameterDict({"*": vectors(1)})}, "refused"),
    ],
)
def test_files_that_are_none(model, tmp_path, monkeypatch, name, content, words):
    monkeypatch.chdir(tmp_path)
    size = len(model.text.tokenizer)
    path = write(tmp_path / name, content)
    with pytest.raises(CheckpointError, match=words) as caught:
        add_embedding(model.text, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert len(model.text.tokenizer) == size
    assert not (tmp_path / "canary").exists()


def test_too_many_vectors(tmp_path):
    path = write(tmp_path / "long.safetensors", {"emb_params": vectors(76)})
    with pytest.raises(UsageError, match="76 vectors do not fit 77 tokens"):
        add_embedding(make_model().text, path)
