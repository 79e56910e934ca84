"""What stands where a step is to be written is renamed, never deleted, unless it is surely a remainder of ours."""

from collections.abc import Callable
from pathlib import Path

from vit_jax.checkpoints.files import SAVING, discard, is_remainder

SET_ASIDE = ".unreadable"


def make_room(folder: Path, step: int, unreadable: set[Path], report: Callable[[str], None]) -> None:
    """Rename what cannot be read in a folder and what stands where `step` is to be; nothing is deleted.

    Args:
      folder: where steps are written.
      step: the one to be written.
      unreadable: steps known to be so, anywhere; those of this folder are removed from the set.
      report: called with one line for each that is renamed.
    """
    place = folder / str(step)
    beside = place.with_name(f"{place.name}{SAVING}")  # Orbax would delete it, whatever it is.
    if is_remainder(beside):
        discard(beside)
    here = {
        path for path in unreadable.copy() if path.parent == folder
    }  # A copy: the background may add to it.
    for path in sorted({place, beside, *here}):
        if path.exists():
            _set_aside(path, report)
    unreadable.difference_update(here)


def _set_aside(path: Path, report: Callable[[str], None]) -> None:
    target, count = path.with_name(f"{path.name}{SET_ASIDE}"), 1
    while target.exists():
        count += 1
        target = path.with_name(f"{path.name}{SET_ASIDE}{count}")
    path.rename(target)
    report(f"{path} is not an intact checkpoint and was renamed to {target}.")
