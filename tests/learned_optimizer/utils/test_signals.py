"""What SIGTERM does within the context and after it."""

import os
import signal

import pytest

from learned_optimizer.utils.signals import on_sigterm


@pytest.mark.parametrize("fails", [False, True])
def test_sigterm_calls_the_function_within_and_the_old_handler_after(fails):
    calls = []
    outer = signal.signal(signal.SIGTERM, lambda *_: calls.append("outer"))
    try:
        try:
            with on_sigterm(lambda: calls.append("inner")):
                os.kill(os.getpid(), signal.SIGTERM)
                if fails:
                    raise KeyError
        except KeyError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, outer)
    assert calls == ["inner", "outer"]
