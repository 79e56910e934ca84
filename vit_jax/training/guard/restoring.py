"""A saved state for a run that looks for loss spikes and did not before, or the other way round."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.training.guard.spikes import LossHistory
from vit_jax.training.state import TrainState

_HISTORY = "loss_history"


def restore_state(
    checkpoints: Checkpoints, abstract: TrainState, step: int | None = None
) -> tuple[TrainState, dict[str, Any]] | None:
    """Return what `Checkpoints.restore` does; a history of losses that is not stored, or of another length, is new.

    Raises:
      CheckpointError: as `Checkpoints.restore`.
    """
    metadata = checkpoints.newest_metadata() if step is None else checkpoints.metadata(step)
    if metadata is None:
        return None
    wanted, stored = abstract.loss_history, _stored(metadata["arrays"], abstract.step.sharding)
    restored = checkpoints.restore(replace(abstract, loss_history=stored), step)
    assert restored is not None
    state, metadata = restored
    if _shapes(wanted) != _shapes(stored):
        fresh = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), wanted)
        state = replace(state, loss_history=fresh)
    return state, metadata


def _stored(arrays: dict[str, list[Any]], sharding: Any) -> LossHistory | None:
    """Return the shapes of the history among the stored arrays, if there is one."""
    parts: dict[str, Any] = {
        name: jax.ShapeDtypeStruct(tuple(entry[1]), np.dtype(entry[0]), sharding=sharding)
        for path, entry in arrays.items()
        for name in [path.removeprefix(f"{_HISTORY}/")]
        if name != path
    }
    return LossHistory(**parts) if parts else None


def _shapes(history: LossHistory | None) -> Any:
    return jax.tree.map(lambda x: x.shape, history)
