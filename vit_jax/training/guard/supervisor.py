"""A light parent of the process that trains: it tells how that one ended, and starts it again. Needs no jax.

C++ ends a process without Python having a say (jax does when the coordinator is lost, the kernel when memory is), and a
process that is stopped cannot end itself. With several processes there is always a parent, and with `--supervise`.
"""

import ctypes
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from vit_jax.data.workers import how_it_ended
from vit_jax.errors import PeerError
from vit_jax.training.guard.watchdog import BEATS

WORKER = "VIT_JAX_WORKER"  # set for the process that trains
TRY_AGAIN = PeerError.exit_status
START_LIMIT = 600.0  # seconds until the first sign of life
MARGIN = 5.0  # seconds that the process has to notice first that it is stuck
LOOK = 0.2  # seconds between two looks
WITHOUT_PROGRESS = 5  # restarts in a row after which no new checkpoint was written
LONGEST_PAUSE = 60.0  # seconds; the processes of a run must all be back within `distributed.CONNECT_TIMEOUT`
_PR_SET_PDEATHSIG = 1


def is_worker() -> bool:
    """Return whether this process has a supervisor already."""
    return WORKER in os.environ


def end_with_supervisor() -> None:
    """Let the kernel end this process when its supervisor ends, however that happens; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ[WORKER]):
            os.kill(os.getpid(), signal.SIGKILL)  # It had ended before.


def supervise(arguments: Sequence[str], name: str, checkpoints: Path, *, restart: bool) -> int:
    """Run a command in a process of its own and return its exit status, 75 if a signal ended it.

    SIGTERM goes on to the process, as does SIGINT; it is not started again then.

    Args:
      arguments: what to start this Python with.
      name: of the process, for messages.
      checkpoints: the folder whose numbered folders are progress.
      restart: start it again, after a pause that doubles as long as there is no progress, when it ends with status 75
        or is ended by a signal; not when it finds a mistake, which would be there again.
    """
    parent = _Parent(name)
    restarts, fruitless, before = 0, 0, newest_step(checkpoints)
    with parent:
        while True:
            status = parent.run([sys.executable, *arguments])
            if status != TRY_AGAIN or parent.stopped_by or not restart:
                return status
            reached = newest_step(checkpoints)
            fruitless = 0 if reached > before else fruitless + 1
            before = reached
            if fruitless > WITHOUT_PROGRESS:
                _say(
                    f"{name} was started {fruitless} times without a new checkpoint since step {before}; giving "
                    "up. See its output for why it ends."
                )
                return status
            restarts += 1
            pause = min(LONGEST_PAUSE, 2.0**fruitless) * random.uniform(0.5, 1.0)
            _say(f"restart {restarts} of {name} in {pause:.1f} s; the newest checkpoint is step {before}.")
            if parent.pause(pause):
                return status


def newest_step(checkpoints: Path) -> int:
    """Return the largest number that a folder in a folder has for a name, or 0."""
    names = [path.name for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


def process_name(count: int | None, index: int | None, environment: Mapping[str, str]) -> str:
    """Return what to call the process that trains: `process 1 of 4` where that is known without jax."""
    given = [
        (index, count),
        (environment.get("VIT_JAX_PROCESS_INDEX"), environment.get("VIT_JAX_PROCESS_COUNT")),
        (environment.get("SLURM_PROCID"), environment.get("SLURM_NTASKS")),
        (environment.get("OMPI_COMM_WORLD_RANK"), environment.get("OMPI_COMM_WORLD_SIZE")),
    ]
    for number, of in given:
        if number is not None and of is not None:
            return f"process {number} of {of}"
    return "the training process"


class _Parent:
    """Signals, and one child at a time.

    Attributes:
      stopped_by: the name of the signal that came to this process, or None.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.stopped_by: str | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._previous: tuple[tuple[signal.Signals, object], ...] = ()

    def __enter__(self) -> "_Parent":
        numbers = signal.SIGTERM, signal.SIGINT
        self._previous = tuple((number, signal.signal(number, self._pass_on)) for number in numbers)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous:
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait(MARGIN)

    def run(self, command: Sequence[str]) -> int:
        """Run the child to its end."""
        reader, writer = os.pipe()
        try:
            environment = os.environ | {BEATS: str(writer), WORKER: str(os.getpid())}
            self._child = subprocess.Popen(command, env=environment, pass_fds=(writer,))
        finally:
            os.close(writer)
        try:
            if self.stopped_by:  # It came while there was no child.
                self._child.terminate()
            code = self._watch(self._child, reader)
        finally:
            os.close(reader)
        return code if code >= 0 else self._ended_by_signal(code)

    def pause(self, seconds: float) -> bool:
        """Wait; return whether a signal came."""
        until = time.monotonic() + seconds
        while not self.stopped_by and time.monotonic() < until:
            time.sleep(LOOK)
        return self.stopped_by is not None

    def _watch(self, child: subprocess.Popen[bytes], reader: int) -> int:
        """Return the exit code of a child, which is killed if it gives no sign of life for as long as it has said."""
        limit, heard, looked = START_LIMIT, time.monotonic(), time.monotonic()
        open_pipe = [reader]
        while (code := child.poll()) is None:
            now = time.monotonic()
            heard += max(0.0, now - looked - 10 * LOOK)  # in which this process was stopped itself
            looked = now
            if select.select(open_pipe, [], [], LOOK)[0]:
                beats = os.read(reader, 4096)
                open_pipe = open_pipe if beats else []
                limit = float(beats.split()[-1]) + MARGIN if beats else limit
                heard = time.monotonic()
            elif not open_pipe:
                time.sleep(LOOK)
            if time.monotonic() - heard > limit:
                self._end_stuck(child, time.monotonic() - heard)
                return TRY_AGAIN
        return code

    def _end_stuck(self, child: subprocess.Popen[bytes], seconds: float) -> None:
        # The worker prints its stacks at SIGUSR1, once it runs again if it was stopped.
        for number in (signal.SIGUSR1, signal.SIGCONT):
            child.send_signal(number)
        time.sleep(1)
        child.kill()
        child.wait(MARGIN)
        _say(
            f"{self._name} did not respond for {seconds:.0f} s and was killed: it was suspended, or ran code that "
            "does not return. The stacks of its threads are above; run the same command again to resume."
        )

    def _ended_by_signal(self, code: int) -> int:
        if self.stopped_by and -code in (signal.SIGTERM, signal.SIGINT):
            _say(f"{self._name} was stopped by {self.stopped_by}; run the same command again to resume.")
        else:
            why = ", as jax does when process 0 is lost" if -code == signal.SIGABRT else ""
            _say(f"{self._name} {how_it_ended(code)}{why}; run the same command again to resume.")
        return TRY_AGAIN

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = signal.Signals(number).name
        # As SIGTERM in any case: a terminal has sent SIGINT to the child as well.
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()


def _say(line: str) -> None:
    print(f"vit-jax: {line}", file=sys.stderr, flush=True)
