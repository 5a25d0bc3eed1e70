"""CSVs of text and numbers that grow by a row a measurement."""

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging


def read_rows(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a CSV, none where there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_row(path: pathlib.Path, row: Mapping[str, Any]) -> None:
    """Adds a row, which is on disk then; all rows have the same columns."""
    is_new = not path.is_file()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    logging.info("%s", dict(row))
