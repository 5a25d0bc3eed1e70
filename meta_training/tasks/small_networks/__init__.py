"""Small networks as tasks: layers, data, and the sets `default` is made of."""
