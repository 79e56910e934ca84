"""The other processes of a run: who is lost or has failed is known to all within seconds, and all end.

jax notices a lost process when a collective fails or after its own, longer limit, and then aborts the process with
many lines that name nobody. So every process says once a second that it lives, through jax's coordination service;
process 0 listens for silence, and whoever fails says so before it ends.
"""

import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import jax

from vit_jax.errors import PeerError, VitError
from vit_jax.processes import service
from vit_jax.training.guard.watchdog import Watchdog, end_process, print_stacks

BEAT = 1.0  # seconds between two signs of life
ALIVE, FAILURE, READY = "vit_jax/alive", "vit_jax/failure", "vit_jax/ready"
ENDED = "ended"
OWN_WORDS = 0.5  # seconds in which a process that fails like another one may say so itself
UNWIND = 15.0  # seconds from a failure to the end of the process, whatever waits
LINGER = 5.0  # seconds that process 0, without which the others are aborted, gives them to end first
# What jax's words are about when it has lost another process.
_CONNECTIONS = (
    "gloo",
    "nccl",
    "connection",
    "unavailable",
    "deadline_exceeded",
    "aborted",
    "cancelled",
    "coord",
)


class Peers:
    """Watches the other processes while it is open; with one process there is nothing to do.

    An error that passes through it is told to all; then the process ends with its status in bounded time.

    Args:
      watchdog: of this process.
      limit: seconds without a sign of life after which a process counts as lost.

    Attributes:
      watchdog: of this process.
    """

    def __init__(self, watchdog: Watchdog, limit: float) -> None:
        self.watchdog, self._limit = watchdog, limit
        self._index, self._count = jax.process_index(), jax.process_count()
        self._failing, self._done = threading.Event(), threading.Event()
        self._last_word, self._lost_index = threading.Lock(), -1
        self._answered = time.monotonic()

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return self._count > 1

    def __enter__(self) -> "Peers":
        if self.several:
            self.watchdog.stalled, self.watchdog.silence = self.stalled, 3 * self._limit
            for task in (self._speak, self._listen):
                threading.Thread(target=task, name=f"peers {task.__name__}", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or not self.several:
            self.close()
            return
        self.failed(error)
        if isinstance(error, VitError):
            self.end(str(error), error.exit_status)
        if isinstance(error, KeyboardInterrupt):
            self.end("interrupted", 130)
        traceback.print_exception(error)
        self.end_silently(1)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the others of an error inside at once, before anything is closed that waits for them."""
        try:
            yield
        except BaseException as error:
            self.failed(error)
            raise

    def close(self) -> None:
        """Stop watching: this process has done its part, and may end at another time than the others."""
        self._done.set()
        if self.several:
            with suppress(jax.errors.JaxRuntimeError):  # Whoever is gone by now is not missed.
                service().key_value_set(f"{ALIVE}/{self._index}", ENDED, allow_overwrite=True)

    def enter(self, phase: str) -> None:
        """Note that a phase of this process begins, see `Watchdog.enter`."""
        self.watchdog.enter(phase)

    def ready(self, step: int) -> None:
        """Return when every process has come here, ready for the step.

        Collectives on the device would wait just as well, but nobody could tell for whom.

        Args:
          step: its number.

        Raises:
          PeerError: a process did not come before the watchdog's limit.
        """
        self.watchdog.step = step
        if not self.several:
            return
        self.watchdog.enter("peers")
        limit = self.watchdog.limit()
        try:
            # The service counts the passes: no name is needed for each.
            service().wait_at_barrier(READY, int(limit * 1000))
        except jax.errors.JaxRuntimeError as error:
            raise self._lost(error) from error

    def failed(self, error: BaseException) -> None:
        """Tell the others why this process will end, and see to it that it does."""
        if not self.several or self._failing.is_set():
            return
        if _is_lost_contact(error):
            error = self._lost(error)
        line = str(error) if isinstance(error, VitError) else f"{type(error).__name__}: {error}"
        self._failing.set()
        self._publish(getattr(error, "exit_status", 1), f"has failed: {line}")
        threading.Thread(target=self._end_late, args=(error, line), daemon=True).start()
        if isinstance(error, PeerError):
            # Unwinding would wait for a process that does not answer any more.
            self.end(line, error.exit_status)

    def stalled(self, line: str) -> NoReturn:
        """Print the stacks of this process, tell the others that it is stuck, and end it."""
        self._failing.set()
        print_stacks()
        self._publish(PeerError.exit_status, f"is {line}")
        self.end(f"process {self._index} of {self._count} is {line}", PeerError.exit_status)

    def end(self, line: str, status: int) -> NoReturn:
        """Print a line and end this process; process 0 lets the others go first."""
        self._last_word.acquire(timeout=UNWIND)  # Another thread may be about to say the same.
        print(f"vit-jax: {line}", file=sys.stderr)
        self.end_silently(status)

    def end_silently(self, status: int) -> NoReturn:
        """End this process; process 0 lets the others go first."""
        self._failing.set()
        # In a thread of its own: process 0 may be stopped, and then answers nobody.
        farewell = threading.Thread(target=self.close, daemon=True)
        farewell.start()
        farewell.join(BEAT)
        if self._index == 0:
            until = time.monotonic() + LINGER
            while time.monotonic() < until and not self._all_ended():
                time.sleep(0.1)
        end_process(status)

    def _all_ended(self) -> bool:
        try:
            texts = dict(service().key_value_dir_get(ALIVE))
        except jax.errors.JaxRuntimeError:
            return True
        texts.pop(f"{ALIVE}/{self._lost_index}", None)
        return all(text == ENDED for text in texts.values())

    def _lost(self, error: BaseException) -> PeerError:
        """Return the error of lost contact, after the one who hears of it has had the time to name the process."""
        until = time.monotonic() + self._limit + 3 * BEAT
        while time.monotonic() < until:
            with suppress(jax.errors.JaxRuntimeError):  # With process 0 the service is gone too.
                failure = self._failure()
                if failure is not None and failure["process"] != self._index:
                    return PeerError(failure["line"])
            time.sleep(BEAT / 4)
        reason = str(error).splitlines()[0][:200]
        return PeerError(
            f"process {self._index} of {self._count} lost contact with another process, and none reports why: "
            f"{reason}. Start all processes again to resume."
        )

    def _publish(self, status: int, line: str, process: int | None = None) -> None:
        index = self._index if process is None else process
        told = {"process": index, "status": status, "line": f"process {index} of {self._count} {line}"}
        with suppress(
            jax.errors.JaxRuntimeError
        ):  # The first failure stands; the service may be gone as well.
            service().key_value_set(FAILURE, json.dumps(told))

    def _failure(self) -> dict[str, Any] | None:
        try:
            return json.loads(service().key_value_try_get(FAILURE))
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def _end_late(self, error: BaseException | None, line: str) -> None:
        time.sleep(UNWIND)
        print(f"vit-jax: {line}", file=sys.stderr)
        end_process(getattr(error, "exit_status", PeerError.exit_status))

    def _speak(self) -> None:
        """Say once a second that this process lives, and do as the others say."""
        beats = 0
        while not self._done.is_set():
            try:
                beats += 1
                service().key_value_set(f"{ALIVE}/{self._index}", str(beats), allow_overwrite=True)
                failure = self._failure()
            except jax.errors.JaxRuntimeError:
                # jax ends the process itself when process 0 has gone; silence is noticed by the listener.
                failure = None
            else:
                self._answered = time.monotonic()
            if failure is not None and not self._failing.wait(OWN_WORDS):
                self.end(failure["line"], failure["status"])
            self._done.wait(BEAT)

    def _listen(self) -> None:
        """Notice silence: process 0 that of anybody, the others that of process 0."""
        looked = time.monotonic()
        heard = {f"{ALIVE}/{index}": ("", looked) for index in range(self._count)}
        while not self._done.wait(BEAT) and not self._failing.is_set():
            now = time.monotonic()
            if now - looked > self._limit / 2:  # This process was stopped, and knows nothing.
                self._answered, heard = now, {key: ("", now) for key in heard}
            looked = now
            if self._index:
                if now - self._answered > self._limit:
                    self.end(f"process 0 of {self._count} {self._silence()}", PeerError.exit_status)
                continue
            with suppress(jax.errors.JaxRuntimeError):
                for key, text in service().key_value_dir_get(ALIVE):
                    if heard[key][0] != text:
                        heard[key] = text, now
            for key, (text, since) in heard.items():
                if text != ENDED and now - since > self._limit:
                    self._lost_index = int(key.rpartition("/")[2])
                    line = self._silence()
                    self._publish(PeerError.exit_status, line, self._lost_index)
                    self.end(f"process {self._lost_index} of {self._count} {line}", PeerError.exit_status)

    def _silence(self) -> str:
        return (
            f"has not responded for {self._limit:g} s (watchdog.peer_limit): it was killed or suspended, or its "
            "machine is gone. Start all processes again to resume."
        )


def _is_lost_contact(error: BaseException | None) -> bool:
    """Return whether jax, here or where an error came from, complains of its connections: not of program or memory."""
    while error is not None:
        text = str(error).lower()
        # Saving compares values between processes as well, and jax says ValueError then.
        if isinstance(error, jax.errors.JaxRuntimeError | ValueError) and any(
            w in text for w in _CONNECTIONS
        ):
            return True
        error = error.__cause__
    return False
