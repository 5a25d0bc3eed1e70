"""Each number that is said, by another way from the same CSV."""

import dataclasses
import math

import pytest

from learned_optimizer import load_weights
from learned_optimizer.rule.meta_parameters import specifications
from meta_training.experiments.ablations import VARIANTS, WHOLE, architecture
from meta_training.experiments.catalogue import experiment
from tests.meta_training.experiments_by_hand import cells, mean_of, write_runs


def test_ablations(tmp_path):
    names = [f"{variant}, seed {seed}" for variant in VARIANTS for seed in (0, 1)]
    rows = write_runs(tmp_path, names, ["a_net", "b_net", "bowl"], [0.1, 0.001])
    settings = experiment("ablations").settings("small")
    text = experiment("ablations").findings(tmp_path, settings)
    kinds = {"held_out_perceptron": 1, "bowl": 3}

    def score(variant, seed, family):
        own = dict(optimizer=f"{variant}, seed {seed}", family=family, rate=0.001)
        return mean_of(rows, "mean_log_loss", **own)

    assert [line[0] for line in cells(text)] == list(VARIANTS)
    # Settings name three seeds; there are rows of two.
    assert "mean of 2 seeds" in text and "`experiments_small`" in text
    for line in cells(text):
        for family, place in kinds.items():
            first, second = (score(line[0], seed, family) for seed in (0, 1))
            low, high = sorted([first, second])
            mean = (first + second) / 2
            assert line[place] == f"{mean:.2f} ({low:.2f} to {high:.2f})"
            whole = sum(score(WHOLE, seed, family) for seed in (0, 1)) / 2
            # Whoever subtracts the means that are printed finds the same.
            difference = round(round(mean, 2) - round(whole, 2), 2) + 0.0
            wanted = "" if line[0] == WHOLE else f"{difference:+.2f}"
            assert line[place + 1] == wanted


# Of the design, section 1, without the nominal rate.
@pytest.mark.parametrize(
    "name, numbers",
    [
        (WHOLE, 8349),
        ("attention added", 8363),
        ("no global level", 3979),
        ("no tensor and global level", 749),
    ],
)
def test_architectures_are_those_of_the_design(name, numbers):
    config = dataclasses.replace(architecture(name), nominal=None)
    shapes = [specification.shape for specification in specifications(config)]
    assert sum(math.prod(shape) for shape in shapes) == numbers


def test_every_ablation_changes_the_architecture():
    assert len({architecture(variant) for variant in VARIANTS}) == len(VARIANTS)


def test_the_whole_is_the_architecture_of_weights_that_ship():
    shipped = load_weights("default-v1").config
    assert architecture(WHOLE) == shipped
    later = load_weights("default-v2").config
    bounds = {"largest": 1.0, "shallow_tensors": 16.0}
    nominal = dataclasses.replace(shipped.nominal, **bounds)
    assert dataclasses.replace(shipped, nominal=nominal) == later
