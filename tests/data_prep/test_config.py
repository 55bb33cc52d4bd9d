"""Settings: presets compose, mistakes are named."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from data_prep.config import RUN_KEYS, PrepConfig, load_config
from live2diff.errors import UsageError

PREP = Path(__file__).parents[2] / "conf/prep"


def test_presets_and_overrides_compose():
    assert load_config().min_frames == 61
    tiny = load_config(["prep=tiny", "stride=2"])
    assert (tiny.size, tiny.stride, tiny.crf) == (64, 2, load_config().crf)


def test_every_key_stands_in_the_default_file_and_no_other():
    written = set(re.findall(r"^(\w+):", (PREP / "default.yaml").read_text(), flags=re.M))
    assert written == {field.name for field in fields(PrepConfig)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sise=64", "unknown setting sise; did you mean size"),
        ("+sise=64", "sise"),
        ("stride", "key=value"),
        ("size=big", "size"),
        ("size=65", "size=65 is out of range"),
        ("prep=huge", "huge"),
        ("val_fraction=1", "val_fraction"),
    ],
)
def test_mistakes_are_named(override: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        load_config([override])
    assert "\n" not in str(caught.value)


def test_hash_sees_the_content_and_not_the_way_of_running():
    config = load_config()
    assert replace(config, workers=7, timeout_s=1.0, memory_mb=999).hash() == config.hash()
    for key in config.content():
        assert replace(config, **{key: "something else"}).hash() != config.hash()
    assert set(RUN_KEYS).isdisjoint(config.content())
