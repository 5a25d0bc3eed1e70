"""One process at a time; the lock of a dead process is free; no locks, no waiting."""

import errno
import multiprocessing
import os
import signal
import threading

import filelock
import pytest

from learned_optimizer.utils.exclusive_lock import exclusive_lock


def hold(path, pipe):
    with exclusive_lock(path) as held:
        pipe.send(held)
        pipe.recv()


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the lock, with the pipe that has it end."""
    path = tmp_path / "lock"
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=hold, args=(path, its))
    process.start()
    assert mine.recv() is True
    yield path, process, mine
    process.kill()
    process.join()


def test_another_process_waits_or_is_refused(other_process):
    path, _, pipe = other_process
    with pytest.raises(ValueError, match="^busy$"):
        with exclusive_lock(path, "busy"):
            pytest.fail("two hold it")
    entered = threading.Event()

    def wait():
        with exclusive_lock(path):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not entered.wait(0.5)
    pipe.send("end")
    assert entered.wait(20)
    thread.join()
    with exclusive_lock(path, "busy") as held:
        assert held


def test_the_lock_of_a_process_that_was_killed_is_free(other_process):
    path, process, _ = other_process
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with exclusive_lock(path, "busy") as held:
        assert held


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_systems_without_locks(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with exclusive_lock(tmp_path / "lock", "busy") as held:
        assert held is False


def test_an_error_that_is_not_about_locks_is_raised(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(OSError):
        with exclusive_lock(tmp_path / "lock"):
            pytest.fail("a folder was locked")


def test_an_error_within_frees_the_lock(tmp_path):
    with pytest.raises(KeyError):
        with exclusive_lock(tmp_path / "lock"):
            raise KeyError
    filelock.FileLock(tmp_path / "lock").acquire(blocking=False).lock.release()
