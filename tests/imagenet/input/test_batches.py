"""The batches of a run, brought to its workers."""

import numpy as np
import pytest
import tensorflow as tf

from imagenet.input import batches as batches_module
from imagenet.input.batches import asynchronous_batches, evaluation_iterator
from imagenet.input.data import open_images
from imagenet.run.devices import Devices, devices_of
from tests.imagenet import small_runs


def arrays(batches, count):
    return list(batches.take(count).as_numpy_iterator())


def asynchronous_run(settings):
    changes = {"batch_size": 4, "strategy": "parameter_server"}
    return small_runs.settings(settings.data_dir, "unused", **changes)


def test_asynchronous_workers_have_batches_of_their_own(settings, data):
    """Also one that comes back; the images are the same, orders and crops are not."""
    batches = asynchronous_batches(asynchronous_run(settings), 2, data)
    one, other = (arrays(batches, 12) for _ in range(2))
    seen = set()
    for mine in (one, other):
        seen |= {image.tobytes() for batch in mine for image in batch[0]}
        labels = np.concatenate([batch[1] for batch in mine])
        assert set(labels) <= set(range(5)) and len(set(labels)) > 1
    # Of twelve batches of four each.
    assert len(seen) == 2 * 48


@pytest.fixture
def iterators(settings, monkeypatch):
    """Two workers' iterators over some images, as processes of one cluster make them.

    All have a global seed in common, from which they would all draw the same.
    """

    class Coordinator:
        def __init__(self, strategy):
            self.create_per_worker_dataset = lambda make: make()

    monkeypatch.setattr(tf.distribute.coordinator, "ClusterCoordinator", Coordinator)
    devices = Devices(tf.distribute.get_strategy(), 1, num_workers=2)

    def make(images):
        for _ in range(2):
            tf.random.set_seed(0)
            run = asynchronous_run(settings)
            yield batches_module._asynchronous_iterator(run, devices, images)

    return make


def test_asynchronous_workers_pass_over_the_shards_in_orders_of_their_own(iterators):
    class Numbered:
        num_train_images = 64

        def training_batches(self, batch_size, *, shard, **_):
            return tf.data.Dataset.from_tensors(shard).repeat()

    one, other = (
        np.array([next(iterator).numpy() for _ in range(160)]).reshape(80, 2)
        for iterator in iterators(Numbered())
    )
    # A share of a shard at a time: eight images of the sixty-four, two batches.
    for shards in (one, other):
        np.testing.assert_array_equal(shards[:, 0], shards[:, 1])
        assert set(shards.ravel()) == set(range(8))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("changes", "size"),
    [({}, 8), ({"accumulation_steps": 4}, 2), ({"eval_batch_size": 5}, 5)],
)
def test_as_many_are_evaluated_at_a_time_as_trained(data_dir, tmp_path, changes, size):
    run = small_runs.settings(data_dir, tmp_path, **changes)
    iterator, steps = evaluation_iterator(run, devices_of(run), open_images(run))
    images, _, weights = next(iterator)
    assert (len(images), len(weights)) == (size, size)
    assert (steps - 1) * size < 10 <= steps * size
