"""Hydra configuration from the packaged `conf/` folder, with errors a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from live2diff.errors import UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose `conf/NAME.yaml` with `key=value` overrides.

    Uses Hydra's compose API, not its application: run folders have no timestamp, so a rerun finds its
    own work.

    Raises:
        UsageError: an unknown key or group option (the nearest known one is named), or a value still missing.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UsageError(f"{override!r}: a setting is written key=value")
    with initialize_config_module("conf", version_base="1.3"):
        try:
            config = hydra_compose(name, overrides=list(overrides))
            OmegaConf.resolve(config)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise UsageError(_explain(name, error)) from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UsageError(f"conf/{name}.yaml: {missing[0]} must be given, as {missing[0]}=VALUE")
    return config


def _explain(name: str, error: Exception) -> str:
    """One line for what Hydra says in several, with the nearest known key or option."""
    text = str(error)
    option = re.search(r"Could not find '([\w/]+)'", text)
    if option:
        group, _, wanted = option[1].rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return f"{group}={wanted}: no such option{_nearest(wanted, options)}"
    key = re.search(r"Could not override '(\S+?)'|Key '(\S+?)' is not in struct", text)
    if key:
        full = next(filter(None, key.groups()))
        from hydra import compose as hydra_compose
        from omegaconf import OmegaConf

        known = _flat_keys(OmegaConf.to_container(hydra_compose(name)))
        return f"unknown setting {full}{_nearest(full, known)}"
    return " ".join(text.split())


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(known)}" if known else ""


def _flat_keys(tree: object, prefix: str = "") -> list[str]:
    """Every key of a nested config, branches included: model, model.unet, model.unet.pretrained, ..."""
    if not isinstance(tree, dict):
        return []
    keys = []
    for name, branch in tree.items():
        keys += [f"{prefix}{name}", *_flat_keys(branch, f"{prefix}{name}.")]
    return keys
