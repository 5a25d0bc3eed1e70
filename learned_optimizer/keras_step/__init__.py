"""The update rule on the variables of a Keras model, on every backend and strategy."""
