"""From what results say of their making: how to repeat it, and how its frames were brought to one size."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast, get_args

from live2diff.config import compose
from live2diff.eval.pairs import Rule
from live2diff.eval.results import Results
from live2diff.stream.fit import Fit

_LARGEST = 1 << 14  # side of a frame, pixels
_PLAIN = re.compile(r"[\w./:@-]+")  # words that Hydra takes without quotes


def commands(results: Results, out: str) -> list[str]:
    """Command lines that measure the same again, and that compare the two.

    Only settings that are not the usual ones are named.
    """
    made = "--export" if "model" in results.environment else "--pred"
    run = ["live2diff", "eval", "run"]
    run += ["--source", results.source] if results.source else []
    run += [made, results.pred, "--out", f"{out}-again"]
    given = _settings(results)
    for key, usual in _usual().items():
        if key in given and _plain(given[key]) != _plain(usual):
            run.append(f"{key}={_plain(given[key])}")
    compare = ["live2diff", "eval", "compare", f"{out}/results.json", f"{out}-again/results.json"]
    return [shlex.join(run), shlex.join(compare)]


def rule_of(results: Results) -> Rule:
    """How frames were brought to one size; the usual rule where the results do not say."""
    given = _settings(results)
    size, fit = given.get("size"), given.get("fit")
    rule = Rule(fit=cast(Fit, fit)) if fit in get_args(Fit) else Rule()
    if (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(type(n) is int and 0 < n <= _LARGEST for n in size)
    ):
        rule = replace(rule, size=(size[0], size[1]))
    return rule


def _usual() -> dict[str, Any]:
    from omegaconf import OmegaConf

    return cast(dict[str, Any], OmegaConf.to_container(compose("eval")))


def _settings(results: Results) -> Mapping[str, Any]:
    found = results.environment.get("settings")
    return found if isinstance(found, Mapping) else {}


def _plain(value: Any) -> str:
    """A setting's value as Hydra's command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_plain, value))}]"
    text = str(value)
    if not isinstance(value, str) or _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
