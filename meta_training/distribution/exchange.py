"""How the processes of a synchronous strategy tell each other arrays and files.

All goes through one collective, the sum of float32 vectors over all replicas: each
process puts what it has to say in a place of its own and zeros elsewhere. So it works
wherever the strategy can reduce a gradient, and adds nothing up that rounds.
"""

import numpy as np
import tensorflow as tf


class Exchange:
    """Between the processes of a strategy; all must call the same at the same time.

    A method raises `RuntimeError` when one of them is gone.

    Args:
        strategy: `MultiWorkerMirroredStrategy`, or one that reduces as it does.
        process: Number of this process.
        processes: Number of all.
    """

    def __init__(self, strategy: tf.distribute.Strategy, process: int, processes: int):
        self._strategy = strategy
        self._process = process
        self._processes = processes

    def rows(self, row: np.ndarray) -> np.ndarray:
        """The vectors of all processes, equally long, as rows.

        Args:
            row: `[n]` float32, that of this one.

        Returns:
            `[processes, n]`.
        """
        rows = np.zeros((self._processes, row.size), np.float32)
        rows[self._process] = row
        return self._sum(rows.ravel()).reshape(rows.shape)

    def blobs(self, blob: bytes) -> list[bytes]:
        """The bytes of all processes, in order; they may differ in length."""
        # Numbers below 65,536 come through float32 as they are.
        padded = blob + b"\0" * (len(blob) % 2)
        words = np.frombuffer(padded, "<u2").astype(np.float32)
        high, low = divmod(len(blob), 2**16)
        lengths = self.rows(np.array([high, low], np.float32)).astype(np.int64)
        lengths = lengths[:, 0] * 2**16 + lengths[:, 1]
        ends = np.cumsum((lengths + 1) // 2)
        vector = np.zeros(ends[-1], np.float32)
        vector[ends[self._process] - words.size : ends[self._process]] = words
        words = self._sum(vector).astype("<u2")
        return [
            part.tobytes()[:length]
            for part, length in zip(np.split(words, ends[:-1]), lengths, strict=True)
        ]

    def _sum(self, vector):
        """`vector` summed over the processes."""
        # A process has a replica a device; only its first one speaks.
        values = iter([tf.constant(vector)])
        per_replica = self._strategy.experimental_distribute_values_from_function(
            lambda _: next(values, tf.zeros(vector.shape))
        )
        try:
            return self._strategy.reduce("SUM", per_replica, axis=None).numpy()
        except tf.errors.OpError as error:
            raise RuntimeError(
                "another process of the run is gone, and those that work in step "
                "cannot do without it; started again, all with the same flags, the "
                "run goes on from its last checkpoint"
            ) from error
