"""A request to stop is noted once; then signals mean again what they meant before."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vit_jax.errors import Preempted
from vit_jax.training.guard.stopping import EARLY, StopRequest

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def received():
    """Signals that came to the handlers that were there before."""
    numbers = []
    before = {number: signal.signal(number, lambda number, _: numbers.append(number)) for number in SIGNALS}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_while_steps_are_made_a_signal_is_noted(received):
    with StopRequest() as stop, stop.after_steps():
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.signal, received) == ("SIGTERM", [])
        assert stop.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)  # those who send it often send it twice
        assert received == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_a_second_interrupt_goes_its_way(received):
    with StopRequest() as stop, stop.after_steps():
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.signal, received) == ("SIGINT", [])
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]


def test_before_the_first_step_there_is_nothing_to_save(received):
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]  # as always
    with pytest.raises(Preempted, match="before the first step; nothing was lost"), StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)


COMPILING = """
import hashlib
from vit_jax.training.guard.stopping import StopRequest
with StopRequest():
    print("now", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # as a compilation: minutes in which no Python runs here
"""


def test_also_in_the_middle_of_a_compilation():
    command = [sys.executable, "-c", COMPILING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        began = cpu_time(process.pid)
        while cpu_time(process.pid) < began + 20:  # it is inside by now: printing took no fifth of a second
            time.sleep(0.02)
        process.terminate()
        _, err = process.communicate(timeout=30)  # PATIENCE, and not a minute
    assert process.returncode == 75
    assert err.splitlines()[-1] == f"vit-jax: {EARLY}"


def cpu_time(pid):
    """Hundredths of a second that a process has computed for."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_without_a_signal_everything_is_put_back(received):
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest() as stop, stop.after_steps():
        assert all(signal.getsignal(number) != old for number, old in zip(SIGNALS, before))
    assert stop.signal is None
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_also_after_an_error(received):
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyError), StopRequest() as stop, stop.after_steps():
        raise KeyError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_handler_that_python_did_not_install_becomes_the_default(received, monkeypatch):
    install = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: install(number, handler) and None)
    with StopRequest() as stop, stop.after_steps():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * len(SIGNALS)


def test_another_thread_notes_nothing(received):
    seen = []

    def run():
        with StopRequest() as stop, stop.after_steps():
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append(stop.signal)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert (seen, received) == ([None], [signal.SIGTERM])
