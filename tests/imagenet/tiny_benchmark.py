"""`python -m imagenet.benchmark` with the networks of `tests.imagenet.tiny`."""

from imagenet import benchmark
from imagenet.comparison import runs
from tests.imagenet import tiny

if __name__ == "__main__":
    runs.MODULE = tiny.__name__
    benchmark.run()
