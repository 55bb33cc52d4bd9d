"""What a session's JSON may hold. The files may be anyone's: only what should be there comes through."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from live2diff.devices import DEVICE
from live2diff.model.folder import DTYPES
from live2diff.stream.pipeline import Switches
from live2diff.stream.script import Change
from live2diff.stream.setup import Setup

Rule = tuple[Callable[[Any], bool], str]  # what holds, and how a person would say it

_LONGEST = 100_000  # characters of a text
_FRACTION = re.compile(r"(\d{1,40})(?:/(\d{1,40}))?")  # no exponents: 1e1000000000 would take hours


def read(text: str) -> Any:
    """JSON without NaN and infinities, which it does not have. Raises ValueError, RecursionError."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no number")

    return json.loads(text, parse_constant=refuse)


def check_facts(facts: Any) -> None:
    """Raises ValueError: no content of `session.json`."""
    _check("session.json", facts, _FACTS, ("setup", "rate"), strict=False)


def setup_of(data: Any) -> Setup:
    """Of a `Setup.to_dict` result. Raises ValueError, UsageError: what in it cannot be, by its key."""
    _check("setup", data, _SETUP, ("export",))
    switches = data.get("switches", {})
    _check("setup.switches", switches, _SWITCHES)
    tuples = {key: tuple(data[key]) for key in ("steps", "size") if data.get(key) is not None}
    loras = tuple((name, float(scale)) for name, scale in data.get("loras", ()))
    return Setup(**{**data, **tuples, "loras": loras, "switches": Switches(**switches)})


def change_of(data: Any) -> Change:
    """Of a `Change.to_dict` result. Raises ValueError: what in it cannot be, by its key."""
    _check("change", data, _CHANGE)
    if data.get("blend") and data.get("memory", "keep") != "keep":
        raise ValueError(f"change.blend={data['blend']}: expected 0 with memory={data['memory']}")
    return Change(**data)


def shown(value: Any) -> str:
    """For a message: short, and nothing in it that a terminal would obey."""
    words = ascii(value)
    return words if len(words) <= 60 else f"{words[:57]}..."


def entry(line: Any) -> tuple[str, Any]:
    """The kind and content of a line of `log.jsonl`. Raises ValueError."""
    _check("log.jsonl", line, _ENTRY)
    if len(line) != 1:
        raise ValueError(f"log.jsonl: {shown(line)} is not one of {', '.join(_ENTRY)}")
    return next(iter(line.items()))


def fraction(value: Any, least: Fraction, most: Fraction) -> Fraction:
    """What `str` of a Fraction from `least` to `most` gives. Raises ValueError."""
    parts = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    if parts and int(parts[2] or 1):
        found = Fraction(int(parts[1]), int(parts[2] or 1))
        if least <= found <= most:
            return found
    raise ValueError(f"{shown(value)}: expected a fraction from {least} to {most}, such as 30000/1001")


def _check(
    where: str, values: Any, rules: Mapping[str, Rule], needed: tuple[str, ...] = (), strict: bool = True
) -> None:
    """Raises ValueError: no table, a key missing, a value that cannot be, and if `strict` an unknown key."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected a table of keys, not {shown(values)}")
    for key in needed:
        if key not in values:
            raise ValueError(f"{where}: {key} is missing")
    for key, value in values.items():
        if key not in rules:
            if strict:
                raise ValueError(f"{where}: unknown key {shown(key)}; update live2diff")
            continue
        holds, expected = rules[key]
        if not holds(value):
            raise ValueError(f"{where}: {key}={shown(value)}; expected {expected}")


# -- kinds of value ---------------------------------------------------------------------------------------


def _is_text(value: Any) -> bool:
    """Also to a file's name and to a tokenizer, which take no half of a character and no end of a string."""
    if not isinstance(value, str) or len(value) > _LONGEST or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_path(value: Any) -> bool:
    """Whether the system can be asked for it, be it there or not, and a message can name it."""
    try:
        return (
            _is_text(value) and value.isprintable() and value != "" and Path(value).exists() in (True, False)
        )
    except OSError:  # too long
        return False


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value) or _is_whole(value, -(2**53), 2**53)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_list(value: Any, holds: Callable[[Any], bool], count: int | None = None) -> bool:
    return isinstance(value, list) and len(value) == (count or len(value)) and all(map(holds, value))


def _is_table(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(_is_text(key) and holds(item) for key, item in value.items())


def _is_lora(value: Any) -> bool:
    return _is_list(value, lambda _: True, 2) and _is_path(value[0]) and _is_number(value[1])


def _or_null(rule: Rule) -> Rule:
    return lambda value: value is None or rule[0](value), f"null or {rule[1]}"


def _one_of(*names: str) -> Rule:
    return lambda value: value in names, f"one of {', '.join(names)}"


_BOOL: Rule = (lambda value: type(value) is bool, "true or false")
_TEXT: Rule = (_is_text, "a text")
_PATH: Rule = (_is_path, "a path")
_NUMBER: Rule = (_is_number, "a number")
_SIDES: Rule = (
    lambda value: _is_list(value, lambda side: _is_whole(side, 8, 8192) and side % 8 == 0, 2),
    "width and height, multiples of 8 up to 8192",
)
_DEVICE: Rule = (lambda value: _is_text(value) and bool(DEVICE.fullmatch(value)), "cpu, cuda or cuda:N")

_FACTS: dict[str, Rule] = {
    "rate": (lambda value: _is_list(value, _is_text, 2), "two fractions"),
    "device": _DEVICE,
    "gpu": _or_null(_TEXT),
    "threads": (lambda value: _is_whole(value, 1, 1024), "1 to 1024"),
    "identity": (
        lambda value: _is_table(value, lambda part: _is_table(part, _is_text)),
        "tables of hashes",
    ),
    "machine": (lambda value: _is_table(value, lambda _: True), "a table of keys"),
}
_SWITCHES: dict[str, Rule] = {
    "compile": _BOOL,
    "cuda_graph": _BOOL,
    "kernel": _one_of("torch", "triton"),
    "memory": _one_of("exact", "int8"),
    "overlap": _BOOL,
}
_SETUP: dict[str, Rule] = {
    "export": _PATH,
    "prompt": _TEXT,
    "steps": _or_null((lambda v: v != [] and _is_list(v, lambda i: type(i) is int), "whole numbers")),
    "strength": _or_null(_NUMBER),
    "size": _or_null(_SIDES),
    "seed": (lambda value: _is_whole(value, 0, 2**63 - 1), "0 to 2^63 - 1"),
    "noise": _one_of("fresh", "fixed"),
    "loras": (lambda value: _is_list(value, _is_lora), "[[path, scale], ...]"),
    "live_loras": _BOOL,
    "similar_frame_skip": _or_null((lambda v: _is_number(v) and 0 < v <= 1, "a number above 0, up to 1")),
    "mask": _or_null(_one_of("causal", "warmup_causal")),
    "device": _or_null(_DEVICE),
    "dtype": _or_null(_one_of(*DTYPES)),
    "switches": (lambda value: isinstance(value, dict), "a table of keys"),
}
_ENTRY: dict[str, Rule] = {
    "frame": (lambda value: _is_list(value, _is_text, 2), "time and duration"),
    "out": (_is_text, "a hash"),
    "change": (lambda value: isinstance(value, dict), "a table of keys"),
}
_CHANGE: dict[str, Rule] = {
    "prompt": _or_null(_TEXT),
    "blend": (lambda value: _is_whole(value, 0, 1_000_000), "0 to 1000000"),
    "loras": (lambda value: _is_table(value, _is_number), "numbers by name"),
    "memory": _one_of("keep", "rewarm", "restart"),
}
