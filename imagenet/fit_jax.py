r"""Trains with `model.fit` under Keras's JAX backend, on images drawn in memory.

    python -m imagenet.fit_jax --model=resnet_v2_50 --image_size=224 --batch_size=64 \
        --train_steps=2000 --optimizers=hierarchical_rnn,momentum --output=fit_jax

For a GPU that has JAX but no TensorFlow: neither is imported before this program says
`KERAS_BACKEND=jax`, and TensorFlow never is. The report is that of
`python -m imagenet.benchmark`; each baseline runs at its usual rate.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

import pathlib
import sys
import time

import keras
import numpy as np
from absl import app, flags, logging
from keras import ops

from imagenet.comparison.comparison import Plan, Run
from imagenet.comparison.ranking import ranks_of
from imagenet.comparison.report import write_report
from imagenet.models import MODELS, PRECISIONS, build_model, checked_image_size
from imagenet.optimizers import OPTIMIZERS, choose, kernels_of, with_loss_scale
from imagenet.run.columns import EVAL_COLUMNS, TRAIN_COLUMNS
from imagenet.run.settings import check_folder, settle_folder, weights_identity
from imagenet.run.step_times import StepTimes, checked_batch_sizes, median_seconds
from imagenet.synthetic.drawing import draw
from learned_optimizer.utils.csv_log import CsvLog

LABEL_SMOOTHING = 0.1

FLAGS = flags.FLAGS


def define_flags():
    """The flags; `imagenet.train` has some of the same names."""
    flags.DEFINE_enum("model", "resnet_v2_50", list(MODELS), "The network.")
    flags.DEFINE_list(
        "optimizers", ["hierarchical_rnn", "rmsprop", "adam", "momentum"], "To compare."
    )
    flags.DEFINE_integer("image_size", None, "In pixels; by default the model's.")
    flags.DEFINE_integer("num_classes", 100, "Classes that are drawn.")
    flags.DEFINE_integer(
        "num_images", 5000, "Training images, all in memory.", lower_bound=1
    )
    flags.DEFINE_integer(
        "num_validation_images", 500, "Validation images.", lower_bound=1
    )
    flags.DEFINE_integer("batch_size", 32, "Images a step.", lower_bound=1)
    flags.DEFINE_integer("train_steps", 2000, "Steps of a run.", lower_bound=1)
    flags.DEFINE_enum("precision", "float32", PRECISIONS, "Policy of the layers.")
    flags.DEFINE_string("weights", "default", "Of the learned optimizer.")
    flags.DEFINE_integer("seed", 0, "Of initial weights, images and order.")
    flags.DEFINE_list("timing_batches", ["1", "4", "16", "64"], "That are timed.")
    flags.DEFINE_string("output", "fit_jax", "Folder of the report.")


class DrawnImages(keras.utils.PyDataset):
    """Batches of images that are drawn once and kept in memory.

    Args:
        first: Index of the first image; image i has the label i modulo the classes.
        count: How many there are.
        size: Height and width in pixels.
        num_classes: Classes.
        batch_size: Images a batch.
        steps: Batches in all; each epoch has an order of its own. None: one pass in
            the order of the images, without augmentation.
        seed: Of the images and the order.
    """

    def __init__(self, first, count, size, num_classes, batch_size, steps, seed):
        super().__init__()
        self.labels = (np.arange(first, first + count) % num_classes).astype(np.int32)
        self.images = np.stack(
            [
                draw(int(label), first + index, num_classes, size, seed)
                for index, label in enumerate(self.labels)
            ]
        )
        self.batch_size = batch_size
        self.seed = seed
        self.augmented = steps is not None
        self.steps = steps or -(-count // batch_size)
        self.num_classes = num_classes

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rows = self._rows(step)
        images = self.images[rows]
        if self.augmented:
            images = self._augment(images, step)
        labels = np.eye(self.num_classes, dtype=np.float32)[self.labels[rows]]
        return images.astype(np.float32) / 127.5 - 1.0, labels

    def _rows(self, step):
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        if not self.augmented:
            return positions[positions < len(self.labels)]
        # Those of an epoch that ends within the batch, and of the next one.
        epochs, places = np.divmod(positions, len(self.labels))
        orders = {
            epoch: np.random.default_rng([self.seed, epoch]).permutation(
                len(self.labels)
            )
            for epoch in set(epochs.tolist())
        }
        return np.array(
            [orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)]
        )

    def _augment(self, images, step):
        """Flips, and shifts by up to an eighth of the side."""
        random = np.random.default_rng([self.seed, 1, step])
        size = images.shape[1]
        reach = size // 8
        padded = np.pad(
            images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge"
        )
        found = np.empty_like(images)
        for index, (down, right, flip) in enumerate(
            zip(
                random.integers(0, 2 * reach + 1, len(images)),
                random.integers(0, 2 * reach + 1, len(images)),
                random.integers(0, 2, len(images)),
                strict=True,
            )
        ):
            part = padded[index, down : down + size, right : right + size]
            found[index] = part[:, ::-1] if flip else part
        return found


class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy with smoothed labels, and the decay that is no part of the rule.

    Args:
        kernels: Variables that decay.
        decay: L2 weight of theirs.
    """

    def __init__(self, kernels, decay):
        super().__init__(name="loss")
        self._kernels = kernels if decay else []
        self._decay = decay
        self._loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=LABEL_SMOOTHING
        )

    def call(self, y_true, y_pred):
        loss = self._loss(y_true, y_pred)
        for kernel in self._kernels:
            loss += 0.5 * self._decay * ops.sum(ops.square(kernel.value))
        return loss


class CurveLog(keras.callbacks.Callback):
    """Writes `train.csv`, a row a step.

    Args:
        path: The file.
        batch_size: Images a step.
    """

    def __init__(self, path, batch_size):
        super().__init__()
        self._log = CsvLog(path, TRAIN_COLUMNS, 0)
        self._batch_size = batch_size

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        # The figures were read from the device, so the step is done.
        loss, accuracy = float(logs["cross_entropy"]), float(logs["accuracy"])
        seconds = time.perf_counter() - self._began
        rate = self.model.optimizer.learning_rate
        self._log.write(
            {
                "step": batch + 1,
                "loss": loss,
                "accuracy": accuracy,
                "learning_rate": float(ops.convert_to_numpy(rate)),
                "images_per_second": self._batch_size / seconds,
            }
        )
        self._log.flush()
        if not np.isfinite(loss):
            logging.warning("the loss of step %d is %s", batch + 1, loss)

    def on_train_end(self, logs=None):
        self._log.close()


def train(run, choice, plan, images, validation):
    """One run of `model.fit`; leaves `train.csv` and `eval.csv` in its folder."""
    folder = plan.folder / run.name
    settle_folder(folder, identity_of(run, plan))
    # Of this very run, which is done from its start again.
    for old in folder.glob("*.csv"):
        old.unlink()
    logging.info("%s", choice.describe())
    size = images.images.shape[1]
    model = build_model(
        run.model, images.num_classes, size, FLAGS.precision, seed=run.seed
    )
    model.compile(
        with_loss_scale(choice.make(model), model, FLAGS.precision),
        SmoothedCrossEntropy(kernels_of(model), choice.gradient_decay),
        metrics=[
            keras.metrics.CategoricalCrossentropy(
                name="cross_entropy", from_logits=True, label_smoothing=LABEL_SMOOTHING
            ),
            keras.metrics.CategoricalAccuracy(name="accuracy"),
        ],
    )
    model.fit(
        images,
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[CurveLog(folder / "train.csv", FLAGS.batch_size)],
    )
    _evaluate(model, validation, folder, plan.train_steps)


def _evaluate(model, validation, folder, step):
    logits = model.predict(validation, verbose=0)
    ranks = ranks_of(validation.labels, logits)
    losses = keras.losses.sparse_categorical_crossentropy(
        validation.labels, logits, from_logits=True
    )
    log = CsvLog(folder / "eval.csv", EVAL_COLUMNS, 0)
    log.write(
        {
            "step": step,
            "top_1": float((ranks < 1).mean()),
            "top_5": float((ranks < 5).mean()),
            "loss": float(ops.convert_to_numpy(losses).mean()),
            "images": len(validation.labels),
        }
    )
    log.close()


def time_steps(name, choice, images, batch_sizes, repetitions=5):
    """Times the parts of a step, see `imagenet.run.timing.time_steps`."""
    import jax

    size = images.images.shape[1]
    model = build_model(name, images.num_classes, size, FLAGS.precision, seed=0)
    optimizer = choice.make(model)
    loss = SmoothedCrossEntropy([], 0.0)

    def objective(trainable, fixed, batch, labels):
        logits, fixed = model.stateless_call(trainable, fixed, batch, training=True)
        return loss(labels, logits), fixed

    gradients_of = jax.jit(jax.value_and_grad(objective, has_aux=True))
    apply = jax.jit(optimizer.stateless_apply)
    trainable = [v.value for v in model.trainable_variables]
    fixed = [v.value for v in model.non_trainable_variables]
    state = [v.value for v in optimizer.variables]
    parameters = sum(int(v.size) for v in trainable)
    began = time.perf_counter()
    for step in range(repetitions):
        images[step % len(images)]
    # The pipeline's batches are of one size, so its time is scaled.
    input_seconds = (time.perf_counter() - began) / repetitions
    found, optimizer_seconds = [], None
    for batch_size in batch_sizes:
        rows = np.arange(batch_size) % len(images.labels)
        batch = images.images[rows].astype(np.float32) / 127.5 - 1.0
        labels = np.eye(images.num_classes, dtype=np.float32)[images.labels[rows]]
        arguments = jax.device_put((trainable, fixed, batch, labels))
        gradient_seconds = _median(lambda a=arguments: gradients_of(*a), repetitions)
        if optimizer_seconds is None:
            _, gradients = gradients_of(*arguments)
            optimizer_seconds = _median(
                lambda g=gradients: apply(state, g, trainable), repetitions
            )
        found.append(
            StepTimes(
                batch_size,
                input_seconds * batch_size / images.batch_size,
                gradient_seconds,
                optimizer_seconds,
                parameters,
                sum(v.size * v.dtype.itemsize for v in state),
            )
        )
    return found


def _median(run, repetitions):
    import jax

    return median_seconds(lambda: jax.block_until_ready(run()), repetitions)


def identity_of(run, plan):
    """What a run depends on: the curves in its folder are of that alone."""
    found = {
        "program": "imagenet.fit_jax",
        "model": run.model,
        "optimizer": run.optimizer,
        "seed": run.seed,
        "image_size": checked_image_size(run.model, FLAGS.image_size),
        "num_classes": FLAGS.num_classes,
        "num_images": FLAGS.num_images,
        "num_validation_images": FLAGS.num_validation_images,
        "batch_size": plan.batch_size,
        "train_steps": plan.train_steps,
        "precision": FLAGS.precision,
    }
    if run.optimizer == "hierarchical_rnn":
        found |= weights_identity(FLAGS.weights)
    return found


def _checked():
    """Plan, runs, optimizers and batch sizes, after all that can be wrong."""
    size = checked_image_size(FLAGS.model, FLAGS.image_size)
    sizes = checked_batch_sizes(FLAGS.timing_batches)
    plan = Plan(
        models=(FLAGS.model,),
        optimizers=tuple(FLAGS.optimizers),
        seeds=(FLAGS.seed,),
        factors=(1.0,),
        probe_steps=1,
        train_steps=FLAGS.train_steps,
        batch_size=FLAGS.batch_size,
        steps_per_epoch=FLAGS.num_images / FLAGS.batch_size,
        flags=(),
        folder=pathlib.Path(FLAGS.output),
    )
    choices = {
        name: choose(
            name,
            batch_size=plan.batch_size,
            train_steps=plan.train_steps,
            steps_per_epoch=plan.steps_per_epoch,
            weights=FLAGS.weights,
        )
        for name in plan.optimizers
        if name in OPTIMIZERS
    }
    runs = [Run(FLAGS.model, name, None, FLAGS.seed) for name in plan.optimizers]
    for run in runs:
        check_folder(plan.folder / run.name, identity_of(run, plan))
    return plan, runs, choices, size, sizes


def main(arguments):
    """Runs the comparison and writes the report."""
    if len(arguments) > 1:
        raise app.UsageError(f"fit_jax takes flags alone, received {arguments[1:]}")
    try:
        text, folder = _compare()
    except (ValueError, OSError) as error:
        print(f"imagenet.fit_jax: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"\n{text}\nThe report: {folder / 'report.md'}")


def _compare():
    """The text of the report and the folder it is in."""
    plan, runs, choices, size, sizes = _checked()
    images, validation = (
        DrawnImages(
            first, count, size, FLAGS.num_classes, plan.batch_size, steps, FLAGS.seed
        )
        for first, count, steps in (
            (0, FLAGS.num_images, plan.train_steps),
            (FLAGS.num_images, FLAGS.num_validation_images, None),
        )
    )
    for run in runs:
        train(run, choices[run.optimizer], plan, images, validation)
    shares = {
        (FLAGS.model, name): time_steps(FLAGS.model, choice, images, sizes)
        for name, choice in (choices.items() if sizes else ())
    }
    import jax

    data = (
        f"Images of {size} px drawn in memory, {FLAGS.num_classes} classes, "
        f"{FLAGS.num_images} for training, batches of {plan.batch_size}, "
        f"{plan.train_steps} steps on {jax.devices()[0].device_kind}."
    )
    text = write_report(
        plan,
        runs,
        choices,
        shares,
        "python -m imagenet.fit_jax " + " ".join(sys.argv[1:]),
        data,
    )
    return text, plan.folder


def run():
    """Entry point."""
    define_flags()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)


if __name__ == "__main__":
    run()
