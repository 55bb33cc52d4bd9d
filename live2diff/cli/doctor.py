"""`live2diff doctor`."""

from __future__ import annotations

import argparse

from live2diff.errors import CheckpointError, SetupError


def add(commands: argparse._SubParsersAction) -> None:
    doctor = commands.add_parser("doctor", help="what this machine has and lacks")
    doctor.add_argument(
        "--models",
        action="store_true",
        help="the models a configuration names: which are here, and how to get the others",
    )
    doctor.add_argument(
        "settings", nargs="*", metavar="key=value", help="with --models: model=NAME and others (default sd15)"
    )
    doctor.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.models or args.settings:
        return _models(args.settings)
    from live2diff.doctor import machine

    findings = machine()
    for finding in findings:
        print(f"{finding.name:8} {finding.value}")
    for finding in findings:
        if finding.problem:
            print(f"problem: {finding.name}: {finding.problem}")
    if any(finding.problem for finding in findings):
        return SetupError.exit_code
    print("next: live2diff doctor --models")
    return 0


def _models(settings: list[str]) -> int:
    from omegaconf import OmegaConf

    from live2diff.config import compose
    from live2diff.doctor import models

    chosen = [] if any(word.startswith(("model=", "experiment=")) for word in settings) else ["model=sd15"]
    config = compose("train", ["data.path=none", *chosen, *settings])
    found = models(OmegaConf.to_container(config.model))  # pyright: ignore[reportArgumentType]
    for model in found:
        size = "" if model.size is None else _readable(model.size)
        print(model.reference)
        print(f"  for      {', '.join(model.keys)}")
        if model.path is None:
            print(f"  missing  {f'about {size} to fetch' if size else 'no such file or folder'}")
        else:
            print(f"  {'damaged' if model.problem else 'here   '}  {model.path}, {size}")
        if model.problem:
            print(f"           {model.problem}")
        print(f"  licence  {model.licence}")
        if model.path is None or model.problem:
            print(f"  get it   {model.fetch or 'where it came from; this project knows no address'}")
    if not found:
        print("this configuration names no models: all its weights start at random")
        return 0
    lacking = sum(model.path is None or model.problem is not None for model in found)
    print(f"{len(found) - lacking} of {len(found)} models are here")
    return CheckpointError.exit_code if lacking else 0


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
