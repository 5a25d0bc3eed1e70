"""Weights as reports name them."""

import dataclasses

import pytest

from learned_optimizer import load_weights
from learned_optimizer.weights import ALIASES
from meta_training.experiments import evaluated_weights
from meta_training.experiments.catalogue import experiment
from meta_training.experiments.runner import Request, run_experiment
from meta_training.optimizers import as_trained
from tests.meta_training.experiments_by_hand import Counted


class TestEvaluatedWeights:
    def test_without_a_card_their_numbers_name_them(self, weights):
        unsaved = dataclasses.replace(weights, card={})
        again = dataclasses.replace(weights, card={}, name="other")
        values = dict(weights.meta_parameters)
        values["learning_rate_bias"] = values["learning_rate_bias"] + 1
        changed = dataclasses.replace(unsaved, meta_parameters=values)
        slower = dataclasses.replace(unsaved, initial_learning_rate=1e-6)
        found = [
            Request("small", None, w).settings(experiment("cost"))["weights_sha256"]
            for w in (weights, unsaved, again, changed, slower)
        ]
        assert found[0] == load_weights("default").card["sha256"]
        assert found[1] == found[2]
        assert len(set(found)) == 4 and all(len(sha256) == 64 for sha256 in found)

    @pytest.mark.parametrize(
        "name, said",
        [
            (
                "default-v1",
                "was meta-trained on the task set `default_networks` for 100 outer "
                "steps, from `bootstrap-v1`, then calibrated.",
            ),
            (
                "no_neural_networks-v1",
                "was meta-trained on the task set `no_neural_networks` for 200 outer "
                "steps.",
            ),
            (
                "released-v1",
                "was meta-trained on the task set `released` for 960 outer steps.",
            ),
            ("bootstrap-v1", "was meta-trained, its card does not say."),
        ],
    )
    def test_their_training_is_what_the_card_says(self, name, said):
        trained = as_trained(load_weights(name))
        entry = evaluated_weights.entry_of(trained)
        assert evaluated_weights.sentence(entry).endswith(f"`{trained.name}` {said}")
        # An earlier version noted name and sha256 alone.
        del entry["training"]
        assert "does not say" in evaluated_weights.sentence(entry)

    def test_it_stands_beside_what_was_found(self, tmp_path, request_of):
        run_experiment(Counted(), request_of(), tmp_path)
        paragraph = (tmp_path / "counted" / "paragraph.md").read_text()
        assert f"`{ALIASES['default']}` was meta-trained on" in paragraph
