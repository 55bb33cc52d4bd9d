"""Motion LoRA: what is trained, kept, resumed, exported and handed to others."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from live2diff.interop.convert import convert
from live2diff.interop.lora import add_lora, bake_lora, lora_names, read_lora
from live2diff.model.build import build, load_model
from live2diff.runs import checkpoints, run_config
from tests.train.runs import module_and_clips, run, take
from tests.train.shards import make_dataset
from train.settings import load_config

LORA = ["trainer.lora={rank: 4, alpha: 2}", "trainer.precision=32-true"]
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=2)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """A run of 3 updates, its learning rate high enough for the adapters to matter."""
    folder = tmp_path_factory.mktemp("runs") / "lora"
    assert run(dataset, folder, "trainer.updates=3", "trainer.save_every=2", "trainer.ema=0.9", *LORA) == 0
    return folder


def as_module(dataset, *overrides):
    """The module as `train.run` makes it: adapters stand beside the motion modules."""
    from live2diff.model.build import as_trained
    from train.module import Diffusion

    _, clips = module_and_clips(dataset)
    config = load_config([*RUN, f"data.path={dataset}", *LORA, *overrides])
    model = as_trained(build(config["model"], config["seed"]), config)
    return Diffusion(model, config["trainer"], config["optim"]), clips


RUN = ["experiment=tiny", "data.size=32", "model.settings.size=[32,32]"]


def predict(model, frames: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, frames, 8, 8, generator=generator)
    text = torch.randn(1, 77, 32, generator=generator)
    with torch.no_grad():
        return model.unet.eval()(sample, 500, text)


def test_a_fresh_adapter_changes_nothing(dataset):
    module, _ = as_module(dataset)
    plain = build(load_config([*RUN, f"data.path={dataset}"])["model"], 0)
    assert torch.equal(predict(module.model), predict(plain))


@pytest.mark.parametrize("more", [[], ["conv_in", "depth"]])
def test_the_adapters_and_what_is_named_beside_them_are_trained(dataset, more):
    words = ",".join(["motion", *more])
    module, clips = as_module(dataset, f"trainer.trainable=[{words}]", f"trainer.depth={bool(more)}".lower())
    with torch.no_grad():  # from zero, the gradient reaches `down` only with the second update
        for name, parameter in module.unet.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.01)
    module.loss(take(clips, 1)).backward()
    sites = 0
    for name, parameter in module.unet.named_parameters():
        lora = ".lora_A." in name or ".lora_B." in name
        sites += lora
        if lora:
            path = name.split(".lora_")[0]
            assert ".motion_modules." in path and path.endswith(PROJECTIONS), name
        beside = name.startswith(("conv_in.", "depth_branch.")) if more else False
        assert parameter.requires_grad == (parameter.grad is not None) == (lora or beside), name
    assert sites == 2 * 8 * sum(len(module.transformer_blocks) for module, _ in module.unet.temporal)
    assert set(module.state_dict()) == {n for n, p in module.unet.named_parameters() if p.grad is not None}


def test_a_checkpoint_holds_only_the_adapters(trained):
    for name in ("weights", "ema"):
        state = load_file(checkpoints(trained)[-1] / f"{name}.safetensors")
        assert state and all(".lora_A.motion." in key or ".lora_B.motion." in key for key in state)
        assert max(float(tensor.abs().max()) for key, tensor in state.items() if "lora_B" in key) > 0


def test_a_resumed_run_equals_an_uninterrupted_one(dataset, trained, tmp_path):
    settings = ["trainer.save_every=2", "trainer.ema=0.9", *LORA]
    run(dataset, tmp_path / "run", "trainer.updates=2", *settings)
    run(dataset, tmp_path / "run", "trainer.updates=3", *settings)
    one, other = (checkpoints(folder)[-1] for folder in (trained, tmp_path / "run"))
    for name in ("weights.safetensors", "ema.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def test_the_run_s_model_has_the_adapter_and_a_model_built_on_it_contains_it(dataset, trained):
    plain = build(run_config(trained)["model"], 0)
    model = load_model(trained)
    assert lora_names(model) == ["motion"]
    expected = predict(model)
    assert (expected - predict(plain)).abs().max() > 1e-4
    again = load_config(["model=saved", f"model.saved={trained}", *RUN[:2], f"data.path={dataset}"])
    built = build(again["model"])
    assert lora_names(built) == [] and set(built.unet.state_dict()) == set(plain.unet.state_dict())
    assert torch.allclose(predict(built), expected, atol=1e-5)


def test_a_lora_on_top_of_a_lora(dataset, trained, tmp_path):
    """The first is part of the weights, the second trained beside them; its file holds the second alone."""
    saved = ["model=saved", f"model.saved={trained}"]
    from train.run import train

    words = [
        *RUN[:2],
        *saved,
        f"data.path={dataset}",
        f"run_dir={tmp_path / 'run'}",
        "trainer.updates=1",
        *LORA,
    ]
    assert train(words) == 0
    state = load_file(checkpoints(tmp_path / "run")[-1] / "weights.safetensors")
    assert all(".motion." in key for key in state)
    assert (predict(load_model(tmp_path / "run")) - predict(load_model(trained))).abs().max() > 0


def test_an_export_has_it_in_its_weights(trained, tmp_path):
    from live2diff.interop.export import export
    from live2diff.model.video_model import VideoModel

    certificate = export(trained, tmp_path / "export")
    assert certificate["certified"]
    exported = VideoModel.load(tmp_path / "export")
    assert lora_names(exported) == []
    assert torch.allclose(predict(exported), predict(load_model(trained)), atol=1e-5)


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "animatediff"])
def test_a_file_for_others(trained, tmp_path, layout):
    path = tmp_path / "motion.safetensors"
    convert(trained, f"lora-{layout}", path)
    plain = build(run_config(trained)["model"], 0)
    add_lora(plain, read_lora(path))
    assert torch.allclose(predict(plain), predict(load_model(trained)), atol=1e-5)
    bake_lora(plain)


def test_diffusers_loads_the_file(trained, tmp_path):
    """Into its own motion UNet, under the same weights: every adapted layer then adds the same."""
    from diffusers import UNetMotionModel

    path = tmp_path / "motion.safetensors"
    convert(trained, "lora-diffusers", path)
    model = load_model(trained)
    config = {k: v for k, v in model.unet.config.items() if k not in ("window", "warmup", "depth_channels")}
    stock = UNetMotionModel.from_config(config)
    stock.load_lora_adapter(str(tmp_path), weight_name=path.name, prefix="unet", adapter_name="motion")
    ours = {n: m for n, m in model.unet.named_modules() if hasattr(m, "lora_A")}
    theirs = {n: m for n, m in stock.named_modules() if hasattr(m, "lora_A")}
    assert ours.keys() == theirs.keys()
    for name, module in ours.items():
        assert torch.equal(module.get_delta_weight("motion"), theirs[name].get_delta_weight("motion")), name
