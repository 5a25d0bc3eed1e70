"""How long an experiment took, over all its sittings, also those that were killed."""

import json
import pathlib
import threading
import time
from typing import Any

from learned_optimizer.utils.atomic_write import atomic_write

SITTINGS = "sittings.json"
# Left where runs of meta-training were found that other settings had paid for.
SHARED = "shared_training"
# Seconds between two notes of the time: what a kill can lose.
_BETWEEN_NOTES = 10.0


class Sitting:
    """The time of one sitting, on disk while it passes.

    >>> with Sitting(folder) as sitting:                           # doctest: +SKIP
    ...     experiment.run(job)
    >>> sitting.totals()                                           # doctest: +SKIP
    {'seconds': 12.3, 'sittings': 1, 'seconds_are_all': True}

    Args:
        folder: Of the sittings of one experiment with one set of settings.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._path = folder / SITTINGS
        self._sittings: list[dict[str, Any]] = []
        if self._path.is_file():
            found = json.loads(self._path.read_text(encoding="utf-8"))
            # Earlier versions noted the seconds alone, at the end.
            self._sittings = [
                entry if isinstance(entry, dict) else {"seconds": entry, "ended": True}
                for entry in found
            ]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_noting, daemon=True)

    def __enter__(self):
        self._began = time.monotonic()
        self._sittings.append({"seconds": 0.0, "ended": False})
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self._note(ended=True)

    def totals(self) -> dict[str, Any]:
        """What `done.json` says of the time.

        `seconds_are_all` is False where a sitting was killed, or where runs of
        meta-training were there before: then it took longer than that.
        """
        return {
            "seconds": round(sum(entry["seconds"] for entry in self._sittings), 1),
            "sittings": len(self._sittings),
            "seconds_are_all": all(entry["ended"] for entry in self._sittings)
            and not (self._folder / SHARED).exists(),
        }

    def _keep_noting(self):
        while not self._ended.wait(_BETWEEN_NOTES):
            self._note(ended=False)

    def _note(self, ended):
        seconds = round(time.monotonic() - self._began, 1)
        self._sittings[-1] = {"seconds": seconds, "ended": ended}
        self._write()

    def _write(self):
        content = json.dumps(self._sittings) + "\n"
        atomic_write(self._path, content.encode())
