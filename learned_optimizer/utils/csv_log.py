"""CSV files that grow by rows, the first column of which is the step; others read.

No TensorFlow is imported: the JAX program of `imagenet` writes the same files.
"""

import csv
import io
import lzma
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TextIO

import numpy as np

from learned_optimizer.utils.atomic_write import atomic_write


class CsvLog:
    """A CSV file that grows by rows, the first column of which is the step.

    Args:
        path: The file; rows after `last_step`, and half-written ones, are dropped.
        columns: Names of the columns. A single one is the step's: the others are
            those of the first row that is written, or of the file that is there.
        last_step: Of the rows to keep.
        digits: Of a figure; nine give a float32 back exactly.

    Raises:
        ValueError: The file has other columns.
    """

    def __init__(
        self, path: pathlib.Path, columns: Sequence[str], last_step: int, digits=9
    ):
        self._columns = tuple(columns)
        self._digits = digits
        # Columns that are named are all in every row.
        self._may_lack = len(self._columns) == 1
        kept = []
        if path.is_file() and path.stat().st_size:
            with open(path, newline="", encoding="utf-8") as file:
                found = list(csv.reader(file))
            named = tuple(found[0])
            if self._columns != (named[:1] if self._may_lack else named):
                raise ValueError(
                    f"{path} must have the columns {', '.join(self._columns)}. "
                    f"Received: {', '.join(named)}"
                )
            self._columns = named
            kept = [
                row
                for row in found[1:]
                if len(row) == len(named) and int(row[0]) <= last_step
            ]
        if len(self._columns) > 1:
            kept.insert(0, self._columns)
        text = "".join(",".join(row) + "\n" for row in kept)
        atomic_write(path, text.encode())
        self._file = open(path, "a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def write(self, row: Mapping[str, float]) -> None:
        """Adds a row; what it lacks of columns that nobody named is not a number."""
        if len(self._columns) == 1:
            self._columns += tuple(name for name in row if name != self._columns[0])
            self._writer.writerow(self._columns)
        step, *others = self._columns
        if self._may_lack:
            row = {**dict.fromkeys(others, float("nan")), **row}
        self._writer.writerow(
            [int(row[step]), *(f"{row[name]:.{self._digits}g}" for name in others)]
        )

    def flush(self) -> None:
        """Puts it on disk."""
        self._file.flush()

    def close(self) -> None:
        """Ends it."""
        self._file.close()


def write_csv(
    path: pathlib.Path, columns: Sequence[str], rows: Iterable[Sequence]
) -> None:
    """Writes rows of text and numbers atomically, fractions with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(
            f"{value:.6g}" if isinstance(value, float | np.floating) else value
            for value in row
        )
    atomic_write(path, text.getvalue().encode())


def compress(path: pathlib.Path) -> pathlib.Path:
    """Replaces a file by `PATH.xz`, which `open_csv` finds, and returns its path."""
    compressed = path.with_name(f"{path.name}.xz")
    data = lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    atomic_write(compressed, data)
    path.unlink()
    return compressed


def open_csv(path: pathlib.Path) -> TextIO:
    """Opens a CSV file to read it, or `PATH.xz` if it was compressed."""
    compressed = path if path.suffix == ".xz" else path.with_name(f"{path.name}.xz")
    if compressed.is_file():
        return lzma.open(compressed, "rt", newline="", encoding="utf-8")
    return open(path, newline="", encoding="utf-8")


def read_csv(
    path: pathlib.Path, text: Collection[str] = ()
) -> list[dict[str, float | str]]:
    """The rows of such a file, but for one that was not written whole.

    All are numbers, an empty one nan, but those of the columns `text`.
    """
    with open_csv(path) as file:
        return [
            {
                name: value if name in text else float(value or "nan")
                for name, value in row.items()
            }
            for row in csv.DictReader(file)
            if None not in row.values()
        ]
