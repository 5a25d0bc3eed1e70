"""What the commands of meta-training share: flags alone, and one line for a refusal."""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags, logging

from learned_optimizer.utils.backend import check_backend


def define_modules(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines `--modules`, which `prepare` imports."""
    text = "Your modules, which register tasks and so on when they are imported."
    flags.DEFINE_list("modules", [], text, flag_values=flag_values)


def prepare(arguments: Sequence[str], modules: Sequence[str] = ()) -> None:
    """Checks the command line and the backend, and imports modules of the user.

    Modules are found in the current folder, too, as for a script.

    Raises:
        UsageError: There are arguments that are no flags, Keras has another backend, or
            a module cannot be imported.
    """
    with usage_errors():
        if len(arguments) > 1:
            raise ValueError(f"Arguments must be flags. Received: {arguments[1:]}")
        check_backend()
        if modules and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        for name in modules:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise ValueError(
                    "--modules must name modules that can be imported. Received: "
                    f"{name!r}: {error}"
                ) from error


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Reports what is refused as absl reports a bad flag: one line and no trace."""
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        logging.debug("refused by", exc_info=True)
        raise app.UsageError(str(error)) from error


def run(main: Callable, define_flags: Callable[[], None]) -> None:
    """Runs a command, with its log on standard error."""
    define_flags()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    app.run(main)
