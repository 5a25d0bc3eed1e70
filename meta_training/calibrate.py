r"""Sets the level of the learned rates by whole runs, see `calibration.py`.

python -m meta_training.calibrate --weights=runs/a/weights.npz \
        --output=runs/a/calibrated.npz

`--nominal=largest=1,shallow_tensors=16` sets switches of their nominal rate first, and
`--zeros=direction_weights` sets whole arrays to 0, `--zeros=readouts` all that the RNN
acts by, which leaves the rule without its RNN. `--switches=odd_direction` turns on
switches of the architecture, whose new readouts start at 0.
`--initial_learning_rate=1e-5` changes where rates start by default. With `--knobs=`
nothing is searched.
"""

import dataclasses
import math
import pathlib
import tempfile
import time

import numpy as np
from absl import flags, logging

from learned_optimizer import load_weights, save_weights
from learned_optimizer.rule.config import LATER_SWITCHES
from learned_optimizer.rule.meta_parameters import with_more_inputs
from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils.flags import define_flags as define_settings
from learned_optimizer.utils.flags import flag_settings
from meta_training import command
from meta_training.optimizers import HierarchicalRule
from meta_training.outer.calibration import Calibration, CalibrationConfig, ScoredShift
from meta_training.tasks import task_set

FLAGS = flags.FLAGS
_OF_OTHER_NUMBERS = ("commands", "runs", "evaluations", "known_limits", "validation")


def define_flags(values: flags.FlagValues = FLAGS):
    """Defines the flags; a function, so that an import has no side effect."""
    for name, text in (
        ("weights", "Name or path of weights."),
        ("output", "The .npz file to write."),
    ):
        flags.DEFINE_string(name, None, text, values, required=True)
    flags.DEFINE_string("task_set", "default_networks", "What the runs train.", values)
    flags.DEFINE_float(
        "initial_learning_rate",
        None,
        "Where rates start by default.",
        flag_values=values,
    )
    for name, text in (
        ("nominal", "NAME=NUMBER: switches of the nominal rate."),
        ("switches", f"Switches that are turned on, of {', '.join(LATER_SWITCHES)}."),
        ("zeros", "Arrays that are set to 0 before the search."),
    ):
        flags.DEFINE_list(name, [], text, flag_values=values)
    command.define_modules(values)
    define_settings(CalibrationConfig, flag_values=values)


def main(arguments):
    """Searches, and writes weights with the trials on their card."""
    command.prepare(arguments, FLAGS.modules)
    output = pathlib.Path(FLAGS.output)
    with command.usage_errors():
        config = CalibrationConfig(
            **flag_settings(CalibrationConfig, flag_values=FLAGS)
        )
        if output.suffix != ".npz":
            raise ValueError(f"--output must end in .npz. Received: {FLAGS.output!r}")
        weights = load_weights(FLAGS.weights)
        start = FLAGS.initial_learning_rate
        if start is None:
            start = weights.initial_learning_rate
        if not 0 < start < math.inf:
            raise ValueError(
                f"--initial_learning_rate must be positive. Received: {start!r}"
            )
        weights = dataclasses.replace(
            weights,
            config=_with_switches(weights.config, FLAGS.nominal),
            initial_learning_rate=start,
        )
        weights = _switched_on(weights, FLAGS.switches)
        calibration = Calibration(
            task_set(FLAGS.task_set), HierarchicalRule(weights.config), config
        )
        zeros = list(FLAGS.zeros)
        if "readouts" in zeros:
            zeros.remove("readouts")
            ends = ("_weights", "_coefficients")
            zeros += [n for n in weights.meta_parameters if n.endswith(ends)]
        for flag, names in (("knobs", config.knobs), ("zeros", zeros)):
            unknown = sorted(set(names) - set(weights.meta_parameters))
            if unknown:
                raise ValueError(
                    f"--{flag} must be among {sorted(weights.meta_parameters)}. "
                    f"Received: {unknown}"
                )
        # What cannot be written is to be known before anything is searched.
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    began = time.monotonic()

    def report(trial: ScoredShift):
        logging.info("%s %+g: score %.4f", trial.knob, trial.shift, trial.score)

    nothing = {name: np.zeros_like(weights.meta_parameters[name]) for name in zeros}
    best, trials = {**weights.meta_parameters, **nothing}, []
    if config.knobs:
        best, trials = calibration.search(best, report)
    entry = {
        "of": weights.name,
        "sha256_before": weights.card.get("sha256"),
        "nominal": FLAGS.nominal,
        "zeros": zeros,
        "switches": FLAGS.switches,
        "initial_learning_rate": start,
        "task_set": FLAGS.task_set,
        "steps": config.steps,
        "initial_learning_rates": [config.low_learning_rate, config.high_learning_rate],
        "seed": config.seed,
        "seconds": round(time.monotonic() - began),
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    found = dataclasses.replace(
        weights,
        name=output.stem,
        meta_parameters=best,
        shipped=False,
        # What was found out about the numbers before is not true of these.
        card={k: v for k, v in weights.card.items() if k not in _OF_OTHER_NUMBERS},
    )
    history = [*weights.card.get("calibrations", []), entry]
    save_weights(found, output, {"calibrations": history})
    if trials:
        logging.info("%s: score %.4f", output, min(trial.score for trial in trials))


def _switched_on(weights, switches):
    """The weights under an architecture with further switches on."""
    unknown = sorted(set(switches) - set(LATER_SWITCHES))
    if unknown:
        raise ValueError(
            f"--switches must be among {list(LATER_SWITCHES)}. Received: {unknown}"
        )
    config = dataclasses.replace(weights.config, **dict.fromkeys(switches, True))
    arrays = with_more_inputs(weights.meta_parameters, weights.config, config)
    return dataclasses.replace(weights, config=config, meta_parameters=arrays)


def _with_switches(config, switches):
    """The config with switches `NAME=NUMBER` of its nominal rate set."""
    if not switches:
        return config
    if config.nominal is None:
        raise ValueError(
            "--nominal must be for weights with a nominal rate. Received: weights "
            "without one"
        )
    changes = {}
    for switch in switches:
        name, _, number = switch.partition("=")
        try:
            changes[name] = float(number)
        except ValueError as error:
            raise ValueError(
                f"--nominal must be NAME=NUMBER. Received: {switch!r}"
            ) from error
    nominal = NominalRate.from_value(dataclasses.asdict(config.nominal) | changes)
    return dataclasses.replace(config, nominal=nominal)


if __name__ == "__main__":
    command.run(main, define_flags)
