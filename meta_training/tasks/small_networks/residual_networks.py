"""Deep residual networks with batch normalisation, on small data.

They teach what no shallow network can: that the steps of many layers add up, that the
scales of a normalisation start at 1 and need small steps all the same, and that a
gradient says nothing of the size of a kernel behind a normalisation.

The blocks are those of He et al., *Identity Mappings in Deep Residual Networks*, 2016,
figure 1 (b): normalisation and activation before each of two layers.
"""

import dataclasses

import tensorflow as tf

from learned_optimizer.utils.flags import setting
from meta_training.tasks.small_networks import layers, random_data
from meta_training.tasks.small_networks.image_networks import KERNEL_SIZE
from meta_training.tasks.small_networks.networks import ClassifierNetwork


@dataclasses.dataclass(frozen=True)
class _ResidualNetwork(ClassifierNetwork):
    """A stem, residual blocks, a last normalisation, and a dense layer.

    A subclass has `stem_shape`, that of the first kernel; `block_shapes`, those of the
    kernels of each block, two or, where it has stride 2, a shortcut's too; a `layer`
    without a bias; and `features`, `[tasks, rows, units]` of what the last block gives.
    """

    @property
    def parameter_shapes(self):
        shapes = [self.stem_shape]
        for kernels in self.block_shapes:
            for kernel in kernels[:2]:
                # Scale and offset of the normalisation before the layer.
                shapes += [(kernel[-2],), (kernel[-2],), kernel]
            shapes += kernels[2:]
        units = shapes[-1][-1]
        return (*shapes, (units,), (units,), (units, self.classes), (self.classes,))

    def sample_parameters(self, generator):
        start = super().sample_parameters(generator)
        vectors = [tensor for tensor in start if tensor.ndim == 1]
        # The last is the bias of the dense layer.
        for scale in vectors[:-1:2]:
            scale[...] = 1
        return start

    @property
    def statistics_shapes(self):
        # Of the layers before each kernel of a block, and of the last one.
        kernels = [kernel for block in self.block_shapes for kernel in block[:2]]
        units = [kernel[-2] for kernel in kernels] + [kernels[-1][-1]]
        return tuple((count,) for count in units for _ in range(2))

    def outputs(self, parameters, data, activate, batch_normalise):
        remaining = iter(parameters)

        def normalised(values):
            scale, offset = next(remaining), next(remaining)
            return activate(batch_normalise(values, scale, offset))

        hidden = self.layer(data, next(remaining))
        for kernels in self.block_shapes:
            stride = 2 if len(kernels) > 2 else 1
            before = normalised(hidden)
            inner = self.layer(before, next(remaining), stride)
            added = self.layer(normalised(inner), next(remaining))
            if stride == 2:
                hidden = self.layer(before, next(remaining), stride)
            hidden = hidden + added
        features = self.features(normalised(hidden))
        return layers.dense(features, next(remaining), next(remaining))


@dataclasses.dataclass(frozen=True)
class ResidualPerceptron(_ResidualNetwork):
    """Residual blocks of two dense layers each, all of one width.

    Attributes:
        inputs, width, blocks, classes: features of the data, units of every layer,
            blocks, and classes.
    """

    inputs: int
    width: int
    blocks: int
    classes: int
    source: str = setting("mixture", "Of data.", choices=random_data.VECTOR_SOURCES)

    numbers = (*ClassifierNetwork.numbers, "source")

    @property
    def stem_shape(self):
        return (self.inputs, self.width)

    @property
    def block_shapes(self):
        return (((self.width, self.width),) * 2,) * self.blocks

    def sample_data(self, generator):
        draw = random_data.VECTOR_SOURCES[self.source]
        return draw(generator, self.rows, self.inputs, self.classes)

    def layer(self, values, kernel, stride=1):
        return tf.matmul(values, kernel)

    def features(self, values):
        return values


@dataclasses.dataclass(frozen=True)
class ResidualImageNetwork(_ResidualNetwork):
    """Residual blocks of two 3 x 3 convolutions each, then a mean over all pixels.

    Attributes:
        image_shape: height, width, channels.
        filters: of each stage; all stages but the first halve the image.
        blocks: of each stage.
        classes: of the images.
    """

    image_shape: tuple[int, int, int]
    filters: tuple[int, ...]
    blocks: int
    classes: int
    source: str = setting("patterns", "Of images.", choices=random_data.IMAGE_SOURCES)

    # A loss of all rows would take as long as a hundred steps.
    recorded_rows = 512
    numbers = (*ClassifierNetwork.numbers, "source")

    def __post_init__(self):
        super().__post_init__()
        if not self.filters:
            raise ValueError("filters must have one stage or more. Received: none")

    @property
    def stem_shape(self):
        return (KERNEL_SIZE, KERNEL_SIZE, self.image_shape[-1], self.filters[0])

    @property
    def block_shapes(self):
        square = (KERNEL_SIZE, KERNEL_SIZE)
        shapes, before = [], self.filters[0]
        for stage, units in enumerate(self.filters):
            for block in range(self.blocks):
                kernels = ((*square, before, units), (*square, units, units))
                if stage and not block:
                    kernels += ((1, 1, before, units),)
                shapes.append(kernels)
                before = units
        return tuple(shapes)

    def sample_data(self, generator):
        draw = random_data.IMAGE_SOURCES[self.source]
        return draw(generator, self.rows, self.image_shape, self.classes)

    def layer(self, values, kernel, stride=1):
        return layers.convolve(values, kernel, stride)

    def features(self, values):
        return tf.reduce_mean(values, axis=[2, 3])
