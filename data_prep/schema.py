"""The JSON Schema of a clip's record, `record.schema.json`, and what in a record is against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("record.schema.json")


def record_faults(record: Any) -> Iterator[str]:
    """What is wrong with `record`, one line each; nothing when it is valid."""
    for error in _validator().iter_errors(record):
        where = "/".join(map(str, error.absolute_path))
        words = " ".join(error.message.split())
        yield f"{where}: {words}"[:300] if where else words[:300]


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    schema = json.loads(PATH.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)
