"""The table of behaviours and ways to run them; `ways.py` has its rows and columns."""

import numpy as np
import pytest

from tests.learned_optimizer import by_hand
from tests.learned_optimizer.ways import BEHAVIOURS, WAYS, check

# Each compiles anew, so these are the quick ones: every behaviour in one way, one
# behaviour in every way, and some more where the way matters most. The rest of the
# table is marked slow, and of ways that differ from another only in how a step comes
# about there are the behaviours that carry something from step to step.
QUICK_IN_FIT = ("plain", "learning_rate", "accumulation", "unused")
QUICK_WITH_ATTENTION = ("custom_loop", "fit_jit_compile")
WHOLE = ("apply", "apply_in_chunks", "compiled_step", "fit", "fit_jit_compile")
IN_EVERY_WAY = (
    *("everything", "attention_everything", "not_finite_accumulated", "schedule"),
    *("loss_scale_factor", "constraint", "total_steps"),
)


def is_quick(way, behaviour):
    return (
        way == "apply_in_chunks"
        or behaviour == "everything"
        or (way == "fit" and behaviour in QUICK_IN_FIT)
        or (way in QUICK_WITH_ATTENTION and behaviour == "attention_everything")
    )


CELLS = [
    pytest.param(
        way,
        behaviour,
        marks=() if is_quick(way, behaviour) else (pytest.mark.slow,),
        id=f"{way}-{behaviour}",
    )
    for way in WAYS
    for behaviour in BEHAVIOURS
    if way in WHOLE or behaviour in IN_EVERY_WAY
]


@pytest.mark.parametrize("way, behaviour", CELLS)
def test_every_behaviour_comes_out_as_by_hand_in_every_way(way, behaviour):
    check(BEHAVIOURS[behaviour], WAYS[way](BEHAVIOURS[behaviour]))


# Scaling the loss and unscaling its gradients changes nothing.
@pytest.mark.parametrize(
    "name", sorted(set(BEHAVIOURS) - {"plain", "loss_scale_factor"})
)
def test_every_behaviour_makes_a_difference(name):
    # Else the table would say nothing about it.
    names = (name, "plain")
    values = [BEHAVIOURS[each].expected().final_values() for each in names]
    moved = [np.abs(one - other).max() for one, other in zip(*values, strict=True)]
    assert max(moved) > 1e-2, moved


def test_the_broken_problem_breaks_single_tensors_and_all_at_once():
    finite = [
        [bool(np.all(np.isfinite(gradient))) for gradient in gradients]
        for gradients in by_hand.Problem.make().broken().gradients()
    ]
    assert finite == [
        [True] * 4,
        [True, False, True, True],
        [False, True, True, True],
        [True, True, True, False],
        [False] * 4,
        [True] * 4,
    ]
