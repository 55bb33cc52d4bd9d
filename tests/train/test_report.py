"""metrics.csv and Weights & Biases."""

from __future__ import annotations

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from live2diff.cli import main
from live2diff.errors import SetupError
from tests.train.runs import FAST, run
from tests.train.shards import make_dataset
from train.checks import check_logger
from train.report import CsvLogger
from train.run import _loggers

KEY = "0123456789" * 4


def test_a_resumed_log_drops_later_and_torn_rows(tmp_path):
    path = tmp_path / "metrics.csv"
    first = CsvLogger(tmp_path, 0)
    for update in (1, 2, 3):
        first.log_metrics(
            {"update": update, "micro_step": update, "loss": 0.5, "skipped": 0, "clips_per_s": 1}
        )
    with open(path, "a") as file:
        file.write("2")  # the kill came here
    second = CsvLogger(tmp_path, 2)
    second.log_metrics({"update": 3, "micro_step": 3, "loss": 0.25, "skipped": 0, "clips_per_s": 1})
    assert path.read_text().split() == [
        "update,micro_step,loss,skipped,val_loss,flicker,clips_per_s,data_wait,peak_memory_gb,tflops,mfu",
        "1,1,0.5,0,,,1,,,,",
        "2,2,0.5,0,,,1,,,,",
        "3,3,0.25,0,,,1,,,,",
    ]


def test_wandb_offline_writes_into_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=2)
    run(dataset, tmp_path / "run", "logger=wandb", "trainer.updates=1")
    wandb.finish()
    name = (tmp_path / "run/wandb_id").read_text()
    (folder,) = (tmp_path / "run/wandb").glob("offline-run-*")
    assert folder.name.endswith(name)
    assert (folder / f"run-{name}.wandb").stat().st_size > 0


@pytest.fixture
def anonymous(tmp_path, monkeypatch):
    """A user who never logged in to W&B, in an empty folder."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.chdir(tmp_path)
    wandb.teardown()  # it reads its environment once
    yield tmp_path
    wandb.teardown()


def test_wandb_without_a_login_is_refused_before_anything_is_built(anonymous, monkeypatch, capsys):
    monkeypatch.setattr("train.run._task", lambda _: pytest.fail("the model was built"))
    dataset = make_dataset(anonymous, shards=1, clips_per_shard=2)
    words = ["train", *FAST, f"data.path={dataset}", "run_dir=run", "logger=wandb"]
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 5
        said = capsys.readouterr().err
        assert "error: logger=wandb: no login for https://wandb.example is on this machine" in said
        assert "Traceback" not in said and not (anonymous / "run").exists()


def log_in_by(how: str, folder, monkeypatch) -> None:
    if how == "netrc":
        (folder / "netrc").write_text(f"machine wandb.example login user password {KEY}\n")
    elif how == "wandb offline":
        (folder / "wandb").mkdir()
        (folder / "wandb/settings").write_text("[default]\nmode = offline\n")
    else:
        monkeypatch.setenv(*how.split("="))


@pytest.mark.parametrize(
    "how", [f"WANDB_API_KEY={KEY}", "netrc", "WANDB_MODE=offline", "WANDB_MODE=disabled", "wandb offline"]
)
def test_a_login_or_none_needed(anonymous, monkeypatch, how):
    with pytest.raises(SetupError):
        check_logger({"kind": "wandb"})
    log_in_by(how, anonymous, monkeypatch)
    wandb.teardown()
    check_logger({"kind": "wandb"})


def test_a_login_that_wandb_does_not_take_is_one_line(anonymous, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    config = {"name": "one", "logger": {"kind": "wandb", "project": "live2diff"}}
    with pytest.raises(SetupError, match="logger=wandb: .*API key must have") as error:
        _loggers(config, anonymous, 0, first=True)
    assert "\n" not in str(error.value)


def test_only_the_first_process_speaks_to_wandb(tmp_path, monkeypatch):
    """Two that each made an id would log the one run under either."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = {"name": "one", "logger": {"kind": "wandb", "project": "live2diff"}}
    assert [type(logger) for logger in _loggers(config, tmp_path, 0, first=False)] == [CsvLogger]
    assert not (tmp_path / "wandb_id").exists()
    first = _loggers(config, tmp_path, 0, first=True)
    wandb.finish()
    assert [type(logger) for logger in first] == [CsvLogger, WandbLogger]
    assert first[1].version == (tmp_path / "wandb_id").read_text()
