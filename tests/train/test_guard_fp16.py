"""Under fp16 a loss that was scaled too high is the scaler's affair; only what is left counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from live2diff.errors import DataError
from train.guard import FiniteGuard


def trainer(scale: float | None) -> SimpleNamespace:
    """As much of Lightning's as the guard looks at."""
    scaler = None if scale is None else SimpleNamespace(get_scale=lambda: scale)
    strategy = SimpleNamespace(reduce_boolean_decision=lambda value, all: value)
    return SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler), strategy=strategy, global_step=0)


@pytest.mark.parametrize(("scale", "stops"), [(None, True), (1.0, True), (65536.0, False)])
def test_only_what_the_scaler_cannot_mend_stops_the_run(scale, stops, capsys):
    guard, layer = FiniteGuard(), nn.Linear(2, 1)

    def update() -> None:
        layer.weight.grad = torch.full_like(layer.weight, float("inf"))
        guard.on_before_optimizer_step(trainer(scale), layer, None)
        assert layer.weight.grad is None

    update(), update()
    if stops:
        with pytest.raises(DataError, match="the gradient is not finite"):
            update()
    else:
        for _ in range(5):
            update()
    assert guard.skipped == (3 if stops else 7) and "is passed over" in capsys.readouterr().out
