"""Each estimator on a quadratic whose gradient is known."""

import numpy as np
import pytest

from meta_training.whole_runs.estimators import ESTIMATORS, agreement, rank_gradient

BOTTOM = np.array([1.0, -2.0, 0.5, 0.0])
SLOPES = np.array([1.0, 4.0, 0.5, 2.0])


def score(points):
    return -np.sum(SLOPES * np.square(points - BOTTOM), axis=-1)


def go_on(estimator, generations):
    for generation in generations:
        if estimator.is_guided:
            # About the right way, as truncated gradients are.
            slopes = 2 * SLOPES * (estimator.center - BOTTOM)
            estimator.observe(slopes + np.array([1.0, 0.0, 0.0, 0.0]))
        points = estimator.ask(generation)
        estimator.tell(points, score(points))
    return estimator


def make(name, members=12):
    return ESTIMATORS[name](4, members, 0.3, seed=3, learning_rate=0.05)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_the_bottom_is_found_and_a_resumed_search_is_the_same(name):
    whole = go_on(make(name), range(120))
    np.testing.assert_allclose(whole.center, BOTTOM, atol=0.15)
    half = go_on(make(name), range(50))
    resumed = make(name)
    resumed.restore(half.state())
    np.testing.assert_array_equal(half.center, resumed.center)
    go_on(resumed, range(50, 120))
    np.testing.assert_array_equal(whole.center, resumed.center)


def test_ranks_point_along_the_gradient():
    steps = 0.01 * np.random.default_rng(0).standard_normal((4000, 4))
    gradient = 2 * SLOPES * BOTTOM
    found = rank_gradient(steps, score(steps))
    cosine = found @ gradient / np.linalg.norm(found) / np.linalg.norm(gradient)
    assert cosine > 0.99
    # Ranks alone count.
    np.testing.assert_allclose(found, rank_gradient(steps, np.exp(score(steps))))
    # Equal scores say nothing.
    np.testing.assert_allclose(rank_gradient(steps, np.zeros(4000)), 0, atol=1e-12)


def test_two_halves_agree_where_scores_mean_something():
    generator = np.random.default_rng(1)
    steps = 0.01 * generator.standard_normal((400, 4))
    assert agreement(steps, score(steps)) > 0.9
    noise = [agreement(steps, generator.standard_normal(400)) for _ in range(50)]
    assert abs(np.mean(noise)) < 0.25
    assert agreement(steps[:2], np.zeros(2)) == 0


def test_pairs_lie_opposite_and_have_neighbouring_places():
    estimator = make("evolution_strategies")
    points = estimator.ask(0)
    np.testing.assert_allclose(points[::2], -points[1::2])
    assert not np.array_equal(points, estimator.ask(1))


def test_half_of_the_variance_lies_along_observed_gradients():
    """The covariance of the paper, and the mean length of plain strategies."""
    size, sigma = 40, 0.1
    guided, plain = (
        ESTIMATORS[name](size, 20_000, sigma)
        for name in ("guided_evolution_strategies", "evolution_strategies")
    )
    assert (guided.is_guided, plain.is_guided) == (True, False)
    generator = np.random.default_rng(2)
    gradients = generator.standard_normal((7, size))
    gradients[6] = gradients[5]
    for gradient in gradients:
        guided.observe(gradient)
    guided.observe(np.full(size, np.nan))
    guided.observe(np.zeros(size))
    points = guided.ask(0)
    covariance = points.T @ points / len(points)
    # The last five, of which two are equal.
    basis, _ = np.linalg.qr(gradients[2:6].T)
    wanted = sigma**2 * (0.5 * np.eye(size) + 0.5 * size / 4 * basis @ basis.T)
    np.testing.assert_allclose(covariance, wanted, atol=0.05 * wanted.max())
    lengths = [np.mean(np.square(found.ask(0))) for found in (guided, plain)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.05)


@pytest.mark.parametrize(
    "name, changes, message",
    [
        *((name, {"members": 1}, "2 members or more") for name in sorted(ESTIMATORS)),
        ("cma", {"sigma": 0.0}, "must be positive"),
        ("cma", {"learning_rate": 0.0}, "must be positive"),
        ("evolution_strategies", {"members": 5}, "even number of members"),
    ],
)
def test_a_population_that_cannot_be_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        ESTIMATORS[name](4, **{"members": 4, "sigma": 0.3, **changes})
