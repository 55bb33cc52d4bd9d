"""The weights that come with the package; README.md here says what they are and how to make them."""

from pathlib import Path

FOLDER = Path(__file__).parent
