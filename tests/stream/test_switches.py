"""Every way to compute a tick gives the same video, and follows the same changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch._dynamo.utils import counters

from live2diff.config import compose
from live2diff.errors import SetupError, UsageError
from live2diff.interop.lora import add_lora, set_lora_scales
from live2diff.interop.lora.layer import Layer
from live2diff.interop.lora.save import save_lora
from live2diff.memory import Slots
from live2diff.model.build import build
from live2diff.model.unet import CausalUNet
from live2diff.model.video_model import VideoModel
from live2diff.stream import Stream
from live2diff.stream.pipeline import Switches
from tests.model.tiny import make_inputs, make_unet, randomise, stream, whole

SIZE = (40, 72)  # portrait, and odd at the deeper levels
STEPS = {1: (35,), 2: (30, 40), 3: (20, 30, 40), 4: (10, 20, 30, 40)}
# Largest error of a prediction, as a share of the largest value.
INT8, BF16 = 0.01, 0.05


def make_model(**sizes) -> VideoModel:
    config = OmegaConf.to_container(compose("train", ["data.path=none"]).model)
    config["unet"]["config"] |= sizes  # type: ignore
    model = build(config, seed=0)  # type: ignore
    randomise(model.unet)
    return model


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return make_model()


def pictures(frames: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (frames, SIZE[1], SIZE[0], 3), dtype=np.uint8))


def run(stream: Stream, frames: list[np.ndarray]) -> np.ndarray:
    return np.stack([*(done for frame in frames for done in stream.push(frame)), *stream.flush()])


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    difference = np.abs(one.astype(int) - other.astype(int))
    assert difference.max() <= 1  # one step of uint8 rounding
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize(
    ("backend", "rows"),
    [
        ("eager", 2),
        *(pytest.param("aot_eager", rows, marks=pytest.mark.slow) for rows in STEPS),
        pytest.param(True, 2, marks=pytest.mark.slow),
    ],
)
def test_a_compiled_tick_is_one_graph_for_all_frames(backend, rows):
    model = make_model(
        block_out_channels=[32, 64],
        down_block_types=["CrossAttnDownBlockMotion", "DownBlockMotion"],
        up_block_types=["UpBlockMotion", "CrossAttnUpBlockMotion"],
    ).channels_last()
    frames = pictures(8 + rows + 12)  # past the first eviction
    plain = run(Stream(model, "x", size=SIZE, steps=STEPS[rows]), frames)
    compiled = Stream(model, "x", size=SIZE, steps=STEPS[rows], switches=Switches(compile=backend))
    counters.clear()
    got = run(compiled, frames)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"] and not counters["recompiles"]
    assert_same(got, plain)
    compiled.change("another prompt")
    compiled.push(frames[0])
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("rows", [1, 4])
def test_eight_bit_memory_streams_close_to_the_exact_one(rows):
    unet = make_unet()
    inputs = make_inputs(rows, 22, size=(5, 9))
    exact = stream(unet, *inputs)
    memory = unet.new_memory(rows, 5, 9, precision="int8")
    error = (stream(unet, *inputs, memory=memory) - exact).abs().amax() / exact.abs().amax()
    assert 0 < error < INT8


def test_eight_bit_memory_is_half_of_half_precision():
    with torch.device("meta"):
        unet = CausalUNet()  # SD1.5's sizes
    exact, small = (
        unet.new_memory(2, 64, 64, dtype=torch.float16, precision=precision)
        for precision in ("exact", "int8")
    )
    assert 0.5 < small.nbytes / exact.nbytes < 0.51  # a scale of 4 bytes for each pixel and slot


def test_eight_bits_round_to_half_a_step():
    slots = Slots((2, 5, 3, 4, 8), torch.float32, "cpu", exact=False)
    new = torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(0)) * 100
    new[0, 0] = 0
    rows, places, live = torch.arange(2), torch.tensor([1, 3]), torch.tensor([True, True])
    slots.put(rows, places, live, new)
    read = slots.read()[rows, :, :, places]
    bound = new.abs().amax((-2, -1)) / 127 / 2
    assert ((read - new).abs().amax((-2, -1)) <= bound * 1.001).all()
    slots.put(rows, places, torch.tensor([False, False]), new * float("nan"))
    assert torch.equal(slots.read()[rows, :, :, places], read)


@pytest.mark.parametrize("rows", [1, 3])
def test_bfloat16_streams_what_the_masked_forward_gives(rows):
    unet = make_unet()
    inputs = make_inputs(rows, 22)
    reference = whole(unet, *inputs)
    torch.nn.Module.to(unet, torch.bfloat16)
    samples, depths, timesteps, text = inputs
    half = (samples.bfloat16(), depths.bfloat16(), timesteps, text.bfloat16())
    largest = reference.abs().amax()
    for predicted in (stream(unet, *half), whole(unet, *half)):
        assert (predicted.float() - reference).abs().amax() / largest < BF16


def test_channels_last_is_the_same_video_and_saves_the_same_files(tmp_path):
    model = make_model()
    frames = pictures(11)
    plain = run(Stream(model, "x", size=SIZE), frames)
    assert_same(run(Stream(model.channels_last(), "x", size=SIZE), frames), plain)
    model.save(tmp_path / "model")
    assert np.array_equal(run(Stream(VideoModel.load(tmp_path / "model"), "x", size=SIZE), frames), plain)


@pytest.mark.parametrize("rows", STEPS)
def test_sizes_and_rows_with_an_eight_bit_memory(model, rows):
    frames = pictures(10)
    stream = Stream(model, "x", size=SIZE, steps=STEPS[rows], switches=Switches(memory="int8"))
    assert run(stream, frames).shape == (10, 72, 40, 3)


# -- nothing hoisted is ever stale --------------------------------------------------------------------------


def continued(model: VideoModel, state: dict[str, torch.Tensor], frames: list[np.ndarray]) -> np.ndarray:
    """What a stream that begins with the model as it is now makes of `state`."""
    fresh = Stream(model, "x", size=SIZE)
    fresh.load_state_dict(state)
    return run(fresh, frames)


def test_a_lora_changed_while_streaming_counts_from_the_next_frame(tmp_path):
    model = make_model()
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for path, module in model.unet.named_modules():
        # Where what is hoisted comes from: encodings of the motion modules, text of the cross-attentions.
        if path.endswith((".attn1.to_q", ".attn1.to_k", ".attn2.to_k", ".attn2.to_v")):
            down, up = (
                torch.randn(shape, generator=generator) * 0.3
                for shape in ((2, module.in_features), (module.out_features, 2))
            )
            layers[f"unet.{path}"] = Layer(down, up, 2.0)
    save_lora(layers, tmp_path / "style.safetensors")
    name = add_lora(model, tmp_path / "style.safetensors", 0.0)
    running = Stream(model, "x", size=SIZE)
    frames = pictures(13)
    for frame in frames[:11]:
        running.push(frame)
    state = running.state_dict()
    unchanged = continued(model, state, frames[11:])
    set_lora_scales(model, {name: 1.0})
    got = run(running, frames[11:])
    assert np.array_equal(got, continued(model, state, frames[11:]))
    assert not np.array_equal(got, unchanged)


def test_weights_written_by_hand_need_a_refresh():
    model = make_model()
    running = Stream(model, "x", size=SIZE)
    frames = pictures(13)
    for frame in frames[:11]:
        running.push(frame)
    state = running.state_dict()
    with torch.no_grad():
        for attention in model.unet.cross:
            attention.to_v.weight.mul_(-1)
    running.refresh()
    assert np.array_equal(run(running, frames[11:]), continued(model, state, frames[11:]))


# -- what cannot be ------------------------------------------------------------------------------------------


def test_what_a_device_cannot_do_is_refused(model):
    for switches, words in (
        (Switches(cuda_graph=True), "cuda_graph: needs a GPU, the model is on cpu; leave it out"),
        (Switches(kernel="triton"), "kernel=triton: needs a GPU"),
    ):
        with pytest.raises(SetupError, match=words):
            Stream(model, "x", size=SIZE, switches=switches)
    with pytest.raises(UsageError, match="memory='int4': expected exact or int8"):
        Stream(model, "x", size=SIZE, switches=Switches(memory="int4"))  # type: ignore


def test_a_state_of_another_memory_is_refused(model):
    state = Stream(model, "x", size=SIZE).state_dict()
    with pytest.raises(ValueError, match="does not fit"):
        Stream(model, "x", size=SIZE, switches=Switches(memory="int8")).load_state_dict(state)
