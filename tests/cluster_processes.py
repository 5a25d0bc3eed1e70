"""Real processes on loopback for tests of command lines, always ended."""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

TINY_FLAGS = [
    *("--preset=default", "--task_set=bowl_problems_noisy", "--estimator=pes"),
    *("--init_weights=bootstrap-v1", "--block_size=2", "--validate_every=0"),
    *("--min_window_steps=3", "--window_steps=4", "--max_window_steps=5"),
    "--mean_horizon=9",
]


@dataclasses.dataclass
class Running:
    """A process and the file that it writes to."""

    process: subprocess.Popen
    output: pathlib.Path

    def text(self):
        return self.output.read_text(errors="replace")

    def wait(self, seconds):
        """The exit status; fails with what the process said when time is up."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still running after {seconds} s:\n{self.text()[-6000:]}"
            ) from None

    def kill(self):
        """SIGKILL, and waits for the end."""
        self.process.kill()
        self.process.wait()


class Processes(contextlib.ExitStack):
    """Starts processes of a module; those still running are killed on leaving."""

    def __init__(self, folder, module="meta_training.train"):
        super().__init__()
        self._folder = folder
        self._module = module
        self._count = 0

    def start(self, *flags, tf_config=None):
        """`python -m MODULE` with the flags."""
        environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
        if tf_config is not None:
            text = tf_config if isinstance(tf_config, str) else json.dumps(tf_config)
            environment["TF_CONFIG"] = text
        self._count += 1
        output = self._folder / f"output{self._count}.txt"
        with open(output, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", self._module, *flags],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        running = Running(process, output)
        self.callback(running.kill)
        return running


def free_addresses(count):
    """Addresses on loopback with ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def tf_configs(**counts):
    """`{(job, index): TF_CONFIG}` of a cluster on loopback."""
    addresses = iter(free_addresses(sum(counts.values())))
    cluster = {job: [next(addresses) for _ in range(n)] for job, n in counts.items()}
    return {
        (job, index): {"cluster": cluster, "task": {"type": job, "index": index}}
        for job, members in cluster.items()
        for index in range(len(members))
    }


def wait_until(condition, seconds, running):
    """Waits for `condition()`; fails when time is up or a process has ended."""
    end = time.monotonic() + seconds
    while not condition():
        ended = [each for each in running if each.process.poll() is not None]
        if ended or time.monotonic() > end:
            texts = "\n---\n".join(each.text()[-4000:] for each in running)
            raise AssertionError(f"{len(ended)} ended; waited in vain:\n{texts}")
        time.sleep(0.02)


def rows_of(path):
    """Lines of a CSV file without its head, 0 where there is none."""
    try:
        return max(0, len(path.read_text().splitlines()) - 1)
    except FileNotFoundError:
        return 0
