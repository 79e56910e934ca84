"""What each method makes of the projections of views: its loss, and the terms of it that are logged."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vit_jax.objectives.views import losses
from vit_jax.objectives.views.options import (
    BarlowTwinsOptions,
    ByolOptions,
    LejepaOptions,
    MocoV3Options,
    SimclrOptions,
    SimsiamOptions,
    VicregOptions,
    ViewsOptions,
    VisregOptions,
)

Loss = tuple[jax.Array, dict[str, jax.Array]]


class Seen(NamedTuple):
    """What networks say of views.

    Attributes:
      projections: of all views, global ones first, `(v, b, d)`.
      whole: how many global views there are.
      predictions: of the projections, where there is a predictor.
      targets: the teacher's projections, or the student's own where there is none.
    """

    projections: jax.Array
    whole: int
    predictions: jax.Array
    targets: jax.Array


def loss_of(options: ViewsOptions, seen: Seen, key: jax.Array) -> Loss:
    """Return a method's loss and its terms; `key` is for directions, the same on all devices."""
    return METHODS[type(options)](options, seen, key)


def _around(options: LejepaOptions, seen: Seen, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    views = seen.projections
    around = views if options.around == "all" else views[: seen.whole]
    return views, around, losses.unit_directions(key, views.shape[-1], options.directions)


def _lejepa(options: LejepaOptions, seen: Seen, key: jax.Array) -> Loss:
    return losses.lejepa_loss(*_around(options, seen, key), options.weight)


def _visreg(options: VisregOptions, seen: Seen, key: jax.Array) -> Loss:
    return losses.visreg_loss(*_around(options, seen, key), options.weight, options.weights)


def _vicreg(options: VicregOptions, seen: Seen, key: jax.Array) -> Loss:
    first, second = seen.projections
    return losses.vicreg_loss(first, second, options.weights)


def _barlow_twins(options: BarlowTwinsOptions, seen: Seen, key: jax.Array) -> Loss:
    first, second = seen.projections
    return losses.barlow_twins_loss(first, second, options.weight)


def _simclr(options: SimclrOptions, seen: Seen, key: jax.Array) -> Loss:
    first, second = seen.projections
    return losses.nt_xent_loss(first, second, options.temperature), {}


def _cosines(seen: Seen) -> jax.Array:
    """Return the mean cosine of each prediction and the target of the other view, `(2,)`."""
    pairs = zip(seen.predictions, seen.targets[::-1])
    return jnp.stack([losses.cosine(said, wanted) for said, wanted in pairs])


def _simsiam(options: SimsiamOptions, seen: Seen, key: jax.Array) -> Loss:
    return -_cosines(seen).mean(), {}


def _byol(options: ByolOptions, seen: Seen, key: jax.Array) -> Loss:
    return (2 - 2 * _cosines(seen)).sum(), {}


def _moco_v3(options: MocoV3Options, seen: Seen, key: jax.Array) -> Loss:
    first, second = (
        losses.info_nce_loss(said, jax.lax.stop_gradient(wanted), options.temperature)
        for said, wanted in zip(seen.predictions, seen.targets[::-1])
    )
    return first + second, {"cosine": _cosines(seen).mean()}


METHODS: dict[type[ViewsOptions], Callable[[Any, Seen, jax.Array], Loss]] = {
    BarlowTwinsOptions: _barlow_twins,
    ByolOptions: _byol,
    LejepaOptions: _lejepa,
    MocoV3Options: _moco_v3,
    SimclrOptions: _simclr,
    SimsiamOptions: _simsiam,
    VicregOptions: _vicreg,
    VisregOptions: _visreg,
}
