"""What happens to a step after Orbax has begun to write it, in the background of training.

It is committed, read back and compared, copied to the workdir if it was written elsewhere; then steps that are no
longer wanted are deleted. Nothing is deleted before everything that stays has been read back. What fails is kept
until somebody asks: `check` after every step of training.
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from vit_jax.checkpoints.files import Metadata, is_ours, one_line, read_metadata, remove, sync
from vit_jax.checkpoints.staging import LASTING, copy_verified, same_files
from vit_jax.checkpoints.verification import verify
from vit_jax.errors import CheckpointError, ResourceError
from vit_jax.processes import is_main, together

PATIENCE = 1800.0  # seconds that a workdir may be out of reach
FIRST_DELAY, LAST_DELAY = 1.0, 60.0  # seconds between two attempts
VISIBLE_WITHIN = 10.0  # seconds after which a directory that process 0 renamed must be seen by all


@dataclass(frozen=True)
class Known:
    """What has been found out about step directories by reading them.

    Attributes:
      intact: they hold what was saved.
      unreadable: they do not; they are neither counted nor deleted.
    """

    intact: set[Path] = field(default_factory=set)
    unreadable: set[Path] = field(default_factory=set)


class Finisher:
    """The background work on the checkpoints of one run.

    Args:
      checkpointer: what writes the steps.
      directory: where they end up.
      staging: where they are written, if elsewhere.
      retention: returns which of these steps stay.
      known: about steps; added to.
      report: called with one line for what somebody should know.
    """

    def __init__(
        self,
        checkpointer: ocp.AsyncCheckpointer,
        directory: Path,
        staging: Path | None,
        retention: Callable[[set[int]], set[int]],
        known: Known,
        report: Callable[[str], None],
    ) -> None:
        self._checkpointer, self._directory, self._staging = checkpointer, directory, staging
        self._kept, self._known, self._report = retention, known, report
        # Two threads: a save must be seen to fail while an earlier step waits for its workdir to come back.
        self._committing = concurrent.futures.ThreadPoolExecutor(1, "checkpoint-commit")
        self._finishing = concurrent.futures.ThreadPoolExecutor(1, "checkpoint-finish")
        self._committed: concurrent.futures.Future[None] | None = None
        self._jobs: list[concurrent.futures.Future[None]] = []
        self._hurry = threading.Event()

    def begin(self, step: int, metadata: Metadata) -> None:
        """Take over a step that the checkpointer has begun to save."""
        self._committed = self._committing.submit(self._checkpointer.wait_until_finished)
        self._jobs.append(self._committed)
        self._jobs.append(self._finishing.submit(self._finish, step, metadata, self._committed))

    def check(self) -> None:
        """Raise what has failed in the background, once."""
        for job in [job for job in self._jobs if job.done()]:
            self._jobs.remove(job)
            job.result()

    def wait_for_commit(self) -> None:
        """Return when the last step is written, if not yet read back; raise what has failed."""
        if self._committed is not None:
            concurrent.futures.wait([self._committed])
        self.check()

    def wait(self, *, hurry: bool = False) -> None:
        """Return when everything is done; raise what has failed.

        Args:
          hurry: do not wait for a workdir that is out of reach; what could not be copied stays in staging.
        """
        if hurry:
            self._hurry.set()
        if self._staging is not None and not self._jobs:
            # What an earlier run could not copy.
            self._jobs.append(self._finishing.submit(self._publish))
        while self._jobs:
            concurrent.futures.wait(self._jobs[:1])
            self.check()

    def close(self) -> None:
        """End the threads; wait for what they are doing, but not for a workdir that is out of reach."""
        self._hurry.set()
        self._committing.shutdown()
        self._finishing.shutdown()
        self._checkpointer.close()

    def _finish(self, step: int, metadata: Metadata, committed: concurrent.futures.Future[None]) -> None:
        concurrent.futures.wait([committed])
        if committed.exception() is not None:
            return  # That job tells it.
        path = (self._staging or self._directory) / str(step)
        if self._staging is not None and not path.exists():
            # While the work on an earlier step waited for the workdir, this one was copied, or was no longer wanted.
            self._publish()
            return
        share = (jax.process_index(), jax.process_count())
        try:
            together("checkpoint read back", partial(_verify_when_visible, path, metadata, share))
        except CheckpointError as error:
            raise CheckpointError(
                f"checkpoint {path} was written but cannot be read back correctly: {error} Steps saved before are "
                "intact; check the "
                "disk and the memory of this machine."
            ) from error
        if is_main():
            sync(path)
            self._known.intact.add(path)
            if self._staging is None:
                self._prune(self._directory)
            else:
                self._publish()

    def _prune(self, folder: Path) -> None:
        """Delete the steps in a folder that need not stay."""
        steps = {
            int(path.name)
            for path in folder.iterdir()
            if is_ours(path) and path not in self._known.unreadable
        }
        keep = self._kept(steps)
        while damaged := {step for step in keep if not self._is_intact(folder / str(step))}:
            steps -= damaged
            keep = self._kept(steps)
        for step in sorted(steps - keep):
            path = folder / str(step)
            # Only what is a step of ours beyond doubt.
            if not path.is_symlink() and self._has_metadata(path):
                remove(path)
                self._known.intact.discard(path)

    def _is_intact(self, path: Path) -> bool:
        """Return whether a step is intact; it is read if that is not known yet."""
        if path in self._known.unreadable:
            return False
        if path not in self._known.intact:
            try:
                verify(path, read_metadata(path))
            except CheckpointError as error:
                self._known.unreadable.add(path)
                self._report(f"checkpoint {path} is damaged and does not count: {error}")
                return False
            self._known.intact.add(path)
        return True

    def _has_metadata(self, path: Path) -> bool:
        try:
            read_metadata(path)
        except CheckpointError:
            return False
        return True

    def _publish(self) -> None:
        """Move what is in staging to the workdir, as soon as it can be reached, and delete there what need not stay."""
        assert self._staging is not None
        begun, delay = None, FIRST_DELAY
        while True:
            try:
                for path in self._staged():
                    self._publish_step(path)
                self._prune(self._directory)
            except OSError as error:
                staged = ", ".join(path.name for path in self._staged())
                trouble = f"{self._directory} cannot be written: {one_line(error)}; step {staged} is in {self._staging}"
                if self._hurry.is_set():
                    self._report(f"{trouble}; start again on this machine to have it copied.")
                    return
                begun = begun or time.monotonic()
                if error.errno in LASTING or time.monotonic() - begun > PATIENCE:
                    raise ResourceError(
                        f"{trouble}. Make it writable, then start again on this machine to resume from there."
                    ) from error
                if delay == FIRST_DELAY:
                    self._report(
                        f"{trouble}; training continues, and the copy is retried for {PATIENCE / 60:.0f} min."
                    )
                self._prune(self._staging)  # Local disks fill up, too.
                self._hurry.wait(delay)
                delay = min(2 * delay, LAST_DELAY)
            else:
                if begun is not None:
                    self._report(f"{self._directory} can be written again.")
                return

    def _staged(self) -> list[Path]:
        assert self._staging is not None
        paths = [path for path in self._staging.iterdir() if is_ours(path) and self._is_intact(path)]
        return sorted(paths, key=lambda path: int(path.name))

    def _publish_step(self, path: Path) -> None:
        target = self._directory / path.name
        self._directory.stat()  # Here a lost connection is an OSError; asking whether a path exists hides it.
        if not target.exists():
            copy_verified(path, target)
        elif not same_files(path, target):
            raise CheckpointError(f"checkpoint {target} differs from {path}; move one of them away.")
        self._known.intact.add(target)
        self._known.intact.discard(path)
        remove(path)


def _verify_when_visible(path: Path, metadata: Metadata, share: tuple[int, int]) -> None:
    until = time.monotonic() + VISIBLE_WITHIN
    while share[1] > 1 and not path.exists() and time.monotonic() < until:
        time.sleep(0.1)
    verify(path, metadata, share)
