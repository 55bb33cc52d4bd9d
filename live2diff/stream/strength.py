"""How far a translation may go from its input, as one number."""

from __future__ import annotations

from live2diff.errors import UsageError
from live2diff.stream.schedule import ORIGINAL_STEPS


def steps_of(strength: float, count: int) -> tuple[int, ...]:
    """`count` denoising steps for an image-to-image `strength` in (0, 1]: 1 starts from noise alone.

    The usual meaning, as `diffusers.LCMScheduler` has it: of the last 50 · strength steps of the 50-step
    schedule, `count` at even distances from the noisiest on. For two steps, 0.4 is 30,40 (the paper's), 0.5
    is 25,37 and 1 is 0,25.

    Raises:
        UsageError: out of range, or too small for that many steps.
    """
    if not 0 < strength <= 1:
        raise UsageError(f"--strength {strength:g}: expected a number above 0, up to 1")
    left = int(ORIGINAL_STEPS * strength + 1e-9)  # 0.58 * 50 is 28.999999999999996
    if left < count:
        raise UsageError(
            f"--strength {strength:g}: too little for the model's {count} denoising step{'s'[: count > 1]}; "
            f"the least is {count / ORIGINAL_STEPS:g}"
        )
    return tuple(ORIGINAL_STEPS - left + left * k // count for k in range(count))
