"""Hydra configuration from the packaged `conf/` folder, with errors a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from live2diff.errors import UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose `conf/NAME.yaml` with `key=value` overrides; of two for one key the later counts.

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
        _check_override(override)
    with initialize_config_module("conf", version_base="1.3"):
        try:
            config = hydra_compose(name, overrides=list(overrides))
            OmegaConf.resolve(config)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise UsageError(_explain(name, overrides, error)) from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UsageError(f"conf/{name}.yaml: {missing[0]} must be given, as {missing[0]}=VALUE")
    return config


def options(group: str) -> list[str]:
    """The files of a group, which it can be set to; empty when there is no such group."""
    import conf

    return sorted(path.stem for path in (Path(conf.__path__[0]) / group).glob("*.yaml"))


def _check_override(override: str) -> None:
    """Refuse what Hydra would not understand, or would take for its own. Raises UsageError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    if not (equals and key) and not override.startswith("~"):
        raise UsageError(f"{override!r}: a setting is written key=value")
    if key.lstrip("+~").partition(".")[0] == "hydra":
        raise UsageError(f"unknown setting {key}; the folder of a run is set with run_dir=FOLDER")
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise UsageError(
            f"{override}: is not understood after {key}=; brackets and quotes must be closed, and a value "
            "with other than letters, digits and /.-_ stands in quotes"
        ) from error
    known = options(key)
    if known and not isinstance(parsed.value(), str | list):
        raise UsageError(f"{override}: expected one of {', '.join(known)}")


def _explain(name: str, overrides: Sequence[str], error: Exception) -> str:
    """One line for what Hydra says in several, with the nearest known key or option."""
    text = str(error)
    option = re.search(r"Could not (?:find|load) '([\w/]+)'", text)
    if option:
        group, _, wanted = option[1].rpartition("/")
        return f"{group}={wanted}: no such option{_nearest(wanted, options(group))}"
    key = re.search(r"Could not override '(\S+?)'|Key '(\S+?)' is not in struct", text)
    if key:
        full = next(filter(None, key.groups()))
        return f"unknown setting {full}{_nearest(full, _known_keys(name, overrides))}"
    inserted = next((word for word in overrides if "${" in word), None)
    return (f"{inserted}: " if inserted else "") + " ".join(text.split())


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(known)}" if known else ""


def _known_keys(name: str, overrides: Sequence[str]) -> list[str]:
    """Every key there is once the groups are chosen as `overrides` say."""
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    chosen = [word for word in overrides if options(word.partition("=")[0])]
    return _flat_keys(OmegaConf.to_container(hydra_compose(name, overrides=chosen)))


def _flat_keys(tree: object, prefix: str = "") -> list[str]:
    """Every key of a nested config, branches included: model, model.unet, model.unet.pretrained, ..."""
    if not isinstance(tree, dict):
        return []
    keys = []
    for name, branch in tree.items():
        keys += [f"{prefix}{name}", *_flat_keys(branch, f"{prefix}{name}.")]
    return keys
