"""Meta-parameters as each level of the hierarchy needs them."""

from keras import ops

from learned_optimizer.rule.gru import GRUKernels, affine, feature_first, linear


class Levels:
    """Meta-parameters as the rows of each level need them: shared, or gathered.

    The rows of the levels are blocks ("parameter"), tensors and problems ("problem",
    or "global" as its cell is called). `per_problem`, whether the arrays have a leading
    axis of problems, is by default read from those of the hierarchical RNN.
    """

    def __init__(self, meta_parameters, layout, per_problem: bool | None = None):
        self._values = meta_parameters
        self._layout = layout
        if per_problem is None:
            per_problem = len(meta_parameters["parameter_gates_kernel"].shape) == 3
        self.per_problem = per_problem

    def get(self, name, level):
        """The array called `name` for the rows of `level`."""
        value = self._values[name]
        if self.per_problem and level == "parameter":
            return ops.take(value, self._layout.block_problem, axis=0)
        if self.per_problem and level == "tensor":
            return ops.take(value, self._layout.tensor_problem, axis=0)
        return value

    def has(self, name):
        """Whether the architecture has the array called `name`."""
        return name in self._values

    def affine(self, name, level, x):
        """`x` through the kernel and bias called `name`."""
        return affine(
            self.get(f"{name}_kernel", level), self.get(f"{name}_bias", level), x
        )

    def readout(self, name, hidden):
        """`[size, blocks, block_size]` through weights and bias: `[1, ...]`."""
        value = linear(self.get(f"{name}_weights", "parameter"), hidden)
        if self.has(f"{name}_bias"):
            value = value + feature_first(self.get(f"{name}_bias", "parameter"), 3)
        return value

    def scalar(self, name):
        """A scalar that broadcasts against `[1, blocks, block_size]`."""
        value = self.get(name, "parameter")
        return ops.reshape(value, (1, -1, 1)) if self.per_problem else value

    def kernels(self, level) -> GRUKernels:
        """The kernels of a level's cell."""
        return GRUKernels(
            self.get(f"{level}_gates_kernel", level),
            self.get(f"{level}_candidate_kernel", level),
        )

    def cell_bias(self, cell, level):
        """The bias of `cell`, `[3 * size, 1 or rows]`, for the rows of `level`."""
        parts = [
            self.get(f"{cell}_{name}_bias", level) for name in ("gates", "candidate")
        ]
        return feature_first(ops.concatenate(parts, axis=-1), 2)
