"""`python -m imagenet.benchmark` with the networks of `tests.imagenet.tiny`."""

from imagenet import benchmark
from tests.imagenet import tiny

__all__ = ["tiny"]

if __name__ == "__main__":
    benchmark.run()
