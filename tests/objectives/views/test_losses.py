"""Losses of joint embedding: those of lightly and of closed forms, values and gradients, and edge cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.cases import assert_close, load_case, tolerance
from vit_jax.objectives.views import losses
from vit_jax.objectives.views.methods import Seen, loss_of
from vit_jax.objectives.views.options import BarlowTwinsOptions, ByolOptions, SimsiamOptions, VicregOptions


def arrays_of(case):
    about, arrays, _ = load_case(case)
    given = {name.removeprefix("in."): jnp.asarray(x) for name, x in arrays.items() if name.startswith("in.")}
    return about, given, {name.removeprefix("out."): x for name, x in arrays.items()}


@pytest.fixture(scope="module")
def lejepa():
    about, given, wanted = arrays_of("lejepa_sigreg")
    return about, given, losses.unit(given["directions"].T).T, wanted


def test_the_statistic_of_each_view_and_direction_is_that_of_the_formula(lejepa):
    """Values and gradients of the losses: `tests/parity`."""
    _, given, directions, wanted = lejepa
    views = jnp.concatenate([given["global_proj"], given["local_proj"]])
    statistic = losses._epps_pulley(jnp.einsum("vbd,ds->vbs", views, directions))
    assert_close(statistic, wanted["closed.statistic"], 1e-4, "statistic")


def test_a_collapse_is_left_again_by_visreg_alone(lejepa):
    """The deviation's gradient stays where SIGReg's vanishes, and is finite where all are exactly the same."""
    directions = lejepa[2]
    noise = np.random.default_rng(0).standard_normal((1, 12, 6)).astype(np.float32)

    def gradient(compute, scale):
        return float(jnp.abs(compute(jnp.asarray(noise * scale))).max())

    visreg = jax.jit(
        jax.grad(lambda views: losses.visreg_loss(views, views, directions, 1.0, (1.0, 0.0, 0.0))[0])
    )
    sigreg = jax.jit(jax.grad(lambda views: losses.sigreg(views, directions)))

    assert gradient(sigreg, 1e-4) < 1e-3 * gradient(sigreg, 0.5)
    assert gradient(visreg, 1e-4) > 0.5 * gradient(visreg, 0.5)
    assert np.isfinite(gradient(visreg, 0.0))
    assert np.isfinite(gradient(sigreg, 0.0))


PAIRS = {
    "simsiam": (SimsiamOptions(), "p1"),
    "byol": (ByolOptions(), "p1"),
    "vicreg": (VicregOptions(), "z1"),
    "barlow": (BarlowTwinsOptions(), "z1"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_losses_of_two_views_are_those_of_lightly(name):
    about, given, wanted = arrays_of("ssl_losses_lightly")
    options, moved = PAIRS[name]

    def loss(x):
        inputs = given | {moved: x}
        projections = jnp.stack([inputs["z1"], inputs["z2"]])
        predictions = jnp.stack([inputs["p1"], inputs["p2"]])
        return loss_of(options, Seen(projections, 2, predictions, projections), jax.random.key(0))

    (value, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(given[moved])
    assert_close(value, wanted[name], tolerance(about, name), name)
    key = f"grad_{name}_{moved}"
    assert_close(gradient, wanted[key], tolerance(about, key), key)
    for short, term in {"inv": "invariance", "var": "variance", "cov": "covariance"}.items():
        if name == "vicreg":
            assert_close(terms[term], wanted[f"vicreg_{short}"], tolerance(about, f"vicreg_{short}"), term)


def test_contrastive_losses_are_those_of_lightly_and_open_clip():
    about, given, wanted = arrays_of("ssl_losses_lightly")
    compute = jax.jit(jax.value_and_grad(losses.nt_xent_loss))
    value, gradient = compute(given["z1"], given["z2"])
    assert_close(value, wanted["ntxent"], tolerance(about, "ntxent"), "NT-Xent")
    assert_close(gradient, wanted["grad_ntxent_z1"], tolerance(about, "grad_ntxent_z1"), "its gradient")
    about, given, wanted = arrays_of("aux_losses")
    image, text = given["img"], given["txt"]
    found = losses.info_nce_loss(image, text, 1 / 14) + losses.info_nce_loss(text, image, 1 / 14)
    # Of both directions MoCo v3 takes the sum, and twice the temperature of it.
    np.testing.assert_allclose(found / 2 / (2 / 14), wanted["clip"], rtol=1e-5)


def test_directions_are_unit_vectors_new_for_each_key():
    first, again, other = (losses.unit_directions(jax.random.key(seed), 5, 7) for seed in (0, 0, 1))
    np.testing.assert_allclose(jnp.linalg.norm(first, axis=0), 1, rtol=1e-6)
    assert first.shape == (5, 7)
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first - other)).min() > 0


def test_spread_is_one_in_all_directions_and_zero_in_one():
    x = jax.random.normal(jax.random.key(0), (4000, 16))
    assert losses.spread(x) == pytest.approx(1, abs=0.01)
    assert losses.spread(jnp.ones((5, 16))) == pytest.approx(0, abs=1e-6)
