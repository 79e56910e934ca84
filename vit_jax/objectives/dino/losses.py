"""Losses of self-distillation: pure functions of scores that a student and its teacher give to prototypes.

Sources: DINO (Caron et al. 2021, arXiv 2104.14294), iBOT (Zhou et al. 2021, arXiv 2111.07832) and DINOv2 (Oquab et
al. 2023, arXiv 2304.07193). Letters: `b` images, `v` views of each for the student and `u` for the teacher, `m`
masked patches, `k` prototypes. Everything is computed in float32.
"""

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError
from vit_jax.models.layers.norm import unit
from vit_jax.objectives.losses import softmax_cross_entropy


def teacher_temperature(epoch: jax.Array | int, start: float, end: float, warmup: int) -> jax.Array:
    """Return the temperature of the teacher: linear over the first epochs, then constant.

    Args:
      epoch: counted from 0.
      start: in epoch 0.
      end: in epoch `warmup - 1` and later.
      warmup: number of epochs that the way takes.
    """
    way = jnp.asarray(epoch, jnp.float32) / max(warmup - 1, 1)
    return jnp.where(jnp.asarray(epoch) < warmup, start + (end - start) * way, end).astype(jnp.float32)


def teacher_targets(scores: jax.Array, center: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Return what the student is to say: the teacher's scores, centred and sharpened; no gradient flows back.

    Args:
      scores: `(..., k)`.
      center: `(k,)`, see `update_center`.
      temperature: see `teacher_temperature`.

    Returns:
      `(..., k)`, rows summing to 1.
    """
    return jax.lax.stop_gradient(jax.nn.softmax((scores.astype(jnp.float32) - center) / temperature))


def sinkhorn_targets(
    scores: jax.Array, temperature: jax.Array | float, valid: jax.Array | None = None, iterations: int = 3
) -> jax.Array:
    """Return what the student is to say: the teacher's scores, shared out so that prototypes are used alike.

    Rows and columns of `exp(scores / temperature)` are divided by their sums in turns (Sinkhorn and Knopp); over all
    rows, on whatever device they are.

    Args:
      scores: `(r, k)`.
      temperature: see `teacher_temperature`.
      valid: `(r,)` bool, the rows that count; None for all.
      iterations: how often.

    Returns:
      `(r, k)`, rows summing to 1; no gradient flows back.

    Source: Caron et al. 2020, arXiv 2006.09882; as DINOv2 has it.
    """
    scores = jax.lax.stop_gradient(scores.astype(jnp.float32)) / temperature
    counted = jnp.zeros(len(scores)) if valid is None else jnp.where(valid, 0.0, -jnp.inf)
    rows, columns = counted, jnp.zeros(scores.shape[1])
    for _ in range(iterations):  # logarithms of what rows and columns are multiplied by
        columns = -jax.nn.logsumexp(scores + rows[:, None], axis=0)
        rows = counted - jax.nn.logsumexp(scores + columns, axis=1)
    return jax.nn.softmax(scores + columns)


def update_center(center: jax.Array, scores: jax.Array, momentum: float = 0.9) -> jax.Array:
    """Return the running mean of the teacher's scores; DINO updates it after the loss.

    Args:
      center: `(k,)`, at first zeros.
      scores: `(..., k)`; all rows count alike, on whatever device they are.
      momentum: share of the old centre.
    """
    mean = scores.astype(jnp.float32).reshape(-1, scores.shape[-1]).mean(0)
    return jax.lax.stop_gradient(momentum * center + (1 - momentum) * mean)


def dino_loss(student: jax.Array, targets: jax.Array, temperature: float = 0.1) -> jax.Array:
    """Return the cross-entropy of each student's view against each teacher's view of the same image but itself.

    Args:
      student: scores `(v, b, k)`; the first `u` views are the teacher's.
      targets: `(u, b, k)`, see `teacher_targets`.
      temperature: of the student.

    Returns:
      Mean over pairs of views and images.

    Raises:
      ConfigError: there are no two different views.
    """
    pairs = 1 - jnp.eye(len(targets), len(student))
    count = len(targets) * len(student) - min(len(targets), len(student))
    if not count:
        raise ConfigError(
            f"{len(student)} student view and {len(targets)} teacher view make no pair of different views; give "
            "the student at least 2."
        )
    said = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    agreement = jnp.einsum("ubk,vbk->uv", targets, said, precision=jax.lax.Precision.HIGHEST)
    return -jnp.sum(pairs * agreement) / (count * student.shape[1])


def ibot_loss(student: jax.Array, targets: jax.Array, mask: jax.Array, temperature: float = 0.1) -> jax.Array:
    """Return the cross-entropy at masked patches, every image counting alike however many of its patches are masked.

    Args:
      student: scores of the masked patches `(m, k)`, image by image. Rows beyond the masked patches fill up a fixed
        size and do not count.
      targets: `(m, k)`, the teacher's for the same patches, which it saw.
      mask: `(b, ...)` bool, True where a patch was masked.
      temperature: of the student.

    Returns:
      Mean over the patches of an image, and then over images.
    """
    masked = mask.reshape(len(mask), -1)
    image, _ = jnp.nonzero(masked, size=len(student), fill_value=len(mask))
    share = 1 / jnp.maximum(masked.sum(1), 1).astype(jnp.float32)
    weights = jnp.take(share, image, mode="fill", fill_value=0)
    return patch_loss(student, targets, weights, len(mask), temperature)


def patch_loss(
    student: jax.Array, targets: jax.Array, weights: jax.Array, images: int, temperature: float = 0.1
) -> jax.Array:
    """Return the cross-entropy at masked patches, see `ibot_loss`, whose weights are known.

    Args:
      student: scores `(..., k)`.
      targets: `(..., k)`.
      weights: `(...,)`: 1 / the number of masked patches of the image; 0 for what does not count.
      images: how many there are, those without a mask too.
      temperature: of the student.
    """
    losses = softmax_cross_entropy(student.astype(jnp.float32) / temperature, targets)
    return jnp.sum(losses * weights) / images


def koleo_loss(features: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    """Return how crowded directions are: the mean of minus the logarithm of the distance to the nearest other.

    It is the estimator of entropy by Kozachenko and Leonenko, as a loss (Sablayrolles et al. 2018, arXiv 1806.03198).

    Args:
      features: `(b, d)`, with b at least 2.
      epsilon: keeps logarithm and gradient finite where two are equal.
    """
    points = unit(features.astype(jnp.float32))
    cosines = jnp.matmul(points, points.T, precision=jax.lax.Precision.HIGHEST)
    nearest = jnp.argmax(jnp.where(jnp.eye(len(points), dtype=bool), -jnp.inf, cosines), axis=1)
    distance = jnp.sqrt(jnp.square(points - points[nearest] + epsilon).sum(-1))
    return -jnp.log(distance + epsilon).mean()


def gram_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Return how much similarities of an image's patches differ between student and teacher, squared.

    Args:
      student, teacher: features of patches `(b, n, d)`, of any width each.

    Returns:
      Mean over images and pairs of patches of the squared difference of their cosines.

    Source: Gram anchoring, Simeoni et al. 2025, arXiv 2508.10104.
    """

    def cosines(features: jax.Array) -> jax.Array:
        points = unit(features.astype(jnp.float32))
        return jnp.einsum("bnd,bmd->bnm", points, points, precision=jax.lax.Precision.HIGHEST)

    return jnp.square(cosines(student) - jax.lax.stop_gradient(cosines(teacher))).mean()


def entropies(chances: jax.Array) -> jax.Array:
    """Return the entropy of each row of probabilities `(..., k)`, in nats."""
    return jax.scipy.special.entr(chances).sum(-1)
