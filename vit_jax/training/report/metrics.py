"""What a run leaves behind: `metrics.jsonl`, TensorBoard events, `summary.json`, and where its time went."""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from vit_jax.errors import ResourceError

_LOGGER = logging.getLogger(__name__)
BOARD = "tensorboard"
PHASES = ("startup", "restore", "compile", "data_wait", "step", "evaluation", "checkpoint", "other")


class MetricWriter:
    """Writes numbers by step to `metrics.jsonl` and, if wanted, to TensorBoard.

    One JSON object per line: `step` first, then the metrics in alphabetical order. JSON has no NaN or infinity:
    such a value is `null`, and `non_finite` says which it was; TensorBoard does not get it. No line holds a time, so
    equal runs write equal files.

    Args:
      workdir: where the files go; created if missing.
      tensorboard: also write TensorBoard events to `<workdir>/tensorboard`.
      resumed_step: where a resumed run goes on: lines of later steps are cut. None begins anew.
      enabled: False writes nothing; only one process of a run may write.
      staging: a local folder, if the workdir may be out of reach at times: lines then wait in memory, and TensorBoard's
        events are written there and copied at the end.

    Raises:
      ResourceError: the directory cannot be written.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        tensorboard: bool = True,
        resumed_step: int | None = None,
        enabled: bool = True,
        staging: Path | None = None,
    ):
        self.path = Path(workdir) / "metrics.jsonl"
        self._staging, self._waiting, self._size = staging, b"", 0
        self._file: TextIO | None = None
        self._board: Any = None
        if not enabled:
            return
        with as_resource_error(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            last = -1 if resumed_step is None else resumed_step
            replace_text(self.path, "".join(_lines_until(self.path, last)))
            self._file = self.path.open("a", encoding="utf-8")
            self._size = self.path.stat().st_size
            if staging is not None:
                self._file.close()  # Opened anew for every line; see `_catch_up`.
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str((staging or self.path.parent) / BOARD), purge_step=last + 1)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, Any], prefix: str = "") -> None:
        """Write the metrics of a step; they are on disk when this returns.

        Args:
          step: number of the step.
          metrics: real scalars by name: Python numbers or arrays of one element on the host.
          prefix: goes before each name, as in `train/loss`.
        """
        if self._file is None:
            return
        values = {f"{prefix}/{name}" if prefix else name: _number(value) for name, value in metrics.items()}
        line = json.dumps(_valid_json({"step": step} | dict(sorted(values.items())))) + "\n"
        with as_resource_error(self.path):
            if self._staging is None:
                self._file.write(line)
                self._file.flush()
            else:
                self._waiting += line.encode()
                self._catch_up()
            if self._board is not None:
                for name, value in values.items():
                    # Such as the R2 of equal targets: what has no value has no point in a curve, and tensorboardX would
                    # warn of it at every evaluation.
                    if math.isfinite(value):
                        self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish the files."""
        if self._file is not None:
            if self._staging is not None and not self._catch_up():
                lines = self._waiting.count(b"\n")
                _LOGGER.warning("%s cannot be written; its last %d lines are lost.", self.path, lines)
            with as_resource_error(self.path):
                self._file.close()
                if self._board is not None:
                    self._board.close()
                    if self._staging is not None:
                        self._copy_events(self._staging / BOARD)
            self._file = self._board = None

    def _catch_up(self) -> bool:
        """Write the lines that wait; return whether the workdir could be reached."""
        try:
            # Opened anew: a file stays closed when its connection is back. What a failed write left is overwritten.
            with self.path.open("r+b") as file:
                file.truncate(self._size)
                file.seek(self._size)
                file.write(self._waiting)
        except OSError:
            return False
        self._size += len(self._waiting)
        self._waiting = b""
        return True

    def _copy_events(self, folder: Path) -> None:
        try:
            (self.path.parent / BOARD).mkdir(exist_ok=True)  # copytree would make a workdir that is away, too
            shutil.copytree(folder, self.path.parent / BOARD, dirs_exist_ok=True)
        except OSError as error:
            _LOGGER.warning("TensorBoard event files remain in %s: %s", folder, error)


def write_summary(workdir: str | os.PathLike[str], summary: Mapping[str, Any]) -> Path:
    """Write `summary.json`, whole or not at all, and return its path.

    Args:
      workdir: the directory of the run.
      summary: JSON values, nested dicts included; what is not finite becomes `null` and is named under
        `non_finite`.

    Raises:
      ResourceError: the file cannot be written.
    """
    path = Path(workdir) / "summary.json"
    with as_resource_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(_valid_json(dict(summary)), indent=2) + "\n")
    return path


class Clock:
    """Divides wall time into phases that add up to the whole.

    `with clock("evaluation"):` charges a phase; inside another phase, time goes to the inner one only. Outside
    all, it goes to `other`.

    Args:
      timer: returns seconds; monotonic.
      begun: what the timer showed when the program started, so that its imports count as `startup`.
      entered: called with every phase that begins, also with the outer one when an inner one ends.
    """

    def __init__(
        self,
        timer: Callable[[], float] = time.monotonic,
        begun: float | None = None,
        entered: Callable[[str], None] | None = None,
    ):
        self._timer, self._entered = timer, entered
        self._seconds: dict[str, float] = {phase: 0.0 for phase in PHASES}
        self._phase = "other"
        self._since = timer()
        if begun is not None:
            self._seconds["startup"] = self._since - begun

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Charge the time inside to one of `PHASES`."""
        if phase not in self._seconds:
            raise ValueError(f"{phase!r} is not one of {PHASES}")
        outer = self._enter(phase)
        try:
            yield
        finally:
            self._enter(outer)

    def seconds(self) -> dict[str, float]:
        """Return seconds by phase until now."""
        self._switch(self._phase)
        return dict(self._seconds)

    def total(self) -> float:
        """Return seconds since the clock was made."""
        return sum(self.seconds().values())

    def _enter(self, phase: str) -> str:
        outer = self._switch(phase)
        if self._entered is not None:
            self._entered(phase)
        return outer

    def _switch(self, phase: str) -> str:
        now, before = self._timer(), self._phase
        self._seconds[before] += now - self._since
        self._since, self._phase = now, phase
        return before


def _number(value: Any) -> float | int:
    """Return a Python number for one of NumPy's or an array of one element."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, bool) else value


def _valid_json(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with None for what JSON cannot hold, and `non_finite` telling what it was."""
    result, odd = {}, {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result[name] = _valid_json(dict(value))
        else:
            value = _number(value) if hasattr(value, "item") else value
            if isinstance(value, float) and not math.isfinite(value):
                odd[name], value = str(value), None
            result[name] = value
    return result | ({"non_finite": odd} if odd else {})


def _lines_until(path: Path, step: int) -> list[str]:
    """Return the whole lines of a `metrics.jsonl` up to a step; a line cut off by a kill is none."""
    kept = []
    for line in (
        path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
    ):
        try:
            whole = line.endswith("\n") and json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            whole = False
        if whole:
            kept.append(line)
    return kept


def replace_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


@contextmanager
def as_resource_error(path: Path) -> Iterator[None]:
    """Raise `ResourceError` for what the file system says of a path."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ResourceError(
            f"{path} cannot be written: {reason}; check free space and permissions."
        ) from error
