"""A training run: one loop for all strategies.

After every loop of some steps the figures come off the devices, and there is a look at
the clock, at signals, and at what is due: an evaluation, a checkpoint. All that a step
computes follows from the settings and the step's number, so a run that was killed goes
on from its checkpoint as if nothing had happened.
"""

import contextlib
import itertools
import math
import os
import pathlib
import threading
import time

import tensorflow as tf
from absl import logging

from imagenet.input.batches import evaluation_iterator, shards_of, training_iterator
from imagenet.input.data import ImageData
from imagenet.models import build_model
from imagenet.optimizers import OptimizerSpec, unwrapped, with_loss_scale
from imagenet.run.checkpoints import Checkpoints, existing_folder
from imagenet.run.config import EVAL_COLUMNS, LOCK_FILE, RunConfig, Terminated
from imagenet.run.devices import Devices
from imagenet.run.programs import Programs
from imagenet.run.run_log import RunLog
from learned_optimizer.utils.batch_normalization import RunningAverages
from learned_optimizer.utils.csv_log import read_csv
from learned_optimizer.utils.exclusive_lock import exclusive_lock
from learned_optimizer.utils.run_log import SilentLog
from learned_optimizer.utils.signals import on_sigterm

MODEL_FILE = "model.keras"
# From which running averages are computed before an evaluation, an epoch at most.
RECOMPUTED_BATCHES = 100


class Training:
    """One run."""

    def __init__(self, config: RunConfig, devices: Devices, images: ImageData):
        """Builds the network, or goes on with the run in `model_dir`.

        Nothing is written there before `train`: what was started by mistake leaves no
        folder that refuses the command when it is put right.

        Raises:
            ValueError: The settings do not fit the data, the devices, or the run that
                is there.
        """
        self.config = config
        self._devices = devices
        self._images = images
        self.spec = resolve_optimizer(config, images.num_train_images)
        self.train_steps = self._until = self.spec.train_steps
        self._folder = pathlib.Path(config.model_dir)
        check_start(config, devices)
        with devices.strategy.scope():
            self.model = build_model(
                config.model,
                images.num_classes,
                config.image_size,
                config.precision,
                config.synchronized_batch_normalization,
                config.seed,
            )
            self.optimizer = with_loss_scale(
                self.spec.make(self.model), self.model, config.precision
            )
            self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._programs = Programs(
            config, self.spec, devices, self.model, self.optimizer
        )
        self._checkpoints = Checkpoints(
            config, devices, self._step, model=self.model, optimizer=self.optimizer
        )
        self.step = self._checkpoints.restore()
        if not self.step and (self._folder / MODEL_FILE).is_file():
            raise ValueError(
                f"{self._folder} must have the checkpoints of its run: it has ended, "
                "and to begin anew would drop its curves and its model. Received: a "
                "folder without them. Bring them back, or begin in another model_dir"
            )
        if self.step:
            logging.info("resumed from step %d", self.step)
        logging.info(
            "%s, %d parameters, %d classes, %d px, %d images a step on %d replicas; %s",
            config.model,
            self.model.count_params(),
            images.num_classes,
            config.image_size,
            config.batch_size,
            devices.num_replicas,
            self.spec.describe(),
        )
        self._averages = self._coordinator = None
        self._averaged = None  # The step whose running averages were computed anew.
        if devices.asynchronous:
            self._coordinator = tf.distribute.coordinator.ClusterCoordinator(
                devices.strategy
            )
        self._terminated = threading.Event()

    def _set_total_steps(self):
        """Lets the learned rates end with the run, unless it began without."""
        if not self.spec.is_learned:
            return
        optimizer = unwrapped(self.optimizer)
        saved = optimizer.total_steps
        is_known = self.config.horizon
        if is_known is None:
            falls = self.spec.schedule != "constant"
            is_known = bool(
                saved if self.step else optimizer.config.nominal and not falls
            )
        total_steps = self.train_steps if is_known else None
        if self.step and total_steps != saved:
            logging.warning(
                "the learned rates follow a schedule to step %s from step %d on; "
                "before, it was to step %s",
                total_steps,
                self.step,
                saved,
            )
        optimizer.total_steps = total_steps

    # The loop.

    def train(self, until: int | None = None) -> None:
        """Goes on until the last step, or is left with a checkpoint at `until`.

        Raises:
            Terminated: SIGTERM came; a checkpoint of this step is there.
            OSError: A checkpoint could not be written.
            ValueError: `model_dir` has become that of another run since, another
                process trains there, or the disk has no room for the checkpoints.
        """
        with contextlib.ExitStack() as stack:
            if self.step < self.train_steps:
                self._checkpoints.check_room()
                self._set_total_steps()
            if self._devices.is_chief:
                self.config.write_or_verify(self._folder)
                busy = (
                    "model_dir must be that of no other running process (several "
                    "processes of one run are started with --strategy=multi_worker or "
                    "parameter_server and TF_CONFIG). Received: "
                    f"{self._folder}, which one is training in"
                )
                stack.enter_context(exclusive_lock(self._folder / LOCK_FILE, busy))
                self._checkpoints.drop_unfinished()
            self._train(until)

    def _train(self, until):
        if until is not None:
            self._until = min(until, self.train_steps)
        # Of the checkpoint: killed, the run may have saved but not evaluated.
        unevaluated = self._any_process(self._lacks_evaluation())
        if self._coordinator:
            # Its function is made once: each is traced anew.
            self._worker_step = tf.function(
                lambda batches: self._devices.strategy.run(
                    self._programs.train_step, args=(next(batches),)
                )
            )
        if unevaluated or self.step < self._until:
            log = SilentLog()
            if self._devices.is_chief:
                log = RunLog(
                    self._folder, self.step, self.train_steps, self.spec.is_learned
                )
            with contextlib.closing(log), on_sigterm(self._terminated.set):
                if unevaluated:
                    log.evaluation(self.evaluate())
                if self.step < self._until:
                    iterator = training_iterator(
                        self.config, self._devices, self._images, self.step
                    )
                while self.step < self._until:
                    self._loop(iterator, log)
        if self.step >= self.train_steps:
            with self._true_values():
                self._recompute_averages()
                self._save_model()

    def _loop(self, iterator, log):
        began, first = time.monotonic(), self.step
        steps = self._steps_until_due()
        if self._coordinator:
            rows = self._asynchronous_steps(iterator, steps)
        else:
            rows = self._programs.train(iterator, tf.constant(steps)).numpy()
        self.step += steps
        self._step.assign(self.step)
        speed = steps / (time.monotonic() - began)
        log.loop([self._figures(first + n, row, speed) for n, row in enumerate(rows)])
        if not math.isfinite(rows[-1][0]):
            logging.warning("the loss of step %d is %s", self.step, rows[-1][0])
        terminated = self._any_process(self._terminated.is_set())
        left = terminated or self.step == self._until
        if left or self.step % self.config.checkpoint_every == 0:
            log.flush()
            self._programs.average_statistics()
            self._checkpoints.save()
        if terminated and self.step < self.train_steps:
            raise Terminated(f"saved at step {self.step} and left, as SIGTERM asks")
        # After the checkpoint: it may take longer than who stops the run waits.
        if self._is_evaluated():
            log.evaluation(self.evaluate())

    def _is_evaluated(self):
        """Whether there is an evaluation of this step."""
        every = self.config.eval_every
        done = self.step >= self.train_steps
        return done or bool(every and self.step % every == 0)

    def _lacks_evaluation(self):
        """Whether one that there should be is missing; the chief knows."""
        if not (self.step and self._is_evaluated() and self._devices.is_chief):
            return False
        path = self._folder / "eval.csv"
        rows = read_csv(path) if path.is_file() else []
        return all(row["step"] != self.step for row in rows)

    def _steps_until_due(self):
        """Steps of the next loop: up to whatever is due first."""
        steps = min(self.config.steps_per_loop, self._until - self.step)
        for every in (self.config.eval_every, self.config.checkpoint_every):
            if every:
                steps = min(steps, every - self.step % every)
        return steps

    def _asynchronous_steps(self, iterator, steps):
        results = [
            self._coordinator.schedule(self._worker_step, args=(iterator,))
            for _ in range(steps)
        ]
        with _warn_if_slow(results):
            self._coordinator.join()
        # Keras counts by reading and writing, so steps of two workers may count as
        # one; nobody else steps here.
        self.optimizer.iterations.assign(self.step + steps)
        return [result.fetch() for result in results]

    def _figures(self, step, row, steps_per_second):
        loss, right, weight, log_rate = (float(value) for value in row)
        figures = {
            "step": step + 1,
            "loss": loss / max(weight, 1.0),
            "accuracy": right / max(weight, 1.0),
            "learning_rate": self.spec.rate_at(step),
            "images_per_second": steps_per_second * self.config.batch_size,
        }
        if self.spec.is_learned:
            figures["mean_learned_rate"] = math.exp(log_rate)
        return figures

    # Evaluation, and the end.

    def evaluate(self) -> dict[str, float]:
        """A row of `eval.csv`: the validation images, all or the first ones."""
        self._programs.average_statistics()
        with self._true_values():
            self._recompute_averages()
            iterator, steps = evaluation_iterator(
                self.config, self._devices, self._images
            )
            *sums, count = self._programs.evaluate(iterator, tf.constant(steps)).numpy()
        values = (self.step, *(value / max(count, 1.0) for value in sums), count)
        logging.info(
            "step %d: top-1 %.4f, top-5 %.4f, loss %.4f on %d validation images",
            *values,
        )
        return dict(zip(EVAL_COLUMNS, values, strict=True))

    @contextlib.contextmanager
    def _true_values(self):
        """Weights with attention train elsewhere than where the parameters are."""
        pairs = []
        if self.spec.is_learned:
            pairs = unwrapped(self.optimizer).pairs_with_true_values()
        attended = [tf.identity(variable.value) for variable, _ in pairs]
        for variable, true_value in pairs:
            variable.assign(true_value.value)
        try:
            yield
        finally:
            for (variable, _), value in zip(pairs, attended, strict=True):
                variable.assign(value)

    def _recompute_averages(self):
        """Computes running averages of batch normalisation anew from training batches.

        Those of the layers lag behind the long steps of a learned optimizer. The
        batches are the first of the training, as its replicas take them.
        """
        if not self.spec.is_learned or self._averaged == self.step:
            return
        config, devices, images = self.config, self._devices, self._images
        count = -(-images.num_train_images // config.batch_size)
        count = config.accumulation_steps * min(RECOMPUTED_BATCHES, count)
        if devices.asynchronous:
            batches = images.training_batches(config.batch_size)
        else:
            batches = training_iterator(config, devices, images, first_step=0)
        if self._averages is None:
            self._averages = RunningAverages(self.model)
        self._averages.recompute(batch[0] for batch in itertools.islice(batches, count))
        self._averaged = self.step

    def _save_model(self):
        # All processes take part: some values lie on all of them.
        path = self._folder / MODEL_FILE
        temporary = path.with_name(f".{self._devices.worker}.{MODEL_FILE}")
        try:
            self.model.save(temporary)
            if self._devices.is_chief:
                os.replace(temporary, path)
                logging.info("the trained model is %s", path)
        finally:
            temporary.unlink(missing_ok=True)

    def _any_process(self, flag):
        """Whether the flag of any process is set: all then act together."""
        if self._devices.num_workers == 1 or self._devices.asynchronous:
            return flag
        strategy = self._devices.strategy
        mine = strategy.experimental_distribute_values_from_function(
            lambda _: tf.constant(float(flag))
        )
        return float(strategy.reduce(tf.distribute.ReduceOp.SUM, mine, axis=None)) > 0


@contextlib.contextmanager
def _warn_if_slow(results):
    """Says again and again which steps have not ended: TensorFlow waits for ever.

    Another worker does the steps of a lost one; without any, or without their
    parameter server, nobody does.
    """
    ended = threading.Event()

    def watch():
        began = time.monotonic()
        while not ended.wait(30):
            logging.warning(
                "these %d steps have not all ended after %d s. Are a worker or a "
                "parameter server gone? Steps of a lost worker are done by others; "
                "started again with its TF_CONFIG it takes part again. Without a "
                "parameter server, or all workers, start all processes again: the "
                "run goes on from its last checkpoint",
                len(results),
                time.monotonic() - began,
            )

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def check_start(config: RunConfig, devices: Devices) -> None:
    """All that can be wrong and takes neither images nor a network to find out.

    Raises:
        ValueError: The shards do not fit the workers, the weights are unknown, or
            `model_dir` is that of another run or cannot be written.
    """
    shards_of(config, devices)
    if devices.is_chief:
        folder = pathlib.Path(config.model_dir)
        config.verify(folder)
        existing = existing_folder(folder)
        if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
            raise ValueError(
                "model_dir must be a folder that can be written, or made. Received: "
                f"{folder}; {existing} cannot be written"
            )
    else:
        config.identity()


def resolve_optimizer(config: RunConfig, num_train_images: int) -> OptimizerSpec:
    """The optimizer of a run, checked, see `imagenet.optimizers.OptimizerSpec`."""
    steps_per_epoch = num_train_images / config.batch_size
    train_steps = config.train_steps or math.ceil(config.epochs * steps_per_epoch)
    names = ("batch_size", "learning_rate", "schedule", "warmup_steps")
    names += ("weight_decay", "weights", "state_dtype")
    return OptimizerSpec(
        config.optimizer,
        train_steps=train_steps,
        steps_per_epoch=steps_per_epoch,
        **{name: getattr(config, name) for name in names},
    )
