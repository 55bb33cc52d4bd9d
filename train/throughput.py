"""What becomes of the time: clips per second, waiting for data, memory, and the share of the device used."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar
from weakref import WeakSet

import lightning
import torch
from torch.utils.data import DataLoader

from train.flops import matmul_rate, training_flops
from train.module import Diffusion
from train.progress import micro_steps

COLUMNS = ("clips_per_s", "data_wait", "peak_memory_gb", "tflops", "mfu")


class TimedLoader(DataLoader):
    """A DataLoader that knows how long it was waited for.

    Attributes:
        waited: seconds, by all its iterators together.
    """

    waited = 0.0
    _begun: ClassVar[WeakSet[Any]] = WeakSet()

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # Begun here, not with the first batch: it draws from the global generator, which a run that goes on
        # sets only after this.
        batches = super().__iter__()
        self._begun.add(batches)
        return self._timed(batches)

    @classmethod
    def end_all(cls) -> None:
        """End the worker processes of all iterators.

        A traceback may keep an iterator alive. While it is, PyTorch watches over its workers, and raises
        wherever the process then is when one of them dies.
        """
        for batches in list(cls._begun):
            if hasattr(batches, "_shutdown_workers"):  # there are none with data.workers=0
                batches._shutdown_workers()

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - start
            yield batch


class Throughput:
    """Measures between two calls of `read`. Nothing here makes a step wait for the device.

    Args:
        config: the `trainer` and `data` groups of the configuration.
    """

    def __init__(self, config: Mapping[str, Any]):
        self._trainer, self._data = config["trainer"], config["data"]
        self._flops = 0  # of a clip; 0: not known
        self._rate = 0.0  # of a matrix product on this device
        self._micro, self._since, self._waited = 0, 0.0, 0.0
        self._paused = 0.0

    def count(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Learn what a step computes; before the trainer spreads the module over processes."""
        if not (self._trainer["flops"] and trainer.is_global_zero and isinstance(module, Diffusion)):
            return
        side = self._data["size"] // module.model.downscale
        shape = (module.unet.config["in_channels"], self._data["frames"], side, side)
        self._flops = training_flops(module, shape)

    def start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Begin to measure; called when training begins."""
        if self._flops:
            self._rate = matmul_rate(module.device, self._trainer["precision"])
        self._micro, self._since = micro_steps(trainer), time.monotonic()
        self._waited, self._paused = _waited(trainer), 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent in here is no training."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - start

    def read(self, trainer: lightning.Trainer) -> dict[str, float]:
        """The figures since the last call; for `on_train_batch_end`.

        Returns:
            `clips_per_s` of all processes together; `data_wait`, the share of its time that this process
            waited for its loader; `peak_memory_gb` of this process since its start: what torch held of its
            GPU, or the resident memory on a CPU. Where operations are counted, `tflops` of one device and
            `mfu`, their share of its matrix product's rate.
        """
        micro, now, waited = micro_steps(trainer), time.monotonic(), _waited(trainer)
        seconds = max(now - self._since - self._paused, 1e-9)
        speed = (micro - self._micro) * self._trainer["batch"] * trainer.world_size / seconds
        values = {
            "clips_per_s": round(speed, 3),
            "data_wait": round(min((waited - self._waited) / seconds, 1.0), 4),
            "peak_memory_gb": round(_peak_memory() / 1e9, 3),
        }
        if self._flops:
            rate = self._flops * speed / trainer.world_size
            values |= {"tflops": round(rate / 1e12, 4), "mfu": round(rate / self._rate, 4)}
        self._micro, self._since, self._waited, self._paused = micro, now, waited, 0.0
        return values


def _waited(trainer: lightning.Trainer) -> float:
    loader: Any = trainer.train_dataloader
    return loader.waited


def _peak_memory() -> int:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB
