"""A request to stop is noted once; then signals mean again what they meant before."""

import os
import signal
import threading

import pytest

from vit_jax.training.stopping import SIGNALS, StopRequest


@pytest.fixture
def received():
    """Signals that came to the handlers that were there before."""
    numbers = []
    before = {number: signal.signal(number, lambda number, _: numbers.append(number)) for number in SIGNALS}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_goes_its_way(received, number):
    with StopRequest() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        assert (stop.signal, received) == (number.name, [])
        os.kill(os.getpid(), number)
        assert received == [number]
    os.kill(os.getpid(), number)
    assert received == [number, number]


def test_without_a_signal_everything_is_put_back(received):
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest() as stop:
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert stop.signal is None
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_also_after_an_error(received):
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyError), StopRequest():
        raise KeyError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_handler_that_python_did_not_install_becomes_the_default(received, monkeypatch):
    install = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: install(number, handler) and None)
    with StopRequest():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * len(SIGNALS)


def test_another_thread_notes_nothing(received):
    seen = []

    def run():
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append(stop.signal)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert (seen, received) == ([None], [signal.SIGTERM])
