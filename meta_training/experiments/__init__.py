"""The paper's experiments as commands: `python -m meta_training.experiments`.

`experiment` says what an experiment is, `catalogue` which exist; `runner` runs one, and
`report` collects them.
"""
