"""A folder holds one ablation: what does not belong to it is refused, and nothing else is ever removed."""

from __future__ import annotations

import json

import pytest

from live2diff.errors import UsageError
from train.ablate.folder import Folder, Updates
from train.ablate.settings import AblateSettings

SETTINGS = AblateSettings.of([])


@pytest.fixture
def out(tmp_path):
    Folder(tmp_path / "out", SETTINGS).begin(Updates(3, 6))
    (tmp_path / "out/rows").mkdir()
    return tmp_path / "out"


def test_other_seeds_and_updates_are_the_same_ablation(out) -> None:
    assert Folder(out, AblateSettings.of(["seeds=5", "updates=9"])).updates == Updates(3, 6)


@pytest.mark.parametrize("word", ["clips=5", "seconds=3", "scenes=2", "frames=20", "steps=[30,40]"])
def test_other_settings_are_refused_or_replace_it(out, word: str) -> None:
    with pytest.raises(UsageError, match=f"was begun with {word.split('=')[0]}=.*--overwrite") as error:
        Folder(out, AblateSettings.of([word]))
    assert "\n" not in str(error.value) and (out / "rows").exists()
    folder = Folder(out, AblateSettings.of([word]), overwrite=True)
    assert folder.updates is None and (out / "rows").exists()  # what is refused later costs nothing
    folder.begin(None)
    assert not (out / "rows").exists()


def test_a_folder_in_which_nothing_was_made_takes_other_settings(out) -> None:
    (out / "rows").rmdir()
    assert Folder(out, AblateSettings.of(["clips=5"])).updates is None


def test_other_toy_weights_are_refused(out, monkeypatch) -> None:
    monkeypatch.setattr("train.ablate.folder._weights", lambda: "others")
    with pytest.raises(UsageError, match="other toy weights"):
        Folder(out, SETTINGS)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": "other"}'])
def test_what_is_no_ablation_is_left_alone(tmp_path, text: str | None) -> None:
    (tmp_path / "photo.jpg").touch()
    if text is not None:
        (tmp_path / "settings.json").write_text(text)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="no folder of an ablation"):
            Folder(tmp_path, SETTINGS, overwrite)
    assert (tmp_path / "photo.jpg").exists()
    with pytest.raises(UsageError, match="no folder of an ablation"):
        Folder(tmp_path / "photo.jpg", SETTINGS)


@pytest.mark.parametrize("updates", [3, {}, {"stage1": "x", "stage2": 1, "budget": None, "seconds": []}])
def test_damaged_settings_are_one_line(out, updates) -> None:
    path = out / "settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "updates": updates}))
    with pytest.raises(UsageError, match="settings.json: is damaged"):
        Folder(out, SETTINGS)
