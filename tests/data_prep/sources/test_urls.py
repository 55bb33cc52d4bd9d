"""Sources behind URLs, by fsspec's memory and file systems: no network."""

import io
import json
import tarfile
from pathlib import Path

import fsspec
import pytest

from data_prep.sources import SourceError, list_sources
from data_prep.sources.places import reason
from live2diff.errors import SetupError, UsageError


@pytest.fixture
def memory():
    """memory(name, data) puts a file into fsspec's memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()

    def put(name: str, data: bytes) -> None:
        system.pipe(name, data)

    yield put
    system.store.clear()


def test_folders_globs_and_files(memory, tmp_path: Path):
    for name in ("a.mp4", "x/b.webm", "x/notes.txt", ".hidden/c.mp4"):
        memory(f"/bucket/{name}", name.encode())
    memory("/bucket/a.txt", b"a fox\n")
    found = list_sources(["memory://bucket"])
    assert [(s.uri, s.split_name, s.bytes) for s in found] == [
        ("memory:///bucket/a.mp4", "a.mp4", 5),
        ("memory:///bucket/x/b.webm", "x/b.webm", 8),
    ]
    assert [source.side_car() for source in found] == ["a fox", ""]
    path, _ = found[1].fetch(tmp_path, 100)
    assert path == str(tmp_path / "input.webm") and Path(path).read_bytes() == b"x/b.webm"
    assert [s.uri for s in list_sources(["memory://bucket/**/*.webm"])] == ["memory:///bucket/x/b.webm"]
    assert [s.uri for s in list_sources(["memory://bucket/a.mp4"])] == ["memory:///bucket/a.mp4"]


def test_tables_and_tars(memory, tmp_path: Path):
    memory("/bucket/videos/a.mp4", b"first")
    memory("/bucket/list.csv", b"path,caption\nvideos/a.mp4,one\nmemory://bucket/gone.mp4,two\n")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as writer:
        for name, data in (("0.mp4", b"second"), ("0.json", json.dumps({"text": "three"}).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            writer.addfile(info, io.BytesIO(data))
    memory("/bucket/set.tar", tar.getvalue())
    (tmp_path / "here.csv").write_text("path,caption\nmemory://bucket/videos/a.mp4,one\n")
    found = {s.uri: s for s in list_sources(["memory://bucket/list.csv", "memory://bucket/set.tar"])}
    assert {uri: (s.caption, s.bytes) for uri, s in found.items()} == {
        "memory:///bucket/videos/a.mp4": ("one", 5),
        "memory:///bucket/gone.mp4": ("two", None),
        "memory:///bucket/set.tar/0.mp4": ("three", 6),
    }
    with pytest.raises(SourceError, match="cannot be read"):
        found["memory:///bucket/gone.mp4"].fetch(tmp_path, 100)
    path, _ = found["memory:///bucket/set.tar/0.mp4"].fetch(tmp_path, 100)
    assert Path(path).read_bytes() == b"second"
    (source,) = list_sources([str(tmp_path / "here.csv")])
    assert (source.path, source.caption) == ("memory:///bucket/videos/a.mp4", "one")


def test_file_urls_are_local_paths(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert list_sources([f"file://{tmp_path}/a.mp4"]) == list_sources([str(tmp_path / "a.mp4")])


def test_a_url_keeps_no_secrets_in_its_name(memory, tmp_path: Path):
    table = tmp_path / "t.jsonl"
    table.write_text('{"path": "https://me:pw@127.0.0.1:9/v/a.mp4?X-Signature=secret"}\n')
    (source,) = list_sources([str(table)])
    assert source.uri == source.split_name == "https://127.0.0.1:9/v/a.mp4"
    assert source.bytes is None  # nobody answers; the build will say so
    assert source.side_car() == ""
    leaky = ValueError("403 of 'https://me:pw@h/a.mp4?X-Signature=secret', sorry")
    assert reason(leaky) == "403 of 'https://h/a.mp4', sorry"


def test_a_server_that_fails_is_asked_again_and_then_is_a_reason(memory, tmp_path: Path, monkeypatch):
    import data_prep.sources.source as module

    memory("/bucket/a.mp4", b"data")
    (source,) = list_sources(["memory://bucket/a.mp4"])
    real, failures, waited = module.open_place, [TimeoutError("no answer")] * 2, []
    monkeypatch.setattr(module.time, "sleep", waited.append)

    def flaky(place):
        if failures:
            raise failures.pop()
        return real(place)

    monkeypatch.setattr(module, "open_place", flaky)
    assert Path(source.fetch(tmp_path, 10)[0]).read_bytes() == b"data" and waited == [1, 2]
    failures += [TimeoutError("no answer")] * 3
    with pytest.raises(SourceError, match="cannot be read: no answer"):
        source.fetch(tmp_path, 10)
    with pytest.raises(SourceError, match="too large to copy"):
        source.fetch(tmp_path, 3)


def test_wrong_urls_are_named(memory):
    memory("/bucket/notes.txt", b"x")
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        list_sources(["memory://nowhere"])
    with pytest.raises(UsageError, match="holds no video"):
        list_sources(["memory://bucket"])
    with pytest.raises(UsageError, match="nosuch://x"):
        list_sources(["nosuch://x/y.mp4"])
    with pytest.raises(SetupError, match="needs a package"):
        list_sources(["dropbox://x/y.mp4"])
