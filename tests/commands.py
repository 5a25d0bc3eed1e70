"""Commands in this process, each with flags of its own."""

from unittest import mock

from absl import flags


def run_command(module, *arguments, define_flags=None):
    """Has a module parse arguments as `python -m` would, and runs its `main`."""
    values = flags.FlagValues()
    (define_flags or module.define_flags)(values)
    values([module.__name__, *map(str, arguments)])
    if hasattr(module, "FLAGS"):
        with mock.patch.object(module, "FLAGS", values):
            return module.main([module.__name__])
    return module.main([module.__name__], values)
