"""The toy world: what it draws is exact, smooth, named truly and written whole."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from live2diff.errors import DataError, UsageError
from live2diff.toy import (
    LOOKS,
    MAX_CAPTION,
    SPLITS,
    Scene,
    caption,
    frames,
    inverse_depth,
    read_depth,
    render,
    write_videos,
)
from live2diff.toy.looks import COLOURS, OUTLINE
from live2diff.toy.scene import FOCAL, PIVOT, WALL_DEPTH, Card, Motion
from live2diff.toy.shapes import SHAPES
from live2diff.toy.view import View
from live2diff.video import VideoReader

SIZE = (64, 64)
SEEDS = range(12)


def mask(scene: Scene, card: Card, t: float, size: tuple[int, int] = SIZE, inset: float = 0.0) -> np.ndarray:
    """Pixels (H, W) that lie on the card; with `inset` (card radii), by that far and off its mark."""
    view = View(scene, t, size)
    seen = view.card(card)
    on, mark = seen.edge() < -inset, seen.mark()
    if inset > 0 and mark is not None:
        on &= mark > seen.pixel
    full = np.zeros(size[::-1], bool)
    full[seen.rows, seen.cols] = on
    return full


def still(scene: Scene, card: Card) -> Scene:
    """That card alone, turning in place in the middle under a camera at rest."""
    motion = Motion("drift", (0.0, 0.0), (0.0, 0.0), 1.0, (0.0, 0.0))
    camera = replace(scene.camera, reach=(0.0, 0.0, 0.0))
    return replace(scene, cards=(replace(card, motion=motion),), camera=camera)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def test_a_seed_is_a_scene() -> None:
    assert Scene.sample(5) == Scene.sample(5)
    assert len({repr(replace(Scene.sample(seed), seed=0)) for seed in range(200)}) == 200
    for look in LOOKS:
        a, b = (render(Scene.sample(5), 1.3, SIZE, look) for _ in range(2))
        assert a.dtype == np.uint8 and a.shape == (64, 64, 3) and np.array_equal(a, b)
    with pytest.raises(UsageError, match="seed -1"):
        Scene.sample(-1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_wide_picture_shows_the_square_one_in_its_middle(seed: int) -> None:
    scene = Scene.sample(seed)
    for look in LOOKS:
        wide, square = render(scene, 2.0, (112, 64), look), render(scene, 2.0, SIZE, look)
        assert np.array_equal(wide[:, 24:88], square)
    assert np.array_equal(inverse_depth(scene, 2.0, (112, 64))[:, 24:88], inverse_depth(scene, 2.0, SIZE))


def test_the_nearer_card_covers_the_farther_one() -> None:
    pairs = 0
    for seed in range(40):
        scene = Scene.sample(seed)
        for t in (0.0, 1.7, 4.4):
            picture, depth = render(scene, t, SIZE, "cartoon"), inverse_depth(scene, t, SIZE)
            for i, near in enumerate(scene.cards):
                front = mask(scene, near, t, inset=OUTLINE + 0.1)
                for nearer in scene.cards[:i]:
                    front &= ~mask(scene, nearer, t, inset=-0.1)
                for far in scene.cards[i + 1 :]:
                    both = front & mask(scene, far, t)
                    if both.any():
                        pairs += 1
                        assert 1 / depth[both].max() < far.depth - scene.camera.at(t)[2]
                        assert np.ptp(depth[both]) == 0
                        paint = COLOURS[near.colour].ravel() * 255
                        assert np.abs(picture[both] - paint).max() <= 1
    assert pairs > 30


def test_depth_is_that_of_the_points_seen() -> None:
    rng = np.random.default_rng(0)
    for seed in SEEDS:
        scene, t, size = Scene.sample(seed), 3.1, (192, 192)
        depth, (cx, cy, cz) = inverse_depth(scene, t, size), scene.camera.at(t)
        cards = np.any([mask(scene, card, t, size) for card in scene.cards], axis=0)
        hits = 0
        for x, y in rng.uniform(-2.5, 2.5, (50, 2)):  # points of the wall, projected forwards
            z = WALL_DEPTH - scene.wall.slope[0] * x - scene.wall.slope[1] * y
            u = FOCAL * ((x - cx) / (z - cz) + cx / PIVOT)
            v = FOCAL * ((y - cy) / (z - cz) + cy / PIVOT)
            row, col = int((v + 1) * 96), int((u + 1) * 96)
            if 0 <= row < 192 and 0 <= col < 192 and not cards[row, col]:
                hits += 1
                assert depth[row, col] == pytest.approx(1 / (z - cz), abs=1e-3)
        assert hits > 10


@pytest.mark.parametrize("size", [SIZE, (128, 64), (64, 128)])
def test_cards_stand_before_a_slanted_wall(size: tuple[int, int]) -> None:
    for seed in range(60):
        scene = Scene.sample(seed)
        for t in np.arange(0.0, 12.0, 2.3):
            depth, wall = inverse_depth(scene, t, size), View(scene, t, size).wall_inverse_depth()
            cards = np.any([mask(scene, card, t, size) for card in scene.cards], axis=0)
            assert depth.dtype == np.float32 and depth.shape == size[::-1]
            assert depth.min() > 0 and depth.max() < 1
            assert np.array_equal(depth[~cards], wall[~cards])
            assert depth[cards].min() > wall.max()
            assert np.ptp(wall) > 0.02


def test_both_looks_draw_the_same_cards_in_unlike_paint() -> None:
    for seed in SEEDS:
        scene, t = Scene.sample(seed), 0.8
        bare = replace(scene, cards=())
        cards = np.any([mask(scene, card, t) for card in scene.cards], axis=0)
        around = np.any([mask(scene, card, t, inset=-0.15) for card in scene.cards], axis=0)
        changed = {
            look: np.abs(render(scene, t, SIZE, look) - render(bare, t, SIZE, look).astype(int)).max(2) > 8
            for look in LOOKS
        }
        assert changed["cartoon"][cards].mean() > 0.9 and changed["photo"][cards].mean() > 0.9
        assert not changed["cartoon"][~around].any()  # a cartoon throws no shadow
        photo, cartoon = (render(scene, t, SIZE, look).astype(int) for look in ("photo", "cartoon"))
        assert np.abs(photo - cartoon).mean() > 40


@pytest.mark.parametrize("look", ["photo", "cartoon"])
def test_a_card_shows_its_colour(look: str) -> None:
    names = list(COLOURS)
    paints = np.array([COLOURS[name].ravel() for name in names])
    paints /= np.linalg.norm(paints, axis=1, keepdims=True)
    for seed in range(30):
        scene = Scene.sample(seed)
        for card in scene.cards:
            alone = still(scene, card)
            mean = render(alone, 0.0, SIZE, look)[mask(alone, alone.cards[0], 0.0, inset=0.15)].mean(0)
            assert names[int(np.argmax(paints @ mean))] == card.colour


def test_motion_is_smooth_and_real() -> None:
    for seed in SEEDS:
        scene = Scene.sample(seed)
        for look in LOOKS:
            now, soon, later = (render(scene, 1 + dt, SIZE, look).astype(int) for dt in (0, 0.002, 1 / 8))
            assert np.abs(soon - now).mean() < 1
            assert np.abs(later - now).mean() > 2


def test_a_card_glides_without_jitter() -> None:
    # Centre of mass of a card before a plain wall, followed over a quarter of a second. Blue paint and its
    # outline are about as dark in the red channel, so that every pixel weighs what the card covers of it.
    scene = Scene.sample(0)
    wall = replace(scene.wall, pattern="stripes", pitch=1e6, origin=(0.0, 0.0), angle=0.0)
    path = Motion("drift", (0.0, 0.0), (0.3, 0.3), 3.0, (0.0, 0.0))
    for shape in SHAPES:
        card = replace(scene.cards[0], shape=shape, colour="blue", motion=path)
        alone, bare = replace(scene, wall=wall, cards=(card,)), replace(scene, wall=wall, cards=())
        times = np.linspace(1.0, 1.25, 31)
        centres = []
        for t in times:
            weight = render(bare, t, SIZE, "cartoon")[..., 0] - render(alone, t, SIZE, "cartoon")[..., 0]
            centres.append([(weight * i).sum() / weight.sum() for i in np.mgrid[:64, :64]])
        smooth = np.polynomial.Polynomial.fit
        for track in np.array(centres).T:
            assert np.ptp(track) > 0.3
            assert np.abs(smooth(times, track, 3)(times) - track).max() < 0.05  # pixels


@pytest.mark.parametrize("look", ["photo", "cartoon"])
def test_every_card_moves_turns_and_stays_in_view(look: str) -> None:
    for seed in range(25):
        scene = Scene.sample(seed)
        assert 2 <= len(scene.cards) <= 4
        for card in scene.cards:
            path = np.array([card.motion.at(t) for t in np.arange(0, 1.01, 1 / 16)])
            assert np.hypot(*np.diff(path, axis=0).T).sum() > 0.1
            spot = still(scene, card)
            on = mask(spot, spot.cards[0], 0.0)
            turned = np.abs(render(spot, 0.0, SIZE, look).astype(int) - render(spot, 0.6, SIZE, look))
            assert turned[on].max() > 50
            area = [mask(scene, card, t).sum() for t in np.arange(0, 20, 0.5)]
            assert np.mean(area) > 0.8 * on.sum() and min(area) > 0.35 * on.sum()


def test_captions_are_short_and_plain() -> None:
    texts = [caption(Scene.sample(seed), look) for seed in range(1000) for look in LOOKS]
    assert max(map(len, texts)) <= MAX_CAPTION <= 75
    assert all(text.isascii() and text == text.lower() and "\n" not in text for text in texts)
    assert len(set(texts)) > 1500
    assert caption(Scene.sample(0), "photo") == "a photo of a pink moon and a yellow square on clouds"


def test_captions_name_what_is_visible() -> None:
    for seed in range(40):
        scene = Scene.sample(seed)
        text = caption(scene, "cartoon")
        named = [card for card in scene.cards if f"{card.colour} {card.shape}" in text]
        assert len(named) >= 2 and named == list(scene.cards[: len(named)])
        assert text.startswith("a cartoon of a") and text.endswith(f" on {scene.wall.pattern}")
        clip = [render(scene, t, SIZE, "cartoon") for t in np.arange(0, 3, 0.25)]
        for card in named:
            paint = COLOURS[card.colour].ravel() * 255
            seen = [(np.abs(picture - paint).max(2) <= 1).sum() for picture in clip]
            assert np.mean(seen) > 40  # pixels of 64 x 64


def test_unknown_looks_and_sizes_are_refused() -> None:
    scene = Scene.sample(0)
    for call in (lambda: render(scene, 0.0, SIZE, "oil"), lambda: caption(scene, "oil")):
        with pytest.raises(UsageError, match="'oil'.*photo, cartoon"):
            call()
    for size in ((8, 64), (64, 256)):
        with pytest.raises(UsageError, match=f"{size[0]}x{size[1]}"):
            inverse_depth(scene, 0.0, size)


def test_frames_are_rendered_frames() -> None:
    times = [0.0, 0.5, 7.25]
    rgb, depth = frames(9, times, (80, 64), "photo")
    assert rgb.shape == (3, 64, 80, 3) and depth.shape == (3, 64, 80)
    assert np.array_equal(rgb[2], render(Scene.sample(9), 7.25, (80, 64), "photo"))
    assert np.array_equal(depth[1], inverse_depth(Scene.sample(9), 0.5, (80, 64)))


@pytest.mark.parametrize("look", ["photo", "cartoon"])
def test_files_hold_what_was_rendered(tmp_path, look: str) -> None:
    paths = write_videos(tmp_path, 3, seed=40, seconds=1.5, fps=Fraction(12), size=(96, 80), look=look)
    assert [path.name for path in paths] == ["toy_000040.mp4", "toy_000041.mp4", "toy_000042.mp4"]
    assert len(list(tmp_path.iterdir())) == 9
    luma = np.array([0.299, 0.587, 0.114])
    for path, seed in zip(paths, (40, 41, 42), strict=True):
        scene = Scene.sample(seed)
        assert path.with_suffix(".txt").read_text() == caption(scene, look) + "\n"
        with VideoReader(path) as video:
            assert video.fps == 12 and video.size == (96, 80)
            decoded = np.stack(list(video))
        rgb, depth = frames(seed, np.arange(18) / 12, (96, 80), look)
        assert decoded.shape == rgb.shape
        # Half the colour resolution is what 4:2:0 leaves of flat, saturated paint: luma is the stricter test.
        assert psnr(decoded, rgb) > (32 if look == "photo" else 28)
        assert min(psnr(a @ luma, b @ luma) for a, b in zip(decoded, rgb, strict=True)) > 36
        assert np.abs(read_depth(path) - depth).max() < 8e-6


def test_the_same_call_writes_the_same_bytes(tmp_path) -> None:
    def contents(folder: str, **options) -> dict[str, bytes]:
        write_videos(tmp_path / folder, 2, seconds=0.5, **options)
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    first = contents("a", seed=7)
    assert contents("b", seed=7) == first
    shifted = contents("c", seed=8, depth=False)
    assert set(shifted) == {f"toy_00000{i}.{suffix}" for i in (8, 9) for suffix in ("mp4", "txt")}
    assert shifted["toy_000008.mp4"] == first["toy_000008.mp4"]  # a scene does not depend on its batch


def test_bad_requests_write_nothing(tmp_path) -> None:
    requests: list[tuple[dict[str, Any], str]] = [
        ({"seed": SPLITS["val"] - 1}, "split 'val'"),
        ({"seconds": 0.01}, "no frame"),
        ({"size": (65, 64)}, "even"),
        ({"size": (64, 256)}, "2:1"),
        ({"look": "oil"}, "'oil'"),
    ]
    for options, message in requests:
        with pytest.raises(UsageError, match=message):
            write_videos(tmp_path / "none", 2, **options)
    assert not (tmp_path / "none").exists()


def test_depth_that_is_not_ours_is_refused(tmp_path) -> None:
    path = tmp_path / "toy_000001.depth.npy"
    with pytest.raises(DataError, match="toy_000001"):
        read_depth(path)
    for bad in (np.zeros((2, 3), np.uint16), np.zeros((2, 3, 4)), np.array([{}], dtype=object)):
        np.save(path, bad, allow_pickle=True)
        with pytest.raises(DataError, match="toy_000001"):
            read_depth(path)
    bomb = io.BytesIO()  # a header that promises far more than follows
    header = {"descr": "<u2", "fortran_order": False, "shape": (10**9, 10**4, 9)}
    np.lib.format.write_array_header_1_0(bomb, header)
    np.save(path, np.zeros((9, 2, 2), np.uint16))
    for content in (b"", b"not an array", path.read_bytes()[:-8], bomb.getvalue()):
        path.write_bytes(content)
        with pytest.raises(DataError, match="toy_000001"):
            read_depth(path)


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, live2diff.toy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
