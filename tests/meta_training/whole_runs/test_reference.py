"""Scores against the reference, computed once more by a search step by step."""

import math

import numpy as np
import pytest

from meta_training.whole_runs.reference import ReferenceTable

STEPS = np.array([[0, 1, 10, 100], [0, 2, 20, 200], [0, 4, 40, 400]])
# A constant rate, then a cosine; the second horizon of the first rises in between.
LOSSES = np.array(
    [
        [
            [[2.0, 1.0, 0.5, 0.1], [2.0, 0.8, 0.9, 0.05], [2.0, 1.0, 0.4, 1e-7]],
            [[2.0, 1.0, 0.2, 0.02], [2.0, 1.0, 0.3, 0.01], [2.0, 1.0, 0.4, 0.008]],
        ]
    ]
)
# Of which three times is what running averages give.
EVALUATION_LOSSES = 3 * LOSSES
TABLE = ReferenceTable(
    ("bowl",),
    np.array([100, 200, 400]),
    STEPS,
    LOSSES,
    EVALUATION_LOSSES,
    np.ones((1, 2, 3)),
)


def needed_by_hand(horizon, is_known, loss):
    """Walks along the curve in small steps of the logarithm."""
    column = [100, 200, 400].index(horizon)
    curves = LOSSES[0, int(is_known)]
    steps = [0.5, *STEPS[column][1:]]
    losses = list(curves[column])
    for later in range(column + 1, 3):
        steps.append([100, 200, 400][later])
        losses.append(curves[later][-1])
    losses = [max(value, 1e-4) for value in losses]
    loss = max(loss, 1e-4) if math.isfinite(loss) else math.inf
    best = losses[0]
    if loss >= best:
        return steps[0]
    for i in range(1, len(steps)):
        reached = min(best, losses[i])
        for part in np.linspace(0, 1, 2001):
            height = best ** (1 - part) * reached**part
            if height <= loss * (1 + 1e-12):
                return steps[i - 1] ** (1 - part) * steps[i] ** part
        best = reached
    return math.inf


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("horizon", [100, 200, 400])
def test_steps_to_reach_a_loss(horizon, is_known):
    losses = [5.0, 2.0, 1.5, 0.85, 0.5, 0.3, 0.05, 0.015, 0.009, 3e-4, 1e-9]
    losses += [math.nan, math.inf]
    found = TABLE.steps_to_reach("bowl", horizon, is_known, np.array(losses))
    wanted = [needed_by_hand(horizon, is_known, loss) for loss in losses]
    np.testing.assert_allclose(found, wanted, rtol=5e-3)


def test_the_score_of_a_run():
    """Half at the end, half along the way, clipped, the start left out."""
    steps = np.array([0, 10, 40, 100])
    losses = np.array([2.0, 0.2, 0.15, 0.01])
    bound = math.log(4)
    ratios = [
        math.log(needed_by_hand(100, True, loss) / step)
        for step, loss in zip(steps[1:], losses[1:], strict=True)
    ]
    ratios = [min(max(ratio, -bound), bound) for ratio in ratios]
    wanted = 0.5 * ratios[-1] + 0.5 * (ratios[0] + ratios[1]) / 2
    score = TABLE.score("bowl", 100, True, steps, losses, 3 * losses)
    assert score == pytest.approx(wanted, abs=5e-3)
    # Many runs at once, of which one diverges.
    both = np.stack([losses, [2.0, 0.2, math.nan, math.inf]], axis=1)
    scores = TABLE.score("bowl", 100, True, steps, both, 3 * both)
    assert scores[0] == pytest.approx(score)
    assert scores[1] == pytest.approx(-0.5 * bound + 0.5 * (ratios[0] - bound) / 2)
    # Running averages that are useless all along count for half.
    useless = np.full_like(losses, 1e3)
    mixed = TABLE.score("bowl", 100, True, steps, losses, useless)
    assert mixed == pytest.approx(0.5 * score - 0.5 * bound)


def test_the_reference_itself_has_no_lead():
    for is_known in (False, True):
        for column, horizon in enumerate((100, 200, 400)):
            least = np.minimum.accumulate(LOSSES[0, int(is_known), column])
            score = TABLE.score(
                "bowl", horizon, is_known, STEPS[column], least, 3 * least
            )
            # Where its curve rose the reference was there earlier.
            assert -0.6 < score < 1e-6
    curve = LOSSES[0, 1, 0]
    score = TABLE.score("bowl", 100, True, STEPS[0], curve, 3 * curve)
    assert score == pytest.approx(0)


def test_a_table_is_read_as_it_was_written(tmp_path):
    TABLE.save(tmp_path / "table.npz")
    found = ReferenceTable.load(tmp_path / "table.npz")
    assert found.tasks == TABLE.tasks
    for name in ("losses", "evaluation_losses", "rates"):
        np.testing.assert_array_equal(getattr(found, name), getattr(TABLE, name))


@pytest.mark.parametrize(
    "tasks, horizons, message",
    [(["bowl", "cup"], [100], "cup"), (["bowl"], [100, 300], "300")],
)
def test_what_has_no_row_is_refused(tasks, horizons, message):
    with pytest.raises(ValueError, match=rf"must have a row.*{message}"):
        TABLE.check(tasks, horizons)


def test_a_missing_table_says_how_to_compute_it(tmp_path):
    with pytest.raises(ValueError, match="python -m meta_training.reference"):
        ReferenceTable.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", tasks=np.zeros(2))
    with pytest.raises(ValueError, match=r"Missing: \['evaluation_losses'"):
        ReferenceTable.load(tmp_path / "other.npz")
