"""Named arrays as files."""

import numpy as np
import pytest

from learned_optimizer.utils.arrays import load_arrays, save_arrays


def test_a_full_disk_leaves_the_last_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.npz"
    save_arrays(path, {"a": np.arange(5)})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("learned_optimizer.utils.atomic_write.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_arrays(path, {"a": np.arange(9)})
    np.testing.assert_array_equal(load_arrays(path)["a"], np.arange(5))
    assert list(tmp_path.iterdir()) == [path]
