"""Training and timing with Keras on JAX, for a GPU without TensorFlow.

The modules import no TensorFlow. The command is `imagenet.gpu`.
"""
