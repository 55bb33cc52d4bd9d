"""Captions by a model for clips whose source came without one. Off unless `captioner` is set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from data_prep.config import PrepConfig
from data_prep.records import Outcome


class Captions:
    """Looks at the middle frame of each kept clip. The model is loaded when it is first needed."""

    def __init__(self, config: PrepConfig):
        self._config = config
        self._captioner: Any = None

    def add(self, outcome: Outcome) -> None:
        """Give every kept clip of `outcome` a caption, if it has none and a captioner is configured."""
        if self._config.captioner is None or outcome.caption:
            return
        for clip in outcome.clips:
            clip["caption"] = self._write(outcome, clip)
            clip["caption_source"] = "captioner"

    def maker_of(self, outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
        """Identity of the model, if it wrote a caption for one of `outcomes`."""
        sources = {clip.get("caption_source") for outcome in outcomes for clip in outcome.clips}
        return self._captioner.identity if "captioner" in sources else None

    def _write(self, outcome: Outcome, clip: dict[str, Any]) -> str:
        from live2diff.video import VideoReader

        if self._captioner is None:
            from data_prep.captioner import Captioner  # imports torch

            config = self._config
            assert config.captioner
            self._captioner = Captioner(config.captioner, config.captioner_prompt, config.captioner_device)
        with VideoReader(outcome.folder / clip["file"]) as reader:
            (middle,) = islice(reader, clip["frames"] // 2, clip["frames"] // 2 + 1)
        return self._captioner(middle)
