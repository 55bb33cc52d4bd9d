"""docs/streaming.md: its Python runs as written, its options exist."""

from __future__ import annotations

import re

from live2diff.cli import _parser
from tests.conftest import ROOT
from tests.interop.lora.files import ATTENTION, diffusers_peft, random_pairs, save
from tests.stream.test_engine import video

TEXT = (ROOT / "docs/streaming.md").read_text(encoding="utf-8")


def test_the_python_runs(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save("exports/mine")
    save(diffusers_peft(random_pairs(model, ATTENTION)), tmp_path / "ink.safetensors")
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    for written, here in (('.to("cuda")', ""), ("(512, 512)", "(32, 32)"), ("number == 90", "number == 20")):
        assert written in code
        code = code.replace(written, here)
    shown: list = []
    exec(code, {"frames": video(40), "show": shown.append})
    assert len(shown) == 40


def test_every_option_exists():
    words = _parser().parse_args(["stream", "EXPORT"])
    options = set(re.findall(r"(?<!-)--([a-z][a-z-]+)", TEXT))
    assert options and {option.replace("-", "_") for option in options} <= set(vars(words))
