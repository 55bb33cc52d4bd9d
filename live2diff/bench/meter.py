"""Timing calls on a processor or a GPU, and what the machine could do at best."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler speaks of every GPU that is not there
_SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
_LAUNCHES = (
    "cudaLaunchKernel",
    "cuLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernelEx",
    "cudaGraphLaunch",
)
_REPEATS = 5


class Meter:
    """Seconds on the clock and processor seconds, all threads together, of calls on `device`."""

    def __init__(self, device: torch.device):
        self.device = device

    def time(self, call: Callable[[], Any]) -> tuple[float, float]:
        self.wait()
        clock, core = time.perf_counter(), time.process_time()
        call()
        self.wait()
        return time.perf_counter() - clock, time.process_time() - core

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int:
        """Of the device since `forget_peak`; on a processor, of the whole process since its start."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def operations(self, call: Callable[[], Any]) -> dict[str, int]:
        """What one call asks for: operators on a processor, host syncs and kernel launches on a GPU."""
        cuda = self.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=activities, acc_events=True) as seen:
            call()
            if not cuda:
                self.wait()
        names = [event.name for event in seen.events() or () if cuda or event.cpu_parent is None]
        if not cuda:
            return {"operators": sum(name.startswith(("aten::", "mkldnn", "graph")) for name in names)}
        return {
            "host_syncs": sum(name in _SYNCS for name in names),
            "launches": sum(name in _LAUNCHES for name in names),
        }

    def ceilings(self, dtype: torch.dtype) -> dict[str, float]:
        """TFLOP/s of a large matrix product, and GB/s read and written by a large copy; the best of some."""
        side = 8192 if self.device.type == "cuda" else 2048
        a, b = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
        count = 1 << 30 if self.device.type == "cuda" else 1 << 28
        source = torch.zeros(count, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        product = min(self.time(lambda: a @ b)[0] for _ in range(_REPEATS))
        copy = min(self.time(lambda: target.copy_(source))[0] for _ in range(_REPEATS))
        return {"tflops": 2 * side**3 / product / 1e12, "gb_per_s": 2 * source.nbytes / copy / 1e9}


def flops(call: Callable[[], Any]) -> int:
    """Of products, convolutions and attentions in one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    ranked = sorted(seconds)

    def at(share: float) -> float:
        return 1000 * ranked[min(len(ranked) - 1, round(share * (len(ranked) - 1)))]

    return {"p50_ms": 1000 * statistics.median(ranked), "p95_ms": at(0.95), "p99_ms": at(0.99)}
