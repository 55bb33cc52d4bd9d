"""Wrong configurations: one line with key, expectation and nearest key, before anything heavy."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from live2diff.cli import main
from live2diff.model.outline import outline
from tests.train.shards import make_dataset
from train import run
from train.model_group import CONFIGS, DEPTHS, VAES
from train.settings import load_config
from train.trainable import WORDS, check_names

# Settings, and what the line says. Each stands behind `experiment=tiny data.path=DATASET run_dir=RUN`.
UNKNOWN = [
    ("trainer.updtes=3", "unknown setting trainer.updtes; did you mean trainer.updates?"),
    ("trianer.updates=3", "unknown setting trianer.updates; did you mean trainer.updates?"),
    ("model.settings.windw=8", "unknown setting model.settings.windw; did you mean model.settings.window?"),
    ("+trainer.updtes=3", "unknown setting trainer.updtes; did you mean updates?"),
    ("+foo=1", "unknown setting foo"),
    ("+model.settings.windw=8", "unknown key windw; known are mask, window"),
    ("experiment=stage1_maks", "experiment=stage1_maks: no such option; did you mean stage1_mask?"),
    ("experiment=[tiny,fo]", "experiment=fo: no such option"),
    ("optim=adm", "optim=adm: no such option; did you mean adam?"),
    ("debug=overfti", "debug=overfti: no such option; did you mean overfit?"),
    ("logger=tensorboard", "logger=tensorboard: no such option; known: csv, wandb"),
    ("+logger.foo=1", "unknown setting logger.foo"),
    ("+logger.projet=1", "unknown setting logger.projet; did you mean project?"),
    ("+model.extra=1", "unknown setting model.extra; did you mean text?"),
    ("+model.unet.pretraned=x", "unknown setting model.unet.pretraned; did you mean pretrained?"),
    ("hydra.run.dir=x", "unknown setting hydra.run.dir; the folder of a run is set with run_dir=FOLDER"),
]
TYPES = [
    ("trainer.batch=abc", "trainer.batch: Value 'abc' of type 'str' could not be converted to Integer"),
    ("trainer.batch=1.5", "trainer.batch: Value '1.5' of type 'float' could not be .*; expected 1 or more"),
    ("trainer.batch=true", "trainer.batch: Value 'True' of type 'bool'"),
    ("optim.lr=[1]", "optim.lr: Value .* could not be converted to Float; expected more than 0"),
    ("trainer.trainable=motion", r"trainer.trainable: .*; expected a list, as \[motion,depth\]"),
    ("trainer.lora=5", "trainer.lora: .*; expected null, or {rank: 1 or more, alpha: more than 0}"),
    ("trainer.devices=[0,1]", r"trainer.devices=\[0, 1\]: expected auto or 1, 2"),
    ("optim=null", "optim=null: expected one of adam, adamw"),
    ("model=3", "model=3: expected one of saved, sd15, tiny"),
    ("model.settings=3", "model.settings=3: expected a table of keys"),
    ("model.unet=null", "model.unet=None: expected a table of keys"),
    ("model.settings.window=abc", "model.settings.window='abc'; expected int"),
    ("model.unet.config=5", "model.unet.config=5: expected a table of keys"),
    ("model.vae.config=null", "model.vae.config=None: expected a table of keys"),
    ("model.unet.motion=5", "model.unet.motion=5: expected a path, a hub id or null"),
    (
        "+model.unet.config.motion_max_seq_length=abc",
        "model.unet.config.motion_max_seq_length=abc: expected 1 or more",
    ),
    ("+model.loras=5", r"model.loras=5: expected a list, as \[{path: style.safetensors, scale: 0.8}\]"),
    ("+model.loras=[{path: a, scale: b}]", r"model.loras\[0\]={'path': 'a', 'scale': 'b'}: expected"),
    ("~logger.kind", "logger.kind: Missing mandatory value"),
    ("~model.depth.preset", "model.depth.preset: is missing; see conf/model"),
    ("~trainer.batch", "trainer.batch: Missing mandatory value"),
    ("trainer.batch=${foo}", r"trainer.batch=\${foo}: Interpolation key 'foo' not found"),
]
VALUES = [
    ("trainer.batch=-1", "trainer.batch=-1: expected 1 or more"),
    ("trainer.updates=0", "trainer.updates=0: expected 1 or more"),
    ("trainer.effective_batch=0", "trainer.effective_batch=0: expected null or 1 or more"),
    ("trainer.clip_grad=-1", "trainer.clip_grad=-1.0: expected null or more than 0"),
    ("trainer.profiler=nvprof", "trainer.profiler=nvprof: expected one of null, simple, pytorch"),
    ("optim.lr=nan", "optim.lr=nan: expected more than 0"),
    ("optim.lr=inf", "optim.lr=inf: expected more than 0"),
    ("seed=4294967296", "seed=4294967296: expected 0 to 4294967295"),
    ("run_dir=''", "run_dir=: expected a name"),
    ("model.depth.preset=dpt_hybird", "model.depth.preset=dpt_hybird: expected one of dpt_hybrid, dpt_large"),
    ("model.vae.kind=VQModel", "model.vae.kind=VQModel: expected one of AutoencoderKL, AutoencoderTiny"),
    (
        "trainer.trainable=[motion,motoin]",
        "trainer.trainable: 'motoin' is in no parameter's name; did you mean motion?",
    ),
    ("trainer.trainable=[]", "nothing would be trained; name parts, or give trainer.lora"),
    ("+model.unet.config.norm_esp=1", "setting model.unet.config.norm_esp; did you mean norm_eps?"),
    ("+model.text.config.colour=red", "unknown setting model.text.config.colour; known: vocab_size"),
    ("data.size=100", "data.size=100: expected a multiple of 8"),
    ("model.settings.warmup=16", "model.settings.warmup=16; expected 0 to 15"),
    ("model.settings.window=40", "model.settings.window=40: expected 24 or fewer"),
]
SYNTAX = [
    ("batch", "'batch': a setting is written key=value"),
    ("=3", "'=3': a setting is written key=value"),
    ("trainer.trainable=[motion", r"trainer.trainable=\[motion: is not understood .* must be closed"),
    ("trainer.lora={rank: 8", "trainer.lora={rank: 8: is not understood .* must be closed"),
    ("name='tiny", "name='tiny: is not understood .* must be closed"),
    ("name=a: [b", r"name=a: \[b: is not understood"),
]
PAIRS = [
    ("trainer.trainable=[motion,depth]", "the depth branch is only trained with trainer.depth=true"),
    ("data.frames=30 trainer.mask=bidirectional", "data.frames=30: expected 24 or fewer with"),
    ("data.frames=8", "data.frames=8: expected more than model.settings.warmup=8"),
    ("trainer.precision=16-mixed", "trainer.precision=16-mixed: expected 32-true or bf16-mixed on a CPU"),
    (
        "trainer.effective_batch=1024 trainer.accumulate=32",
        "trainer.effective_batch=1024: trainer.batch=2 x 1 processes x trainer.accumulate=32 is 64; "
        "set trainer.accumulate=512, or trainer.effective_batch=64",
    ),
    (
        "trainer.effective_batch=1024 trainer.batch=3",
        "choose a trainer.batch and a number of processes that divide 1024",
    ),
    ("data.workers=3", "2 shards for 3 readers, 1 ranks x data.workers=3; lower data.workers"),
    ("data.columns=[latents,depth] trainer.depth=true", "data.columns: .* has no column latents; add it"),
    ("data.split=test", "data.path=.*: its split 'test' holds no shards; see data.split"),
    ("data.stride=3", "a sample spans 46 frames, but 1 of 2 clips .* are shorter, down to 40; lower"),
    ("data.path=nowhere", "data.path=nowhere: does not exist; make one with `live2diff data build`"),
    ("experiment=toy_stage2", "model.saved=outputs/toy_stage1: no such folder; .* the stage before"),
    ("model=saved", "model.saved must be given, as model.saved=VALUE"),
    ("model=saved model.saved=begun", "model.saved=begun: this run has no complete checkpoint yet"),
    ("model=saved model.saved=empty", "model.saved=empty: neither an exported model nor a training run"),
    ("run_dir=file.txt", "run_dir=file.txt: file.txt is a file; expected a folder"),
    ("run_dir=file.txt/run", "run_dir=file.txt/run: file.txt is a file; expected a folder"),
]  # fmt: skip
WRONG = UNKNOWN + TYPES + VALUES + SYNTAX + PAIRS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two shards; the index says that one of the two clips is short."""
    folder = make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=1)
    rows = {"kind": ["clip", "clip"], "split": ["train", "train"], "frames": [40, 80], "key": ["a", "b"]}
    parquet.write_table(pa.table(rows), folder / "index.parquet")
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An otherwise empty folder to work in, where nothing may be built."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").touch()
    monkeypatch.setattr(run, "_task", lambda _: pytest.fail("the model was built"))
    return tmp_path


def words_of(settings: str, dataset) -> list[str]:
    words = settings.split(" ") if " trainer" in settings or " model." in settings else [settings]
    chosen = {word.partition("=")[0] for word in words}
    given = {"experiment": "tiny", "data.path": dataset, "run_dir": "run"}
    return ["train", *(f"{key}={value}" for key, value in given.items() if key not in chosen), *words]


def test_the_kinds_are_those_there_are():
    from live2diff.depth import NETWORKS
    from live2diff.model.vae import KINDS

    assert tuple(KINDS) == VAES and set(NETWORKS) == set(DEPTHS)


def test_the_sizes_are_those_there_are():
    from transformers import CLIPTextConfig

    from live2diff.model.unet import CausalUNet
    from live2diff.model.vae import KINDS

    for name, kind in {"unet": CausalUNet, **KINDS}.items():
        assert set(CONFIGS[name].split()) == set(inspect.signature(kind.__init__).parameters) - {"self"}, name
    assert set(CONFIGS["text"].split()) <= set(CLIPTextConfig().to_dict())


def test_the_words_are_those_there_are():
    """All that names of parameters are made of, at both sizes."""
    found = set()
    for experiment in ("tiny", "stage1_mask"):
        model = outline(load_config([f"experiment={experiment}", "data.path=x"])["model"])
        for name, _ in model.unet.named_parameters():
            found |= {word for word in name.split(".") if not word.isdigit()}
            check_names([name], lora=False)
    assert found == set(WORDS)
    check_names(["attn1", "up_blocks.2", "norm", "lin"], lora=False)


@pytest.mark.parametrize(
    "settings", ["trainer.trainable=[motoin]", "+model.unet.config.norm_esp=1", "model.vae.kind=VQModel"]
)
def test_the_plan_refuses_it_too(dataset, place, capsys, settings):
    assert main([*words_of(settings, dataset), "--dry-run"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_there_are_enough():
    assert len(WRONG) >= 40 and len({settings for settings, _ in WRONG}) == len(WRONG)


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=[settings for settings, _ in WRONG])
def test_a_wrong_configuration_is_one_line(dataset, place, capsys, settings, message):
    before = everything(place)
    assert main(words_of(settings, dataset)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert re.search(message, said), said
    assert everything(place) == before


def test_it_is_told_before_the_heavy_libraries_are_loaded(dataset, place):
    """All of it in one process: what none of them needed is not loaded at the end."""
    code = (
        "import json, sys; from live2diff.cli import main;"
        "heavy = {'lightning', 'diffusers', 'transformers', 'timm'};"
        "told = [(words, main(words), sorted(heavy & set(sys.modules))) for words in json.load(sys.stdin)];"
        "sys.exit(next((f'{case}' for case in told if case[1] != 2 or case[2]), 0))"
    )
    words = [words_of(settings, dataset) for settings, _ in WRONG]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(words, default=str), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr.splitlines()[-1]


def test_damage_is_no_wrong_configuration(dataset, place, capsys, tmp_path):
    """A dataset's description that cannot be read is another exit code, and as short."""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "dataset.json").write_text(json.dumps({"splits": {"train": 3}}))
    assert main(words_of(f"data.path={damaged}", dataset)) == 3
    assert capsys.readouterr().err.count("\n") == 1
