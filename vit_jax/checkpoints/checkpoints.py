"""Checkpoints: saved in the background by Orbax, verified bit by bit when loaded.

Orbax commits a step by renaming its directory, but does not notice flipped bits in array data, counts any
directory with a number for a name as a step, and forgets what failed in the background. So every array's
fingerprint is stored with each step and compared on loading, only steps of ours count, and loading has three
outcomes: nothing there (None), loaded, or `CheckpointError`. What a step looks like on disk is in
`checkpoints.files`.
"""

import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vit_jax import trees
from vit_jax.checkpoints import fingerprint
from vit_jax.checkpoints.files import (
    METADATA,
    STATE,
    Metadata,
    MismatchError,
    checksum,
    explain,
    is_ours,
    read_metadata,
    read_state,
)
from vit_jax.checkpoints.quiet_orbax import quiet_orbax
from vit_jax.checkpoints.retention import Retention
from vit_jax.errors import CheckpointError, ResourceError, VitError, choose
from vit_jax.processes import from_main, is_main, together, wait_for_all
from vit_jax.version import __version__

quiet_orbax()
_LOGGER = logging.getLogger(__name__)
RESERVED = ("step", "fingerprint", "arrays", "metrics", "versions", "checksum")
SET_ASIDE = ".unreadable"


class Checkpoints:
    """The checkpoints of one run, in `<directory>/<step>/`.

    Args:
      directory: a path, not an address; created unless `read_only`.
      keep_last: how many of the newest steps are kept, at least 1.
      keep_best: how many of the steps best by `monitor` are kept beside them.
      monitor: name of the metric that decides what is best.
      monitor_mode: `max` or `min`.
      read_only: never write; for evaluation and prediction.
      frugal: copy arrays a few at a time while they are written, instead of all before `save` returns; they must stay
        as they are until `close`.
      report: called with one line for each step that is skipped or set aside.

    Raises:
      ResourceError: the directory cannot be written.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep_last: int = 2,
        keep_best: int = 1,
        monitor: str = "accuracy",
        monitor_mode: str = "max",
        read_only: bool = False,
        frugal: bool = False,
        report: Callable[[str], None] = _LOGGER.warning,
    ):
        choose(monitor_mode, ("max", "min"), "monitor_mode")
        if "://" in str(directory):
            raise ResourceError(
                f"checkpoint directory {directory} is an address; mount it and give its path."
            )
        self.directory = Path(directory).absolute()
        self.monitor, self.monitor_mode = monitor, monitor_mode
        self._report, self._frugal = report, frugal
        self._unreadable: set[int] = set()
        self._metrics: dict[int, Mapping[str, float]] = {}
        self._in_flight: int | None = None
        self._manager: ocp.CheckpointManager | None = None
        if not read_only:
            self._manager = self._open(Retention(self.directory, keep_last, keep_best, self._score))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except VitError:
            if error is None:  # Otherwise the first error is the one to tell.
                raise

    def steps(self) -> list[int]:
        """Return the steps of ours that are committed, readable or not, in increasing order."""
        if not os.path.isdir(self.directory):
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if is_ours(path))

    def best_step(self) -> int | None:
        """Return the committed step that is best by the monitored metric, or None if none has it."""
        scores = {step: self._score(step) for step in self.steps()}
        known = [(score, step) for step, score in scores.items() if score is not None]
        return max(known)[1] if known else None

    def metadata(self, step: int) -> Metadata:
        """Return what was stored with a step beside the arrays.

        Raises:
          CheckpointError: there is no such step, or its metadata are damaged.
        """
        return read_metadata(self.directory / str(step))

    def newest_metadata(self) -> Metadata | None:
        """Return the metadata of the newest step that has readable ones, or None if there is no checkpoint.

        Raises:
          CheckpointError: there are steps, and the metadata of none can be read.
        """
        reason = None
        for step in reversed(self.steps()):
            try:
                return self.metadata(step)
            except CheckpointError as error:
                reason = error
        if reason is not None:
            raise reason
        return None

    def save(
        self,
        step: int,
        state: trees.Tree,
        metadata: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """Begin to save a state; return False if it is there already.

        The arrays are copied before this returns, so their buffers may be donated. What goes wrong in the
        background is raised by the next `save`, `wait` or `close`.

        Args:
          step: number of the step.
          state: any pytree of arrays, at least one; stored as nested dicts by path.
          metadata: what else to store, as JSON: configuration, class names.
          metrics: of this state; the monitored one decides whether it is among the best.

        Raises:
          ResourceError: no space, no permission and the like.
          CheckpointError: the step holds another state, or storing failed otherwise.
        """
        if self._manager is None:
            raise ValueError("these checkpoints are closed or read-only")
        if set(metadata) & set(RESERVED):
            raise ValueError(f"metadata may not have the keys {RESERVED}")
        if step == self._in_flight:
            self.wait()
        with jax.transfer_guard("allow"):
            arrays = fingerprint.table(state)
        stored = {
            **metadata,
            "step": step,
            "fingerprint": fingerprint.combine(arrays),
            "arrays": arrays,
            "metrics": dict(metrics or {}),
            "versions": {"vit_jax": __version__} | {n: version(n) for n in ("jax", "orbax-checkpoint")},
        }
        stored["checksum"] = checksum(stored)
        with jax.transfer_guard("allow"), self._failures(f"saving step {step}"):
            if self._is_saved(step, stored["fingerprint"]):
                return False
            self._manager.wait_until_finished()
            self._make_room(step)
            self._metrics[step] = stored["metrics"]
            arguments = ocp.args.Composite(
                **{
                    STATE: ocp.args.PyTreeSave(trees.unflatten(trees.flatten(state))),
                    METADATA: ocp.args.JsonSave(stored),
                }
            )
            # Forced: Orbax would refuse a step below any directory with a larger number for a name.
            self._manager.save(step, args=arguments, force=True)
            self._in_flight = step
        return True

    def wait(self) -> None:
        """Return when everything is on disk.

        Raises:
          ResourceError, CheckpointError: the save in the background failed.
        """
        if self._manager is not None:
            with self._failures(f"saving step {self._in_flight}"):
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait as `wait` does, and release threads."""
        manager = self._manager
        if manager is None:
            return
        try:
            self.wait()
        finally:
            self._manager = None
            manager.close()

    def restore(self, abstract: trees.Tree, step: int | None = None) -> tuple[trees.Tree, Metadata] | None:
        """Return a verified state and its metadata, or None if there is no checkpoint at all.

        Args:
          abstract: a tree of arrays or `jax.ShapeDtypeStruct` with the wanted structure, shapes, dtypes and
            shardings, on any mesh; without a sharding, an array goes to the first local device.
          step: which; None takes the newest that is intact and reports those that are not.

        Raises:
          CheckpointError: steps are there but none is intact, the one asked for is not, or they belong to
            another model or configuration.
        """
        return self.restore_part("", abstract, step)

    def restore_part(
        self, part: str, abstract: trees.Tree, step: int | None = None
    ) -> tuple[trees.Tree, Metadata] | None:
        """Return one part of the state, without reading the rest; see `restore`.

        Args:
          part: its path, such as `params` or `ema`.
          abstract: the wanted tree below that path.
          step: which; None takes the newest that is intact.
        """
        candidates = from_main("checkpoints", self.steps() if is_main() else [])
        if step is not None and step not in candidates:
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)} does not exist; steps there: "
                f"{', '.join(map(str, candidates)) or 'none'}."
            )
        reasons = []
        for candidate in reversed(candidates if step is None else [step]):
            path = self.directory / str(candidate)
            try:
                metadata = together("checkpoint metadata", partial(read_metadata, path))
                with jax.transfer_guard("allow"):
                    return read_state(path, f"{part}/" if part else "", abstract, metadata), metadata
            except MismatchError:
                raise
            except CheckpointError as error:
                self._unreadable.add(candidate)
                reasons.append(f"step {candidate}: {error}")
                if step is None and is_main():
                    self._report(f"checkpoint {path} is skipped: {error}")
        if not reasons:
            return None
        raise CheckpointError(
            f"no intact checkpoint in {self.directory}: {' '.join(reasons)} Nothing was changed; put back a copy "
            "of the files, or begin again in another --workdir."
        )

    def _open(self, retention: Retention) -> ocp.CheckpointManager:
        with self._failures("opening"):
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.directory):
                pass  # Found out now rather than at the first save.
            return ocp.CheckpointManager(
                self.directory,
                item_names=(STATE, METADATA),
                item_handlers={STATE: self._handler()},
                options=ocp.CheckpointManagerOptions(
                    cleanup_tmp_directories=True,  # what a killed run left half written
                    lightweight_initialize=True,
                    preservation_policy=retention,
                ),
            )

    def _handler(self) -> ocp.PyTreeCheckpointHandler:
        if not self._frugal:
            return ocp.PyTreeCheckpointHandler()
        return ocp.PyTreeCheckpointHandler(
            save_device_host_concurrent_gb=0.25,  # pyright: ignore[reportArgumentType]
            is_prioritized_key_fn=lambda path: False,  # pyright: ignore[reportArgumentType]
        )

    def _is_saved(self, step: int, mark: str) -> bool:
        # Process 0 looks for all of them: what it will write or leave is then the same everywhere.
        there = from_main("checkpoint there", self._mark(step) if is_main() else None)
        if there is None:
            return False
        if there != mark:
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)} holds another state (fingerprint {there}, not "
                f"{mark}); move it away or use another --workdir."
            )
        return True

    def _mark(self, step: int) -> str | None:
        """Return the fingerprint of a step, or None if it is not there or cannot be read."""
        if step in self._unreadable or step not in self.steps():
            return None
        try:
            return self.metadata(step)["fingerprint"]
        except CheckpointError:
            self._unreadable.add(step)
            return None

    def _make_room(self, step: int) -> None:
        """Rename what cannot be read and what stands where `step` is to be; nothing is deleted."""
        in_the_way = [self.directory / str(number) for number in {step, *self._unreadable}]
        in_the_way = [path for path in in_the_way if path.exists()] if is_main() else []
        if not from_main("checkpoints in the way", len(in_the_way)):
            return
        if is_main():
            for path in in_the_way:
                target, count = path.with_name(f"{path.name}{SET_ASIDE}"), 1
                while target.exists():
                    count += 1
                    target = path.with_name(f"{path.name}{SET_ASIDE}{count}")
                path.rename(target)
                self._report(f"{path} is not an intact checkpoint and is now {target}.")
        wait_for_all("checkpoints set aside")
        self._unreadable.clear()
        assert self._manager is not None
        self._manager.reload()

    def _score(self, step: int) -> float | None:
        """Return the monitored metric of a step, larger is better; None if unknown or not a number."""
        if step not in self._metrics:
            try:
                self._metrics[step] = self.metadata(step)["metrics"]
            except CheckpointError:
                return None
        value = self._metrics[step].get(self.monitor, math.nan)
        return None if math.isnan(value) else value if self.monitor_mode == "max" else -value

    @contextmanager
    def _failures(self, action: str) -> Iterator[None]:
        """Turn what the file system, Orbax and TensorStore raise into one line of ours."""
        try:
            yield
        except (OSError, ValueError) as error:
            self._in_flight = None
            if self._manager is not None:
                self._manager.reload()  # A failed save makes Orbax forget steps that are still there.
            raise explain(action, self.directory, error) from error
