"""Functions whose derivatives are finite, or fast, where the plain ones' are not."""

import tensorflow as tf


def safe_sqrt(value: tf.Tensor) -> tf.Tensor:
    """The square root, with first and second derivative zero where `value` is 0."""
    is_positive = value > 0
    root = tf.sqrt(tf.where(is_positive, value, 1.0))
    return tf.where(is_positive, root, 0.0)


@tf.custom_gradient
def matrix_vector_product(matrix: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    """`matrix @ vector` for `[tasks, rows, columns]` and `[tasks, columns, 1]`.

    On a CPU, XLA takes ten times as long for the product with the transposed matrix,
    which the gradient needs, as for the plain one (2,048 rows: 26 ms and 0.6 ms). As a
    sum of scaled rows it takes 2 ms. Both derivatives are of this kind again.
    """

    def gradient(upstream):
        to_matrix = upstream * tf.linalg.matrix_transpose(vector)
        return to_matrix, _transposed_product(matrix, upstream)

    return tf.matmul(matrix, vector), gradient


@tf.custom_gradient
def _transposed_product(matrix, vector):
    """`matrix^T @ vector`."""

    def gradient(upstream):
        to_matrix = vector * tf.linalg.matrix_transpose(upstream)
        return to_matrix, matrix_vector_product(matrix, upstream)

    product = tf.reduce_sum(matrix * vector, axis=1)[:, :, None]
    return product, gradient
