"""Checkpoints: saved in the background by Orbax, verified bit by bit when loaded.

Orbax commits a step by renaming its directory, but does not notice flipped bits in array data. So every array's
fingerprint is stored with each step and compared on loading, only steps of ours count, and loading has three
outcomes: nothing there (None), loaded, or `CheckpointError`. What a step looks like on disk is in
`checkpoints.files`, what happens to it in the background in `checkpoints.finishing`.
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
    sweep,
)
from vit_jax.checkpoints.finishing import Finisher, Known
from vit_jax.checkpoints.orbax_writer import open_writer
from vit_jax.checkpoints.quiet_orbax import quiet_orbax
from vit_jax.checkpoints.retention import kept
from vit_jax.checkpoints.setting_aside import make_room
from vit_jax.checkpoints.staging import staging_folder
from vit_jax.errors import CheckpointError, DivergedError, ResourceError, VitError, argument, choose
from vit_jax.paths import expanded
from vit_jax.processes import from_main, is_main, together, wait_for_all
from vit_jax.version import __version__

quiet_orbax()
_LOGGER = logging.getLogger(__name__)
RESERVED = ("step", "fingerprint", "arrays", "metrics", "versions", "checksum")


class Checkpoints:
    """The checkpoints of one run, in `<directory>/<step>/`.

    Args:
      directory: a path, not an address; created unless `read_only`.
      keep_last: how many of the newest steps are kept, at least 1.
      keep_best: how many of the steps best by `monitor` are kept beside them.
      monitor: name of the metric that decides what is best.
      monitor_mode: `max` or `min`.
      read_only: never write; for evaluation and prediction.
      staging: a local folder where steps are written first, to be copied to a `directory` that is slow or goes away at
        times; empty for none.
      frugal: copy arrays a few at a time while they are written, instead of all before `save` returns; they must stay
        as they are until `close`.
      report: called with one line for each step that is skipped or set aside, from any thread.

    Attributes:
      directory: where the steps are.
      staging: the folder of this run inside of the staging folder, or None.

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
        staging: str = "",
        frugal: bool = False,
        report: Callable[[str], None] = _LOGGER.warning,
    ):
        choose(monitor_mode, ("max", "min"), "monitor_mode")
        if "://" in str(directory):
            raise ResourceError(
                f"checkpoint directory {directory} is a URL; mount it and give the local path."
            )
        self.directory = Path(expanded(directory)).absolute()
        self.monitor, self.monitor_mode = monitor, monitor_mode
        if staging and jax.process_count() > 1:
            raise ResourceError(
                f"checkpoint.staging is {staging!r}, but {jax.process_count()} processes must write to one disk; "
                "leave it empty and give a workdir on a disk that they share."
            )
        self.staging = staging_folder(staging, self.directory) if staging else None
        self._root = self.staging or self.directory  # where steps are written
        self._report = report
        self._metrics: dict[int, Mapping[str, float]] = {}
        self._bytes = 0  # of the state last saved
        self._in_flight: int | None = None
        self._known = Known()
        self._finisher: Finisher | None = None
        if not read_only:
            retention = partial(kept, keep_last=keep_last, keep_best=keep_best, score=self._score)
            self._checkpointer = self._open(frugal)
            self._finisher = Finisher(
                self._checkpointer, self.directory, self.staging, retention, self._known, report
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self.close(hurry=error is not None)
        except VitError:
            if error is None:  # Otherwise the first error is the one to tell.
                raise

    def steps(self) -> list[int]:
        """Return the steps of ours that are committed, readable or not, in increasing order."""
        return sorted({int(path.name) for path in self._paths()})

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
        places = [path for path in self._paths() if path.name == str(step)]
        return read_metadata(places[0] if places else self.directory / str(step))

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
        background is raised by the next `check`, `save`, `wait` or `close`.

        Args:
          step: number of the step.
          state: any pytree of arrays, at least one; stored as nested dicts by path.
          metadata: what else to store, as JSON: configuration, class names.
          metrics: of this state; the monitored one decides whether it is among the best.

        Raises:
          DivergedError: the state is not finite; it is not saved.
          ResourceError: no space, no permission and the like.
          CheckpointError: the step holds another state, or storing failed otherwise.
        """
        finisher = self._finisher
        if finisher is None:
            raise ValueError("these checkpoints are closed or read-only")
        if set(metadata) & set(RESERVED):
            raise ValueError(f"metadata may not have the keys {RESERVED}")
        with self._failures(f"saving step {self._in_flight}"):
            finisher.wait_for_commit()
        arrays, bad = fingerprint.examine(state)
        if bad:
            # The steps were finite: so it came with the first state, or memory has failed.
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            there = self.steps()
            raise DivergedError(
                f"the state after step {step} is not finite in {bad[0]}{more} and was not saved; the newest checkpoint "
                f"is {f'step {there[-1]}' if there else 'not written yet'}. If the weights it started from are "
                "finite, replace this machine; otherwise start from another checkpoint."
            )
        stored = {
            **metadata,
            "step": step,
            "fingerprint": fingerprint.combine(arrays),
            "arrays": arrays,
            "metrics": dict(metrics or {}),
            "versions": {"vit_jax": __version__} | {n: version(n) for n in ("jax", "orbax-checkpoint")},
        }
        stored["checksum"] = checksum(stored)
        self._bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        with jax.transfer_guard("allow"), self._failures(f"saving step {step}"):
            if self._is_saved(step, stored["fingerprint"]):
                return False
            self._make_room(step)
            self._metrics[step] = stored["metrics"]
            arguments = ocp.args.Composite(
                **{
                    STATE: ocp.args.PyTreeSave(trees.unflatten(trees.flatten(state))),
                    METADATA: ocp.args.JsonSave(stored),
                }
            )
            self._in_flight = step
            self._checkpointer.save(self._root / str(step), args=arguments)
            finisher.begin(step, stored)
        return True

    def check(self) -> None:
        """Raise what has gone wrong in the background since the last call; cheap enough for every step.

        Raises:
          ResourceError, CheckpointError: a save failed.
        """
        if self._finisher is not None:
            with self._failures(f"saving step {self._in_flight}"):
                self._finisher.check()

    def wait(self, *, hurry: bool = False) -> None:
        """Return when everything is on disk and has been read back.

        Args:
          hurry: do not wait for a workdir that is out of reach; what it lacks stays in staging, which is reported.

        Raises:
          ResourceError, CheckpointError: the save in the background failed.
        """
        if self._finisher is not None:
            with self._failures(f"saving step {self._in_flight}"):
                self._finisher.wait(hurry=hurry)

    def close(self, *, hurry: bool = False) -> None:
        """Wait as `wait` does, and release threads."""
        finisher = self._finisher
        if finisher is None:
            return
        try:
            self.wait(hurry=hurry)
        finally:
            self._finisher = None
            # What Orbax writes beside the arrays may have failed, too, and is only told here.
            with self._failures(f"saving step {self._in_flight}"):
                finisher.close()

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
            for path in self._places(candidate):
                try:
                    metadata = together("checkpoint metadata", partial(read_metadata, path))
                    with jax.transfer_guard("allow"):
                        state = read_state(path, f"{part}/" if part else "", abstract, metadata)
                except MismatchError:
                    raise
                except CheckpointError as error:
                    self._known.unreadable.add(path)
                    reasons.append(f"step {candidate}: {error}")
                    if step is None and is_main():
                        self._report(f"checkpoint {path} is skipped: {error}")
                else:
                    if not part:
                        self._known.intact.add(path)
                    return state, metadata
        if not reasons:
            return None
        raise CheckpointError(
            f"no intact checkpoint in {self.directory}: {' '.join(reasons)} Nothing was changed; restore the "
            f"files from a copy, or start over in another {argument('workdir')}."
        )

    def _paths(self) -> list[Path]:
        """Return the directories of steps of ours, those of the workdir before those in staging."""
        folders = [self.directory] if self.staging is None else [self.directory, self.staging]
        with self._failures("listing the checkpoints"):  # A disk that cannot be read is not an empty one.
            return [
                path for folder in folders if folder.is_dir() for path in folder.iterdir() if is_ours(path)
            ]

    def _places(self, step: int) -> list[Path]:
        """Return where a step is, the same in all processes: a step may be in the workdir and in staging."""
        there = [str(path) for path in self._paths() if path.name == str(step)] if is_main() else []
        return [Path(path) for path in from_main("places of a checkpoint", there)]

    def _open(self, frugal: bool) -> ocp.AsyncCheckpointer:
        with self._failures("opening"):
            for folder in {self.directory, self._root}:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass  # Found out now rather than at the first save.
                if is_main():
                    sweep(folder)
        wait_for_all("checkpoints swept")
        return open_writer(frugal)

    def _is_saved(self, step: int, mark: str) -> bool:
        # Process 0 looks for all of them: what it will write or leave is then the same everywhere.
        there = from_main("checkpoint there", self._mark(step) if is_main() else None)
        if there is None:
            return False
        if there != mark:
            raise CheckpointError(
                f"checkpoint {self._root / str(step)} holds a different state (fingerprint {there}, not "
                f"{mark}); move it away or use another {argument('workdir')}."
            )
        return True

    def _mark(self, step: int) -> str | None:
        """Return the fingerprint of a step where it would be written, or None if it is not there or cannot be read."""
        path = self._root / str(step)
        if path in self._known.unreadable or not is_ours(path):
            return None
        try:
            return read_metadata(path)["fingerprint"]
        except CheckpointError:
            self._known.unreadable.add(path)
            return None

    def _make_room(self, step: int) -> None:
        if is_main():
            make_room(self._root, step, self._known.unreadable, self._report)
        wait_for_all("checkpoints set aside")

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
            raise explain(action, self._root, error, self._bytes) from error
