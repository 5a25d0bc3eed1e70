"""Runs of meta-training that differ in their seeds, in one compiled program.

An ablation trains the same architecture several times. Compiling takes as long as many
outer steps do, so the windows of all seeds go through one program: a loop over the
seeds around what one run would compile. Each run stays a `Trainer` with a folder, a
checkpoint and weights of its own and ends with the meta-parameters that it would have
alone; the runs meet at every outer step, where one of them runs the windows of all.

>>> trainers = [(config_of_seed, folder_of_seed), ...]            # doctest: +SKIP
>>> train_side_by_side(trainers)                                 # doctest: +SKIP
"""

import threading
from collections.abc import Sequence

import tensorflow as tf

from meta_training.distribution.base import Distribution, Outcome
from meta_training.estimators import Estimate
from meta_training.inner.windows import Window
from meta_training.outer.trainer import Trainer
from meta_training.outer.training_config import TrainingConfig


def train_side_by_side(
    runs: Sequence[tuple[TrainingConfig, str]],
) -> list[Trainer]:
    """Trains, or goes on with, runs that differ in nothing but seed and start.

    A killed call goes on from the checkpoint of each run, also where those are of
    different outer steps.

    Args:
        runs: The settings and the folder of each.

    Returns:
        The trainers, at their last outer steps.

    Raises:
        ValueError: The settings differ in more than `seed` and `init_weights`, or a
            run has several cohorts.
    """
    _check([config for config, _ in runs])
    meeting = _Meeting()
    trainers = [Trainer(config, folder, _Member(meeting)) for config, folder in runs]
    unfinished = [
        trainer
        for trainer in trainers
        if trainer.outer_step < trainer.config.outer_steps
    ]
    if unfinished:
        meeting.open(unfinished[0], len(unfinished))
        _train_in_threads(unfinished, meeting)
    return trainers


def stacked_estimate(estimate, max_objectives: int):
    """An estimator's `estimate` for runs stacked along a new first axis.

    Args:
        estimate: Of one run.
        max_objectives: Objectives recorded in the longest window.

    Returns:
        A function of the same arguments and result, all stacked.
    """

    def stacked(meta_parameters, carry, state, num_steps, seed):
        def one(tensor):
            return tf.TensorSpec(tensor.shape[1:], tensor.dtype)

        by_problem = one(carry.alive)
        window = Window(
            inner=tf.nest.map_structure(one, carry.inner),
            alive=by_problem,
            initial_objective=by_problem,
            objectives=tf.TensorSpec([max_objectives, *by_problem.shape]),
            losses=by_problem,
            mean_log_learning_rate=by_problem,
        )
        return tf.map_fn(
            lambda arguments: estimate(*arguments),
            (meta_parameters, carry, state, num_steps, seed),
            fn_output_signature=Estimate(
                tf.nest.map_structure(one, meta_parameters),
                window,
                tf.nest.map_structure(one, state),
            ),
            parallel_iterations=1,
        )

    return stacked


class _Meeting:
    """Where the threads of all runs meet once an outer step.

    A run that has ended keeps coming, so that the program keeps its shape; its last
    window is then run again for nothing.
    """

    def __init__(self):
        self.over = False
        self._submitted = 0

    def open(self, trainer, count):
        """Lets `count` runs in; `trainer` is any of them."""
        batch = trainer.batch
        self._program = tf.function(
            stacked_estimate(
                trainer.estimator.estimate, trainer.config.unroll.max_objectives
            ),
            # The parts of a batch are programs of their own, see `InParts`.
            jit_compile=batch.num_parts == 1,
            autograph=False,
        )
        self._arguments = {}
        self._lock = threading.Lock()
        self.barrier = threading.Barrier(count, action=self._run)

    def exchange(self, member, arguments) -> Estimate:
        """Hands in the window of a run, waits for all others, gives its outcome."""
        with self._lock:
            self._arguments[member] = arguments
            self._submitted += 1
        self.barrier.wait()
        return self._outcomes[member]

    def stay(self):
        """What a run does when it has ended, until all have."""
        while not self.over:
            self.barrier.wait()

    def _run(self):
        if not self._submitted:
            self.over = True
            return
        self._submitted = 0
        members = list(self._arguments)
        stacked = tf.nest.map_structure(_stack, *self._arguments.values())
        found = tf.nest.map_structure(
            lambda part: part.numpy(), self._program(*stacked)
        )
        self._outcomes = {
            member: tf.nest.map_structure(lambda part, i=i: part[i], found)
            for i, member in enumerate(members)
        }


class _Member(Distribution):
    """One run's way to the meeting, as the distribution of its only cohort."""

    name = "side_by_side"

    def __init__(self, meeting: _Meeting):
        self._meeting = meeting

    def start(self, cohorts, estimate):
        del estimate
        (self._cohort,) = cohorts

    def next_outcome(self, meta_parameters) -> Outcome:
        arguments = (dict(meta_parameters), *self._cohort.begin())
        estimate = self._meeting.exchange(self, arguments)
        return Outcome([self._cohort.end(estimate)], {})


def _stack(*parts):
    # `tf.stack` of NumPy arrays takes [0, n] for [0].
    return tf.stack([tf.convert_to_tensor(part) for part in parts])


def _train_in_threads(trainers, meeting):
    errors = []

    def work(trainer):
        try:
            trainer.train()
            meeting.stay()
        except threading.BrokenBarrierError:
            pass  # Another run failed, and says why.
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [
        threading.Thread(target=work, args=(trainer,), daemon=True)
        for trainer in trainers
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        meeting.barrier.abort()
        raise
    if errors:
        raise errors[0]


def _check(configs):
    """Raises ValueError unless the settings differ in seed and start alone."""
    if not configs:
        raise ValueError("runs side by side must be one or more. Received: none")
    shared = []
    for config in configs:
        values = config.to_dict()
        del values["seed"], values["init_weights"]
        shared.append(values)
    for values in shared:
        differing = sorted(
            name for name, value in values.items() if value != shared[0][name]
        )
        if differing:
            raise ValueError(
                "runs side by side must differ in seed and init_weights alone. "
                f"Received: other values of {', '.join(differing)}"
            )
    if configs[0].cohorts != 1:
        raise ValueError(
            "runs side by side must have one cohort each. "
            f"Received: cohorts={configs[0].cohorts}"
        )
