"""When changes are due, and what can be said on a command line."""

from fractions import Fraction

import pytest

from live2diff.errors import UsageError
from live2diff.stream.script import Change, Cue, Script, lora_cue, prompt_cue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t=3s: a street", Cue(Change("a street"), seconds=Fraction(3))),
        ("t=0.5: at 8:30, t=9s: no cue", Cue(Change("at 8:30, t=9s: no cue"), seconds=Fraction(1, 2))),
        (" frame=90:snow ", Cue(Change("snow"), frame=90)),
    ],
)
def test_prompts(text, expected):
    assert prompt_cue(text, 0, "keep") == expected


def test_loras():
    cue = lora_cue("frame=7: ink=0.25, wash_2=-1")
    assert cue == Cue(Change(loras={"ink": 0.25, "wash_2": -1.0}), frame=7)


@pytest.mark.parametrize(
    "text", ["3s: a", "t=3s", "t=3s:", "t=-1s: a", "frame=1.5: a", "t=3m: a", "", "t=: a"]
)
def test_what_is_no_cue(text):
    with pytest.raises(UsageError, match="--prompt-at .*expected 't=3s: a winter street' or 'frame=90"):
        prompt_cue(text, 0, "keep")


@pytest.mark.parametrize(
    "text", ["t=1s: ink", "t=1s: ink=", "t=1s: =1", "t=1s: ink=nan", "t=1s: ink=1,,oil=2"]
)
def test_what_is_no_strength(text):
    with pytest.raises(UsageError, match="is not NAME=SCALE"):
        lora_cue(text)


def test_a_blend_needs_the_old_memory():
    assert prompt_cue("t=1s: a", 8, "keep").change.blend == 8
    for blend, memory in ((-1, "keep"), (8, "rewarm")):
        with pytest.raises(UsageError, match="--blend"):
            prompt_cue("t=1s: a", blend, memory)


def test_each_cue_is_played_once_at_its_first_moment():
    cues = [prompt_cue(text, 0, "keep") for text in ("t=1s: c", "frame=2: a", "frame=2: b", "t=99s: never")]
    script = Script(cues)
    played = [
        [change.prompt for change in script.due(frame, Fraction(frame, 3))] for frame in (0, 1, 2, 3, 4)
    ]
    assert played == [[], [], ["a", "b"], ["c"], []] and script.left == 1


def test_equal_cues_are_two():
    script = Script([prompt_cue("frame=0: a", 0, "keep")] * 2)
    assert len(script.due(0, Fraction(0))) == 2
