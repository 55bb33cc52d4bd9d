"""Videos in WebDataset tars: found by their headers, copied by offset, whatever their names."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from data_prep.sources import SourceError, list_sources
from live2diff.errors import UsageError


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_members_are_sources_with_the_captions_beside_them(tmp_path: Path):
    members = [
        ("0.mp4", b"first"),
        ("0.txt", b"one\n"),
        ("1.json", json.dumps({"caption": "two", "text": "no"}).encode()),
        ("1.webm", b"second"),
        ("2.mp4", b"third"),
        ("2.json", json.dumps({"my": "three", "caption": "no"}).encode()),
        ("3.jpg", b"a picture"),
        ("4.mp4", b"fourth"),
        ("4.json", b"{broken"),
        ("sub/0.mp4", b"fifth"),
        ("notes.txt", b"of nothing"),
    ]
    write_tar(tmp_path / "in/set.tar", members)
    found = list_sources([str(tmp_path / "in")], caption_column="my")
    assert [(s.uri, s.caption, s.caption_source) for s in found] == [
        ("in/set.tar/0.mp4", "one", "tar"),
        ("in/set.tar/1.webm", "two", "tar"),
        ("in/set.tar/2.mp4", "three", "tar"),
        ("in/set.tar/4.mp4", "", "none"),
        ("in/set.tar/sub/0.mp4", "fifth"[:0], "none"),
    ]
    for source, data in zip(found, (b"first", b"second", b"third", b"fourth", b"fifth"), strict=True):
        path, sha1 = source.fetch(tmp_path, 100)
        assert Path(path).read_bytes() == data and sha1 == source.sha1()
        assert Path(path).parent == tmp_path and source.side_car() == ""


def test_names_that_lead_out_stay_names(tmp_path: Path):
    members = [(name, b"evil") for name in ("../../out.mp4", "/etc/abs.mp4", "a/../../b.mp4")]
    write_tar(tmp_path / "in/evil.tar", members, tarfile.PAX_FORMAT)
    with tarfile.open(tmp_path / "in/evil.tar", "a") as tar:
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = list_sources([str(tmp_path / "in")])
    names = ["in/evil.tar/b.mp4", "in/evil.tar/etc/abs.mp4", "in/evil.tar/out.mp4"]
    assert [source.uri for source in found] == names
    (tmp_path / "job").mkdir()
    for source in found:
        source.fetch(tmp_path / "job", 100)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"in/evil.tar", "job/input.mp4"}


def test_damage_is_a_rejected_input_and_what_comes_before_it_is_used(tmp_path: Path):
    path = write_tar(tmp_path / "in/cut.tar", [(f"{n}.mp4", b"x" * 2000) for n in range(4)])
    path.write_bytes(path.read_bytes()[:6000])  # within the third
    found = list_sources([str(tmp_path / "in")])
    assert [source.uri.rpartition("/")[2] for source in found] == ["cut.tar", "0.mp4", "1.mp4", "2.mp4"]
    assert "damaged after 3 members: unexpected end of data" in str(found[0].fault)
    with pytest.raises(SourceError, match="the tar ends 1"):
        found[3].fetch(tmp_path, 9999)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\0" * 100, b"x" * 5000])
def test_what_is_no_tar_is_a_rejected_input(tmp_path: Path, content: bytes):
    (tmp_path / "a.tar").write_bytes(content)
    (tmp_path / "b.mp4").write_bytes(b"x")
    first, second = list_sources([str(tmp_path)])
    assert first.uri.endswith("a.tar") and "damaged after 0 members" in str(first.fault)
    assert second.fault is None


def test_an_empty_tar_is_noted(tmp_path: Path):
    notes: list[str] = []
    write_tar(tmp_path / "in/none.tar", [("a.jpg", b"x")])
    (tmp_path / "in/b.mp4").write_bytes(b"x")
    list_sources([str(tmp_path / "in")], note=notes.append)
    assert notes == [f"{tmp_path / 'in/none.tar'}: holds no video"]


def test_a_header_that_states_gigabytes_takes_no_memory(tmp_path: Path):
    """A long-name header is read into memory by its stated size."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 6 << 30
    path = tmp_path / "bomb.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with open(path, "ab") as file:
        file.truncate(7 << 30)  # sparse: takes no space
    (source,) = list_sources([str(path)])
    assert "a header of" in str(source.fault)
    path.unlink()


def test_copies_are_limited_and_compressed_tars_refused(tmp_path: Path):
    (source,) = list_sources([str(write_tar(tmp_path / "a.tar", [("0.mp4", b"x" * 5000)]))])
    with pytest.raises(SourceError, match="too large to copy"):
        source.fetch(tmp_path, 4999)
    assert not (tmp_path / "input.mp4").exists()
    (tmp_path / "b.tar.gz").write_bytes(b"x")
    with pytest.raises(UsageError, match="b.tar.gz: is a compressed tar; unpack it first"):
        list_sources([str(tmp_path / "b.tar.gz")])


def test_the_same_bytes_in_two_tars_are_used_once(tmp_path: Path):
    from data_prep.worklist import make_units

    for name in ("a", "b"):
        write_tar(tmp_path / f"in/{name}.tar", [("0.mp4", b"same"), ("1.mp4", name.encode() * 4)])
    (unit,) = make_units(list_sources([str(tmp_path / "in")]), sources_per_shard=9, val_fraction=0)
    faults = {source.uri: source.fault for source in unit.sources if source.fault}
    assert faults == {"in/b.tar/0.mp4": "repeats another source: same bytes as in/a.tar/0.mp4"}
