"""Meta-training by whole runs: a population, no gradient through time.

It depends on `runs` (loops of stacked runs), `optimizers` and the files and the
meta-optimizer of `outer`; `meta_training.search` is its command.
"""
