"""Estimators for whole runs: where a population stands, and what its scores say.

    points = estimator.ask(generation)
    estimator.tell(points, scores)          # the higher the better
    estimator.center

Scores count by their ranks alone. What is random follows from the seed and the number
of the generation, so a search that goes on from `state` ends as one that never stopped.
"""

import abc
from typing import ClassVar

import cma
import numpy as np

from meta_training.outer.meta_optimizers import MetaOptimizer


class PopulationEstimator(abc.ABC):
    """See above.

    Attributes:
        center: `[size]`, the middle of the population, and the outcome.
        is_guided: Whether `observe` is to be called before each `ask`.

    Args:
        size: Numbers that are searched.
        members: Of a generation, 2 or more.
        sigma: Standard deviation of the numbers, at the start.
        seed: Of everything random.
        learning_rate: Of Adam, where it is used.
    """

    is_guided: ClassVar[bool] = False

    def __init__(
        self,
        size: int,
        members: int,
        sigma: float,
        seed: int = 0,
        learning_rate: float = 0.01,
    ):
        if members < 2:
            raise ValueError(
                f"a population must have 2 members or more. Received: {members}"
            )
        if not (sigma > 0 and learning_rate > 0):
            raise ValueError(
                "sigma and learning_rate must be positive. "
                f"Received: {sigma} and {learning_rate}"
            )
        self.size, self.members, self.sigma, self.seed = size, members, sigma, seed
        self.learning_rate = learning_rate
        self.center = np.zeros(size)
        self.prepare()

    @abc.abstractmethod
    def prepare(self) -> None:
        """Makes what a subclass carries on from generation to generation."""

    @abc.abstractmethod
    def ask(self, generation: int) -> np.ndarray:
        """`[members, size]` points of a generation."""

    @abc.abstractmethod
    def tell(self, points: np.ndarray, scores: np.ndarray) -> None:
        """Takes the scores of these points in: `[members]`, higher is better."""

    @abc.abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint needs."""

    @abc.abstractmethod
    def restore(self, state: dict[str, np.ndarray]) -> None:
        """The reverse of `state`."""

    def generator(self, generation: int) -> np.random.Generator:
        """Of what is drawn in a generation."""
        return np.random.default_rng([self.seed, generation])


class CovarianceAdaptation(PopulationEstimator):
    """CMA-ES (Hansen 2016) by the package `cma`, for up to some hundred numbers.

    It is restored by telling it its history once more.
    """

    is_diagonal: ClassVar[bool] = False

    def prepare(self):
        self._history: list[tuple[np.ndarray, np.ndarray]] = []
        self._strategy = cma.CMAEvolutionStrategy(
            np.zeros(self.size),
            self.sigma,
            {
                "popsize": self.members,
                "CMA_diagonal": self.is_diagonal,
                "randn": self._draw,
                # It would seed NumPy.
                "seed": np.nan,
                "verbose": -9,
            },
        )

    def _draw(self, *shape):
        return self._generator.standard_normal(shape)

    def ask(self, generation):
        self._generator = self.generator(generation)
        return np.array(self._strategy.ask())

    def tell(self, points, scores):
        self._history.append((np.array(points), np.array(scores)))
        self._strategy.tell(list(points), list(-np.asarray(scores)))
        self.center = np.array(self._strategy.mean)
        self.sigma = float(self._strategy.sigma)

    def state(self):
        points = [points for points, _ in self._history]
        scores = [scores for _, scores in self._history]
        return {
            "points": np.reshape(points, (-1, self.members, self.size)),
            "scores": np.reshape(scores, (-1, self.members)),
        }

    def restore(self, state):
        for generation, (points, scores) in enumerate(
            zip(state["points"], state["scores"], strict=True)
        ):
            self.ask(generation)
            self.tell(points, scores)


class SeparableCovarianceAdaptation(CovarianceAdaptation):
    """The same with a diagonal covariance (Ros and Hansen 2008)."""

    is_diagonal = True


class EvolutionStrategies(PopulationEstimator):
    """Antithetic evolution strategies, by ranks, with Adam.

    Half of the points are drawn, the others lie opposite (Salimans et al. 2017).

    Raises:
        ValueError: The number of members is odd.
    """

    def prepare(self):
        if self.members % 2:
            raise ValueError(
                "a population of antithetic pairs must have an even number of members. "
                f"Received: {self.members}"
            )
        self._adam = MetaOptimizer("adam", self.learning_rate)
        self._slots = self._adam.initial_state({"center": np.zeros(self.size)})

    def ask(self, generation):
        steps = self.sigma * self.directions(self.generator(generation))
        # A pair is two neighbours.
        pairs = np.stack([steps, -steps], axis=1).reshape(self.members, self.size)
        return self.center + pairs

    def directions(self, generator) -> np.ndarray:
        """`[members / 2, size]`, about standard normal."""
        return generator.standard_normal((self.members // 2, self.size))

    def tell(self, points, scores):
        gradient = rank_gradient(points - self.center, scores)
        # Adam descends, and its slots are float32.
        values, self._slots = self._adam.apply(
            {"center": self.center}, {"center": -gradient}, self._slots, 0
        )
        self.center = values["center"].astype(np.float64)

    def state(self):
        return {"center": self.center, **self._slots}

    def restore(self, state):
        self.center = state["center"].copy()
        self._slots = {name: state[name].copy() for name in self._slots}


class GuidedEvolutionStrategies(EvolutionStrategies):
    """The same with half of the variance in the span of recent meta-gradients.

    Maheswaranathan et al., *Guided Evolutionary Strategies*, 2019: the covariance is
    sigma² (a I + (1 - a) n / k U Uᵀ), where U is an orthonormal basis of the last k
    gradients and a = 1/2. Truncated ones point about the right way, at no cost beside
    that of whole runs; what they leave out the other half finds.
    """

    is_guided = True
    remembered: ClassVar[int] = 5
    unguided: ClassVar[float] = 0.5

    def prepare(self):
        super().prepare()
        self._gradients = np.zeros((0, self.size))

    def observe(self, gradient: np.ndarray) -> None:
        """Takes in a meta-gradient at the center, `[size]`, along which losses rise."""
        if np.all(np.isfinite(gradient)) and np.any(gradient):
            direction = gradient / np.linalg.norm(gradient)
            gradients = np.concatenate([self._gradients, direction[np.newaxis]])
            self._gradients = gradients[-self.remembered :]

    def directions(self, generator):
        anywhere = super().directions(generator)
        if not len(self._gradients):
            return anywhere
        _, lengths, basis = np.linalg.svd(self._gradients, full_matrices=False)
        basis = basis[lengths > 1e-6 * lengths[0]]
        within = generator.standard_normal((len(anywhere), len(basis))) @ basis
        scale = (1 - self.unguided) * self.size / len(basis)
        return np.sqrt(self.unguided) * anywhere + np.sqrt(scale) * within

    def state(self):
        return {**super().state(), "gradients": self._gradients}

    def restore(self, state):
        super().restore(state)
        self._gradients = state["gradients"].copy()


ESTIMATORS: dict[str, type[PopulationEstimator]] = {
    "cma": CovarianceAdaptation,
    "separable_cma": SeparableCovarianceAdaptation,
    "evolution_strategies": EvolutionStrategies,
    "guided_evolution_strategies": GuidedEvolutionStrategies,
}


def rank_gradient(steps: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """`[size]`, along which `[members]` scores rise, by their ranks.

    `steps`, `[members, size]`, are those from the center. Its length means nothing.
    """
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    # Equal scores have equal ranks, the mean of theirs.
    _, group = np.unique(scores, return_inverse=True)
    ranks = (np.bincount(group, ranks) / np.bincount(group))[group]
    utilities = (ranks - ranks.mean()) / max(len(scores) - 1, 1)
    scale = max(float(np.mean(np.square(steps))), 1e-300)
    return utilities @ steps / (len(scores) * scale)


def agreement(steps: np.ndarray, scores: np.ndarray) -> float:
    """The cosine between the estimates of the two halves of a population.

    At or below 0 over many generations, the scores are noise. A half is a run of
    neighbours, so no pair is torn apart.
    """
    half = len(steps) // 4 * 2 or len(steps) // 2
    first, second = (
        rank_gradient(steps[part], scores[part])
        for part in (slice(half), slice(half, None))
    )
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / lengths) if lengths > 0 else 0.0
