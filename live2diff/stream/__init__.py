"""The streaming engine: one frame in, one frame out."""

from live2diff.stream.engine import Stream

__all__ = ["Stream"]
