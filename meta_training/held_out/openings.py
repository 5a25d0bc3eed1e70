"""Which weights the final group has evaluated: `openings.csv` beside the weights."""

import datetime
import os
import pathlib

from learned_optimizer.utils.atomic_write import atomic_write
from learned_optimizer.weights import FOLDER

RECORD = pathlib.Path(os.fspath(FOLDER)) / "openings.csv"
_HEADER = "sha256,folder,day"


def opened_in(sha256: str, record: pathlib.Path = RECORD) -> str | None:
    """Name of the folder in which weights of that sha256 were evaluated, if they were.

    Args:
        sha256: Of the weights.
        record: The CSV file of all openings; it need not exist.
    """
    rows = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    folders = [row.split(",")[1] for row in rows if row.startswith(f"{sha256},")]
    return folders[0] if folders else None


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
        text = (
            record.read_text(encoding="utf-8") if record.is_file() else f"{_HEADER}\n"
        )
        row = f"{sha256},{folder},{datetime.date.today().isoformat()}\n"
        atomic_write(record, (text + row).encode())
