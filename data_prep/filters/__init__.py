"""What a clip is worth: every filter scores it while it is written, and only a configured threshold drops it.

    motion.py        how much moves, and how fast
    light.py         how bright it is, and how much there is to see
    letterbox.py     how much of it is bars
    fingerprint.py   192 bits by which a copy is recognised
    duplicates.py    near-duplicates among the fingerprints of a whole dataset

The first four watch the frames go by one at a time, as small grey pictures, and hold two of them at most.
Scores are plain numbers that mean the same at every frame rate and frame size.
"""

from data_prep.filters.scores import Scores, reason_to_drop

__all__ = ["Scores", "reason_to_drop"]
