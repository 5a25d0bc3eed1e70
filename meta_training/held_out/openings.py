"""Which weights the final group has evaluated: `openings.csv` beside the weights."""

import datetime
import os
import pathlib

from learned_optimizer.utils.csv_log import read_csv, write_csv
from learned_optimizer.weights import FOLDER

RECORD = pathlib.Path(os.fspath(FOLDER)) / "openings.csv"
_COLUMNS = ("sha256", "folder", "day")


def opened_in(sha256: str, record: pathlib.Path = RECORD) -> str | None:
    """Name of the folder in which weights of that sha256 were evaluated, if they were.

    `record` is the CSV file of all openings; it need not exist.
    """
    folders = {row["sha256"]: row["folder"] for row in _openings(record)}
    return folders.get(sha256)


def put_on_record(sha256: str, folder: str, record: pathlib.Path = RECORD):
    """Adds a row of today.

    Raises:
        ValueError: They were evaluated before, in another folder.
    """
    known = opened_in(sha256, record)
    if known not in (None, folder):
        raise ValueError(
            "the final group must evaluate weights once. Received: weights that it "
            f"evaluated in a folder named {known!r}"
        )
    if known is None:
        rows = [tuple(row.values()) for row in _openings(record)]
        today = datetime.date.today().isoformat()
        write_csv(record, _COLUMNS, [*rows, (sha256, folder, today)])


def _openings(record):
    return read_csv(record, _COLUMNS) if record.is_file() else []
