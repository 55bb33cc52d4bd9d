"""The report of an evaluation: an offline HTML page to look at, and Markdown to paste.

page.py        the page: sections, tables, what fits in it
summary.py     every figure beside the paper's, and why the two cannot be compared
ranking.py     which videos and frames are the worst
worst.py       pictures of the worst frames, with what of them was measured
players.py     source and output side by side, X-T slices, metrics over time; report.js moves them
sheets.py      frames of a video on one picture
sparkline.py   a metric over time as a line
frames.py      frames as they were measured
again.py       how to repeat the measurement
markdown.py    the same numbers as Markdown
words.py       numbers, names and reasons as text
"""

from live2diff.eval.report.write import write_report

__all__ = ["write_report"]
