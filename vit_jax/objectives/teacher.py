"""A teacher that follows its student: the moving average of the student's parameters."""

from typing import Any

import jax
import jax.numpy as jnp


def follow(teacher: Any, student: Any, momentum: jax.typing.ArrayLike) -> Any:
    """Return the teacher a step later, `momentum * teacher + (1 - momentum) * student`.

    It is the mean teacher of Tarvainen & Valpola 2017, arXiv 1703.01780, as MoCo, BYOL and DINO have it.

    Args:
      teacher: nested dict of arrays.
      student: nested dict with the same arrays, after the update.
      momentum: share of the old teacher, from 0 to 1; a schedule's is traced, see `objectives.schedules`.
    """
    share = jnp.asarray(momentum, jnp.float32)
    return jax.tree.map(lambda old, new: share * old + (1 - share) * new, teacher, student)
