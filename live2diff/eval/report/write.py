"""Where the report is written."""

from __future__ import annotations

from pathlib import Path

from live2diff.eval.report.markdown import write_markdown
from live2diff.eval.report.page import write_page
from live2diff.eval.report.worst import Masks
from live2diff.eval.results import Results
from live2diff.files import staged_file


def write_report(results: Results, out: Path, masks: Masks | None = None) -> None:
    """Write `report.html` and `report.md` into the folder `out`, whole or not at all.

    Videos that cannot be read any more leave their place in the page empty; the numbers stay.

    Args:
        masks: which pixels warp error counted; None if it was not measured.
    """
    pages = {
        "report.html": write_page(results, str(out), masks),
        "report.md": write_markdown(results, str(out)),
    }
    for name, text in pages.items():
        with staged_file(out / name) as stage:
            stage.write_text(text, encoding="utf-8")
