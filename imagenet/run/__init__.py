"""One training run: its settings, devices, compiled steps, loop and log."""
