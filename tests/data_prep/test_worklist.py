"""Splits and shards are settled by the list of files alone."""

from pathlib import Path

import pytest

from data_prep.sources import Source, list_sources
from data_prep.worklist import make_units


def sources(count: int) -> list[Source]:
    names = [f"{number:04d}.mp4" for number in range(count)]
    return [Source(f"/nowhere/{name}", f"in/{name}", name) for name in names]


def names_in(units, split: str) -> list[str]:
    return [source.split_name for unit in units if unit.split == split for source in unit.sources]


def test_every_source_is_in_one_shard_and_order_is_kept():
    units = make_units(sources(57), sources_per_shard=10, val_fraction=0.2)
    train, val = names_in(units, "train"), names_in(units, "val")
    assert sorted(train + val) == [source.split_name for source in sources(57)]
    assert train == sorted(train) and val == sorted(val)
    assert all(len(unit.sources) <= 10 for unit in units)
    assert len({unit.stem for unit in units}) == len(units)


def test_val_is_about_its_fraction_and_adding_sources_moves_none():
    few = make_units(sources(400), sources_per_shard=50, val_fraction=0.1)
    many = make_units(sources(500), sources_per_shard=50, val_fraction=0.1)
    assert 0.05 < len(names_in(few, "val")) / 400 < 0.15
    assert set(names_in(few, "val")) <= set(names_in(many, "val"))
    assert set(names_in(few, "train")) <= set(names_in(many, "train"))


@pytest.mark.parametrize(("count", "fraction", "expected"), [(3, 0.001, 1), (1, 0.5, 0), (3, 0.0, 0)])
def test_a_small_dataset_has_one_source_for_validation(count: int, fraction: float, expected: int):
    units = make_units(sources(count), sources_per_shard=50, val_fraction=fraction)
    assert len(names_in(units, "val")) in ({expected} if fraction != 0.5 else {0, 1})


def test_the_same_bytes_are_used_once(tmp_path: Path):
    for name, content in {"a": b"11", "b": b"22", "c": b"11", "d": b"333", "e": b"", "f": b""}.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    units = make_units(list_sources([str(tmp_path)]), sources_per_shard=50, val_fraction=0)
    repeats = {source.split_name: source.fault for source in units[0].sources if source.fault}
    assert repeats == {"c.mp4": f"repeats another source: same bytes as {tmp_path.name}/a.mp4"}
