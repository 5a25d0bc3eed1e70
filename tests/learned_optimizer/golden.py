"""The golden update-rule cases as inputs and outputs of our own rule.

`GOLDEN_DIR` names another folder in the same format; it may hold `update_rule`
cases alone.
"""

import os
import pathlib

import numpy as np

from learned_optimizer.rule import layout as packing
from learned_optimizer.rule.config import Config
from learned_optimizer.rule.meta_parameters import from_released_names
from learned_optimizer.rule.state import State, state_shapes
from tests.golden import read_golden

FOLDER = pathlib.Path(
    os.environ.get("GOLDEN_DIR") or pathlib.Path(read_golden.__file__).parent
)


def case_names():
    """Names of all update-rule cases of the folder."""
    return sorted(read_golden.load_manifest(FOLDER)["update_rule"])


class GoldenCase:
    """One case, read once: `expected` as `read_golden` gives it, and parts of it.

    `gradients` and `taken`, what each step took off, are `[steps, *shape]` a tensor.
    """

    def __init__(self, name):
        self.name = name
        self.expected = read_golden.load_update_case(name, FOLDER)
        released = dict(self.expected["cfg"])
        released["global_rnn_input"] = (
            "all_tensors" if self.expected.get("paper_global") else "last_tensor"
        )
        self.config = Config.from_dict(released)
        self.meta_parameters = from_released_names(self.config, self.expected["meta"])
        self.parameters = self.expected["params0"]
        self.gradients = self.expected["grads"]
        arrays = np.load(FOLDER / self.expected["file"])
        self.taken = [arrays[f"step/{i}"] for i in range(len(self.parameters))]
        self.steps = self.expected["T"]

    @property
    def shapes(self):
        """The tensors' shapes."""
        return [array.shape for array in self.parameters]

    def initial_state(self, layout) -> State:
        """The state the released code started from, packed."""
        return pack_state(
            self.expected["states"][0], self.expected["global0"], layout, self.config
        )


def pack_state(tensors, global_state, layout, config) -> State:
    """A `State` from the golden states of all tensors (first step not done)."""

    def features(names):
        rows = [
            np.asarray(
                packing.pack([state[name][:, column] for state in tensors], layout)
            )
            for name, column in names
        ]
        shape = (len(layout.block_tensor), layout.block_size)
        return np.stack(rows) if rows else np.zeros((0, *shape), np.float32)

    timescales = range(1, config.gradient_timescales + 1)
    rate = "log_learning_rate"
    # Fields that the released code does not have are absent, or 0.
    shapes = state_shapes(layout, config)
    state = State(*(np.zeros(shapes[name], np.float32) for name in State._fields))
    return state._replace(
        hidden_state=features(
            [("parameter", column) for column in range(config.level_sizes[0])]
        ),
        gradient_averages=features([(f"grad_accum{k}", 0) for k in timescales]),
        mean_squares=features([(f"ms{k}", 0) for k in timescales]),
        log_learning_rate=features([(rate, 0)] if rate in tensors[0] else []),
        tensor_state=np.stack([state["layer"][0] for state in tensors], axis=1)
        if config.levels >= 2
        else np.zeros((0, len(tensors)), np.float32),
        global_state=np.reshape(global_state, (-1, 1))
        if config.levels >= 3
        else np.zeros((0, 1), np.float32),
    )
