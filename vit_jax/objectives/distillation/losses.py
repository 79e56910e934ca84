"""Losses of distillation: pure functions of the logits of a student and of its teacher, one value per example.

All are computed in float32. Letters: `b` images, `c` classes.
"""

import jax
import jax.numpy as jnp

from vit_jax.objectives.losses import softmax_cross_entropy


def kl_loss(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """Return the divergence of the student's distribution from the teacher's, times the temperature squared.

    Hinton et al. 2015, arXiv 1503.02531; with a temperature of 1 the function matching of Beyer et al. 2021, arXiv
    2106.05237.

    Args:
      student, teacher: logits `(b, c)`.
      temperature: divides both.

    Returns:
      `(b,)`, summed over classes.
    """
    target = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
    said = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    return jnp.sum(jnp.exp(target) * (target - said), axis=-1) * temperature**2


def soft_loss(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """Return `kl_loss` divided by the number of classes, as DeiT's code has it (Touvron et al. 2020, arXiv 2012.12877).

    The division is not in the paper; with a thousand classes it leaves little of the teacher.
    """
    return kl_loss(student, teacher, temperature) / student.shape[-1]


def hard_loss(student: jax.Array, teacher: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Return the cross-entropy of the student against the teacher's best class (DeiT, arXiv 2012.12877), `(b,)`."""
    best = jax.nn.one_hot(jnp.argmax(teacher, axis=-1), teacher.shape[-1], dtype=jnp.float32)
    return softmax_cross_entropy(student.astype(jnp.float32), best)


LOSSES = {"kl": kl_loss, "soft": soft_loss, "hard": hard_loss}
