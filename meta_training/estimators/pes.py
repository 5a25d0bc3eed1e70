"""Persistent evolution strategies: no bias from truncation, and no backpropagation.

Vicol, Metz, Sohl-Dickstein, *Unbiased Gradient Estimation in Unrolled Computation
Graphs with Persistent Evolution Strategies*, ICML 2021. Every task runs twice, by
meta-parameters perturbed by +e and by -e, with a new e for each window; what the
window's losses say is credited to the sum of all perturbations since the trajectory
began, since they all led here:

    gradient = (e_1 + ... + e_w) (loss(+) - loss(-)) / (2 sigma^2)

A task of which one half was cut off as diverged has no part in the gradient of that
window: the bound stands for the loss of that half, and its difference to the other,
divided by 2 sigma^2, would be larger than the slopes of all other tasks together.
"""

import numpy as np
import tensorflow as tf

from meta_training.estimators.base import Estimate, Estimator, register_estimator
from meta_training.tasks.base import broadcast_tasks


@register_estimator("pes")
class PersistentEvolutionStrategies(Estimator):
    """Antithetic pairs, with separate perturbations for each task.

    Attributes:
        sigma: Standard deviation of the perturbations. Arrays that the optimizer has
            fixed have none, and a gradient of 0.
    """

    replicas = 2

    def __init__(self, batch, optimizer, options, sigma=0.01):
        super().__init__(batch, optimizer, options)
        self.sigma = sigma
        tasks = len(batch.tasks)
        self._shapes = {
            specification.name: (tasks, *specification.shape)
            for specification in optimizer.specifications()
        }
        # The problems of each task, with +e and with -e.
        problems = np.argsort(batch.problem_task, kind="stable").astype(np.int32)
        self._pairs = problems.reshape(tasks, 2).T
        self._signs = np.ones(batch.num_problems, np.float32)
        self._signs[self._pairs[1]] = -1

    def initial_state(self):
        return {
            name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()
        }

    def estimate(self, meta_parameters, carry, state, num_steps, seed) -> Estimate:
        perturbations = self.perturbations(seed)
        problem_task = self.unroll.batch.problem_task
        perturbed = {
            name: value
            + broadcast_tasks(self._signs, perturbations[name])
            * tf.gather(perturbations[name], problem_task)
            for name, value in meta_parameters.items()
        }
        window = self.unroll.run(perturbed, carry, num_steps, seed)
        fresh = tf.gather(carry.fresh, self._pairs[0])
        accumulated = {
            name: tf.where(broadcast_tasks(fresh, value) > 0, 0.0, value)
            + perturbations[name]
            for name, value in state.items()
        }
        plus, minus = (tf.gather(window.losses, problems) for problems in self._pairs)
        # The weights of a pair add up to that of its task.
        weights = tf.gather(carry.weights, self._pairs[0]) * 2.0
        slopes = weights * (plus - minus) / (2.0 * self.sigma**2)
        alive = tf.reduce_min(tf.gather(window.alive, self._pairs), axis=0)
        slopes = tf.where(alive > 0, slopes, 0.0)
        gradient = {
            name: tf.tensordot(slopes, value, axes=1)
            for name, value in accumulated.items()
        }
        return Estimate(gradient, window, accumulated)

    def perturbations(self, seed):
        """The perturbations of one window, `{name: [tasks, *shape]}`."""
        sizes = [int(np.prod(shape)) for shape in self._shapes.values()]
        is_fixed = self.unroll.optimizer.is_fixed
        # Apart from the seeds of the inner steps, which count upwards.
        drawn = tf.random.stateless_normal([sum(sizes)], tf.stack([seed, -1]))
        return {
            name: self.sigma * (not is_fixed(name)) * tf.reshape(piece, shape)
            for (name, shape), piece in zip(
                self._shapes.items(), tf.split(drawn, sizes), strict=True
            )
        }
