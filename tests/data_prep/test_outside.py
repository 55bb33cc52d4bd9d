"""A video may name other files and addresses. None of them is opened: not by the child, whatever the form.

Each hostile file points at a web server that counts its visitors, or at a pipe that blocks whoever opens it.
"""

import os
import shutil
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import pytest

from data_prep.children import Children
from tests.data_prep.videos import blocks

ROOT = Path(__file__).parents[2]
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
TEXTS = {
    "hls.mp4": HLS,
    "hls.m3u8": HLS,
    "master.mp4": '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n#EXT-X-MEDIA:TYPE=VIDEO,URI="{}"\n',
    "list.mp4": "ffconcat version 1.0\nfile '{}'\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
    'bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>\n',
    "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\na=control:{}\nm=video 9 RTP/AVP 96\n",
    "asx.mp4": '<ASX version="3.0"><ENTRY><REF HREF="{}"/></ENTRY></ASX>\n',
    "reference.asf": "[Reference]\nRef1={}\n",
    "list.pls": "[playlist]\nFile1={}\nNumberOfEntries=1\n",
    "link.mp4": "file:{}\n",
    "image.mp4": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{}"/></svg>\n',
}


@pytest.fixture
def visits():
    """Requests to a web server on this machine, and its address as the last item's `url`."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield seen, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A pipe without a writer: opening it to read never returns."""
    os.mkfifo(tmp_path / "trap.mp4")
    return tmp_path / "trap.mp4"


def test_playlists_and_pages_open_nothing(tmp_path: Path, visits, trap: Path):
    seen, url = visits
    paths = []
    for number, target in enumerate((url, str(trap), f"file:{trap}", f"concat:{trap}|{trap}")):
        (tmp_path / str(number)).mkdir()
        for name, text in TEXTS.items():
            paths.append(tmp_path / str(number) / name)
            paths[-1].write_text(text.replace("{}", f"{target}/{name}" if target == url else target))
    code = (
        "import sys\n"
        "from data_prep.decode import RejectedError, open_video\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        with open_video(path): print('opened', path)\n"
        "    except RejectedError: print('rejected')\n"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["rejected"] * len(paths), done.stdout + done.stderr
    assert seen == []


def test_the_server_would_notice(tmp_path: Path, visits):
    """The same playlist, opened the careless way, does reach the server: the test above can fail."""
    seen, url = visits
    (tmp_path / "hls.mp4").write_text(HLS.format(f"{url}/x.ts"))
    with pytest.raises((av.FFmpegError, OSError)):
        options = {"protocol_whitelist": "file,http,tcp", "extension_picky": "0"}
        av.open(str(tmp_path / "hls.mp4"), format="hls", options=options)
    assert seen


@pytest.mark.parametrize("name", ["http:x", "concat:trap.mp4", "file,trap.mp4", "pipe:0", "%03d.mp4", "-i"])
def test_a_file_name_is_a_name_and_no_address(
    movie, tmp_path: Path, tiny, trap: Path, monkeypatch, name: str
):
    path = movie("real.mp4", blocks(60, 0))
    os.rename(path, path.parent / name)
    monkeypatch.chdir(path.parent)
    (tmp_path / "job").mkdir()
    result = Children(tiny).run(name, tmp_path / "job")
    assert [clip["frames"] for clip in result["clips"]] == [20]


def test_a_track_that_lies_in_another_file_is_not_followed(movie, tmp_path: Path, tiny, trap: Path):
    path, other = movie("real.mp4", blocks(60, 0)), tmp_path / "other.mp4"
    data = path.read_bytes()
    path.write_bytes(with_data_reference(data, str(trap)))
    (tmp_path / "job").mkdir()
    assert Children(tiny).run(str(path), tmp_path / "job") == {
        "rejected": "no good frame: the stream is empty",
        "facts": {},
    }
    # The reference is a good one: where it is allowed, the samples are read from the other file.
    path.write_bytes(with_data_reference(data, str(other)))
    shutil.copy(path, other)
    for allowed in ("0", "1"):
        options = {"enable_drefs": allowed, "use_absolute_path": allowed}
        with av.open(str(path), options=options) as container:
            assert len(list(container.decode(video=0))) == 60 * int(allowed)


def with_data_reference(data: bytes, target: str) -> bytes:
    """An MP4 whose video track says that its samples lie in the file `target` (a QuickTime alias record)."""
    end = b"\xff\xff\x00\x00"
    name = target.encode()
    record = struct.pack(">HH", 2, len(name)) + name + b"\x00" * (len(name) % 2) + end
    alias = bytes(10) + b"\x01v" + bytes(26) + bytes(12) + b"\x01f" + bytes(62) + bytes(16)
    alias += struct.pack(">HH", 0, 0) + bytes(16) + record
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    dref = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    place = data.index(b"dref") - 4
    old = struct.unpack_from(">I", data, place)[0]
    grown = bytearray(data[:place] + dref + data[place + old :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        begin = data.index(box) - 4
        struct.pack_into(">I", grown, begin, struct.unpack_from(">I", grown, begin)[0] + len(dref) - old)
    if data.index(b"moov") < data.index(b"mdat"):  # the samples moved back
        begin = grown.index(b"stco") + 8
        for number in range(struct.unpack_from(">I", grown, begin)[0]):
            offset = begin + 4 + 4 * number
            struct.pack_into(
                ">I", grown, offset, struct.unpack_from(">I", grown, offset)[0] + len(dref) - old
            )
    return bytes(grown)
