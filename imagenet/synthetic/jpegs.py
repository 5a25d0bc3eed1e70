"""Drawn images as JPEG files in memory, made by several processes.

Plain child processes and no `multiprocessing`, whose children import the main program
again and with it, here, TensorFlow. Each child draws every n-th image and writes
it to its standard output, a length before each; it waits when nobody reads, and ends
when the reader is gone.
"""

import contextlib
import io
import os
import pathlib
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence

from PIL import Image

from imagenet.synthetic.drawing import draw

_LENGTH = struct.Struct("<I")
# With fewer images the start of a process costs more than it saves.
_IMAGES_A_PROCESS = 500
_MAX_PROCESSES = 16


def drawn_jpegs(
    indices: Sequence[int],
    num_classes: int,
    seed: int,
    processes: int | None = None,
    size: int | None = None,
) -> Iterator[bytes]:
    """JPEG files of the images of a range, in its order.

    Image i has the label i modulo `num_classes`; see `imagenet.synthetic.drawing.draw`.
    By default as many processes draw as there are processors, and none but this one
    where it is not worth their start.

    Raises:
        ChildProcessError: A child ended early.
    """
    if processes is None:
        worthwhile = len(indices) // _IMAGES_A_PROCESS
        processes = min(os.cpu_count() or 1, _MAX_PROCESSES, worthwhile)
    if processes < 2:
        for index in indices:
            yield _drawn_jpeg(index, num_classes, seed, size)
        return
    with contextlib.ExitStack() as stack:
        children = []
        for first in range(processes):
            part = indices[first::processes]
            numbers = (part.start, part.stop, part.step, num_classes, seed, size or 0)
            children.append(_start(numbers))
            stack.enter_context(children[-1])
            stack.callback(children[-1].kill)
        for position in range(len(indices)):
            yield _read(children[position % processes])


def _drawn_jpeg(index, num_classes, seed, size):
    image = draw(index % num_classes, index, size, seed)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _start(numbers):
    # The child finds this package where this process did.
    paths = [str(pathlib.Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "imagenet.synthetic.jpegs", *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            # The processes themselves are the parallelism.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
    )


def _read(child):
    length = child.stdout.read(_LENGTH.size)
    if len(length) == _LENGTH.size:
        (size,) = _LENGTH.unpack(length)
        content = child.stdout.read(size)
        if len(content) == size:
            return content
    raise ChildProcessError(
        "A process that draws images must not end before its last one. Received: "
        f"exit status {child.wait()}"
    )


def main(arguments) -> None:
    """What a child does: `start stop step num_classes seed size`; size 0: drawn."""
    start, stop, step, num_classes, seed, size = map(int, arguments)
    # When the reader is gone, writing fails: there is nothing left to do.
    with contextlib.suppress(BrokenPipeError):
        for index in range(start, stop, step):
            content = _drawn_jpeg(index, num_classes, seed, size or None)
            sys.stdout.buffer.write(_LENGTH.pack(len(content)) + content)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
