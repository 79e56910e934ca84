"""Where the time of a run went, by cause and over all its attempts.

An attempt is one call of `train` that got as far as training; a run that was stopped or killed has several. Their times
are in `attempts.jsonl` in the workdir, one line each: the step it went on after, the step it reached, how it ended
(null: it is still running, or was killed) and seconds by phase.
"""

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vit_jax.errors import ResourceError, VitError
from vit_jax.training.report.metrics import PHASES, Clock, as_resource_error, replace_text

FILE = "attempts.jsonl"
FINISHED = "finished"


@dataclass(frozen=True)
class Attempt:
    """One line of `attempts.jsonl`.

    Attributes:
      start: the step it went on after, 0 if from the beginning.
      step: the last step it made.
      end: `finished`, the name of the error that ended it, or None.
      seconds: by phase, see `metrics.PHASES`.
    """

    start: int
    step: int
    end: str | None
    seconds: dict[str, float]


class Attempts:
    """The attempts of a run, of which the last is this one.

    The file is replaced as a whole at every `note`: whoever is killed loses the time since the last one.

    Args:
      workdir: of the run.
      clock: of this attempt.
      start: the step it goes on after.
      enabled: False writes nothing; only one process of a run may write.
      patient: the workdir may be out of reach at times; the next `note` writes everything.
    """

    def __init__(
        self, workdir: Path, clock: Clock, start: int, *, enabled: bool = True, patient: bool = False
    ):
        self._patient = patient
        self.step = start  # the last one that this attempt made; the loop counts it up
        self._path, self._clock, self._start, self._enabled = workdir / FILE, clock, start, enabled
        self._earlier = _read(self._path)
        self._this: Attempt | None = None

    def __enter__(self) -> "Attempts":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None or self._this is None:
            return
        with suppress(VitError):  # The first error is the one to tell.
            self.note(kind.__name__)

    def note(self, end: str | None = None) -> None:
        """Write how far this attempt has come; the first call makes it one.

        Args:
          end: how it ended.

        Raises:
          ResourceError: the file cannot be written.
        """
        seconds = {phase: round(value, 3) for phase, value in self._clock.seconds().items()}
        self._this = Attempt(self._start, self.step, end, seconds)
        if self._enabled:
            lines = [json.dumps(asdict(attempt)) + "\n" for attempt in (*self._earlier, self._this)]
            # Where the workdir may be away, the next note writes all of it.
            with suppress(ResourceError) if self._patient else nullcontext(), as_resource_error(self._path):
                replace_text(self._path, "".join(lines))

    def finish(self) -> dict[str, Any] | None:
        """Note the end of this attempt, if it was one, and return the `goodput` of all."""
        if self._this is not None:
            self.note(FINISHED)
        return goodput([*self._earlier, *([] if self._this is None else [self._this])])


def goodput(attempts: Sequence[Attempt]) -> dict[str, Any] | None:
    """Return where the time of all attempts went, or None if nothing is known.

    Steps are lost if a later attempt went on before them, and so made them again; they cost the mean step time of their
    attempt. Time between attempts is not counted.

    Returns:
      `share`: time of the steps that remained, by all time; `elapsed`: seconds; `attempts`: how many; `lost_steps`;
      `since_step`: where the first of them began; `shares`: of elapsed by cause, which add up to 1.
    """
    seconds: dict[str, float] = dict.fromkeys(("step", "lost", *PHASES), 0.0)
    lost_steps, next_start = 0, math.inf
    for attempt in reversed(attempts):
        done = attempt.step - attempt.start
        lost = done - max(0, min(attempt.step, next_start) - attempt.start)
        next_start = min(next_start, attempt.start)
        for phase, value in attempt.seconds.items():
            seconds[phase] += value
        wasted = attempt.seconds["step"] * lost / done if done else 0.0
        seconds["step"] -= wasted
        seconds["lost"] += wasted
        lost_steps += int(lost)
    elapsed = sum(seconds.values())
    if not elapsed:
        return None
    return {
        "share": seconds["step"] / elapsed,
        "elapsed": elapsed,
        "attempts": len(attempts),
        "lost_steps": lost_steps,
        "since_step": attempts[0].start,
        "shares": {cause: value / elapsed for cause, value in seconds.items()},
    }


def _read(path: Path) -> list[Attempt]:
    """Return the attempts of a file; what is no line of ours is left out, since it tells nothing."""
    attempts = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            fields = json.loads(line)
            seconds = {phase: float(fields["seconds"].get(phase, 0.0)) for phase in PHASES}
            attempts.append(Attempt(int(fields["start"]), int(fields["step"]), fields["end"], seconds))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return attempts
