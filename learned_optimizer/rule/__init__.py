"""The update rule of the paper, pure functions of packed arrays.

Nothing in here knows variables, devices or Keras models.
"""
