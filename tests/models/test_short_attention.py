"""The kernel for short sequences, run by Pallas's interpreter: equal to explicit attention, on every mesh."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import ConfigError
from vit_jax.models.layers import attention as attention_module
from vit_jax.models.layers.attention import attention
from vit_jax.models.layers.kernels.room import (
    BACKWARD,
    FORWARD,
    MAX_TOKENS,
    MIN_QUERIES,
    heads_together,
    image_bytes,
    images_together,
)
from vit_jax.models.layers.kernels.short_attention import short_attention
from vit_jax.models.layers.kernels.together import attend
from vit_jax.models.layers.placement import Placement, is_known, on_each_device, placed
from vit_jax.training.devices.mesh import BATCH, make_mesh


def interpreted(q, k, v, bias=None, **options):
    """The kernel, given arrays by heads."""
    flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
    bias = None if bias is None else bias[:, None]  # of one part
    return short_attention(q.shape[2], *flat, bias, interpret=True, **options).reshape(q.shape)


def explicit(q, k, v, bias=None):
    return attention(q, k, v, bias=bias, implementation="explicit")[0]


def inputs(b, n, m, h, k, dtype=jnp.float32, scale=1.0):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((b, n, h, k), (b, m, h, k), (b, m, h, k), (b, n, h, k))
    return [(scale * jax.random.normal(key, shape)).astype(dtype) for key, shape in zip(keys, shapes)]


def with_gradients(function, *given):
    """The value of a function of all but the last array, and their gradients for the last one, its cotangent."""

    @jax.jit
    def both(*given):
        out, back = jax.vjp(function, *given[:-1])
        return out, *back(given[-1])

    return both(*given)


@pytest.mark.parametrize(
    ("b", "n", "m", "h", "k"),
    [(8, 37, 37, 2, 64), (12, 16, 16, 3, 8), (9, 20, 33, 4, 64), (2, 49, 49, 3, 88), (5, 17, 17, 6, 64)],
)
def test_it_is_explicit_attention_with_its_gradients(b, n, m, h, k):
    given = inputs(b, n, m, h, k)
    for ours, expected in zip(with_gradients(interpreted, *given), with_gradients(explicit, *given)):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)  # sums of up to 49 values near 1


@pytest.mark.parametrize(
    ("b", "n", "m", "h", "k", "windows", "heads"),
    [(8, 49, 49, 4, 32, 4, 4), (6, 20, 33, 3, 8, 1, 3), (12, 17, 17, 8, 32, 3, 8), (4, 16, 16, 2, 72, 2, 2)],
)
def test_a_bias_of_each_window_is_added_and_has_its_gradient(b, n, m, h, k, windows, heads):
    q, key, v, dout = inputs(b, n, m, h, k)
    bias = jax.random.normal(jax.random.key(1), (windows, heads, n, m))
    given = (q, key, v, bias, dout)
    for ours, expected in zip(with_gradients(interpreted, *given), with_gradients(explicit, *given)):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=4e-6)  # as above, of two to six images


def test_a_bias_that_is_not_learned_has_no_gradient():
    q, k, v, dout = inputs(4, 16, 16, 2, 8)
    bias = jnp.where(jax.random.bernoulli(jax.random.key(1), 0.7, (2, 1, 16, 16)), 0.0, -jnp.inf)
    bias = jnp.maximum(bias, jnp.finfo(jnp.float32).min)
    ours = with_gradients(partial(interpreted, learned=False), q, k, v, bias, dout)
    expected = with_gradients(explicit, q, k, v, bias, dout)
    for mine, other in zip((*ours[:4], ours[4]), (*expected[:4], jnp.zeros_like(bias))):
        np.testing.assert_allclose(mine, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("b", "n", "m", "windows", "biases"),
    [
        (8, 49, 49, 4, 4),  # two windows side by side, twice
        (8, 49, 49, 4, 1),  # the same, with one bias
        (32, 49, 49, 16, 16),  # eight windows are whole tiles
        (6, 49, 49, 1, 1),
        (9, 49, 49, 3, 3),  # three windows are no pairs
        (16, 4, 16, 8, 0),  # eight pooled ones, which see only their own keys
        (16, 16, 64, 4, 0),
        (3, 130, 130, 1, 0),
    ],
)
def test_short_sequences_are_attended_to_together(b, n, m, windows, biases):
    q, k, v, dout = inputs(b, n, m, 2, 32)
    bias = [jax.random.normal(jax.random.key(1), (biases, 2, n, m))] if biases else []

    def ours(q, k, v, *bias):
        flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
        return attend(2, *flat, *bias, windows=windows, interpret=True).reshape(q.shape)

    given = (q, k, v, *bias, dout)
    for mine, expected in zip(with_gradients(ours, *given), with_gradients(explicit, *given), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=4e-6)


def test_a_bias_is_divided_by_heads_and_its_gradient_summed_over_devices():
    mesh = make_mesh(dict(data=2, fsdp=2, tensor=2))
    q, k, v, dout = inputs(16, 16, 16, 4, 32)
    bias = jax.random.normal(jax.random.key(1), (2, 4, 16, 16))
    expected = with_gradients(explicit, q, k, v, bias, dout)

    def each(q, k, v, bias):
        flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
        together = partial(attend, windows=2, interpret=True)
        return on_each_device(together, 4, *flat, bias=bias).reshape(q.shape)

    with placed(Placement(mesh, BATCH[0], "fsdp", "tensor", {}, {})):
        ours = with_gradients(each, q, k, v, bias, dout)
    for mine, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=4e-6)


def test_of_bfloat16_it_is_as_exact_as_the_explicit_form():
    given = inputs(2, 50, 50, 2, 64, jnp.bfloat16)
    exact = with_gradients(explicit, *(x.astype(jnp.float32) for x in given))
    ours, theirs = (with_gradients(function, *given) for function in (interpreted, explicit))
    for mine, other, truth in zip(ours, theirs, exact):
        assert mine.dtype == jnp.bfloat16
        errors = [np.linalg.norm(np.asarray(x, np.float32) - truth) for x in (mine, other)]
        assert errors[0] <= errors[1] * 1.05


def test_large_scores_do_not_overflow():
    given = inputs(1, 16, 16, 2, 64, scale=60.0)
    for ours, expected in zip(with_gradients(interpreted, *given), with_gradients(explicit, *given)):
        assert np.isfinite(ours).all()
        # Of scores near 10,000, float32 keeps three digits behind the point.
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("heads", "size", "tokens", "together"),
    [
        (6, 64, 196, 6),
        (12, 64, 577, 2),
        (16, 88, 256, 16),
        (16, 80, 512, 8),
        (3, 64, 640, 3),
        (16, 112, 400, 8),
    ],
)
def test_the_heads_of_a_program_fill_lanes_or_are_all(heads, size, tokens, together):
    assert heads_together(heads, size, tokens, tokens, 2) == together
    assert together == heads or together * size % 128 == 0


def test_heads_that_have_to_stay_together_may_have_no_room():
    # As in so400m at 336 pixels: no fewer than 16 heads of 72 fill lanes.
    assert heads_together(16, 72, 256, 256, 2) == 16
    assert heads_together(16, 72, 576, 576, 2) == 0
    assert heads_together(16, 64, 641, 16, 2) == heads_together(16, 64, 16, 641, 2) == 0


@pytest.mark.parametrize(
    ("images", "rows", "columns", "direction", "together"),
    [
        (128, 196, 384, FORWARD, 8),
        (128, 196, 384, BACKWARD, 4),
        (13, 196, 384, FORWARD, 1),  # neither two nor three divide them
        (128, 640, 1536, BACKWARD, 1),  # one alone needs more room than is given away
        (8, 256, 1408, FORWARD, 1),  # the wait for the first of two would take longer than two starts
        (64, 50, 192, FORWARD, 16),
    ],
)
def test_a_program_has_many_images_and_a_call_a_few_programs(images, rows, columns, direction, together):
    each = image_bytes(rows, columns, 2, direction)
    assert images_together(images, 1, each, rows, rows) == together
    assert image_bytes(196, 192, 2, FORWARD) == 4 * 208 * 256 * 2  # whole tiles


@pytest.mark.parametrize("heads", [4, 3])  # three heads do not divide over `tensor`
def test_each_device_computes_its_own_rows_and_heads(heads):
    mesh = make_mesh(dict(data=2, fsdp=2, tensor=2))
    given = inputs(8, 16, 16, heads, 64)
    expected = with_gradients(explicit, *given)
    place = Placement(mesh, BATCH[0], "fsdp", "tensor", {}, {})
    with placed(place):
        assert is_known()
        flat = [x.reshape(*x.shape[:2], -1) for x in given]
        ours = with_gradients(partial(on_each_device, partial(attend, interpret=True), heads), *flat)
    for mine, other in zip(ours, expected):
        np.testing.assert_allclose(mine, other.reshape(mine.shape), rtol=0, atol=2e-6)
    assert not is_known()  # eight devices, and nobody says how arrays lie on them


@pytest.fixture
def tpu(monkeypatch):
    """Attention that believes to run on one TPU; which arrays the kernel was given."""
    given = []

    def kernel(heads, q, k, v, bias=None, *, windows):
        given.append((heads, q.shape))
        return attend(heads, q, k, v, bias, windows=windows, interpret=True)

    monkeypatch.setattr(attention_module, "platform", lambda: "tpu")
    monkeypatch.setattr(attention_module, "is_known", lambda: True)
    monkeypatch.setattr("vit_jax.models.layers.kernels.together.attend", kernel)
    return SimpleNamespace(given=given, monkeypatch=monkeypatch)


def test_when_tpus_take_it(tpu):
    q, k, v, _ = inputs(1, 16, 16, 2, 8, jnp.bfloat16)
    bias, mask = jnp.zeros((1, 1, 1, 16)), jnp.ones((1, 1, 16, 16), bool)
    attention(q, k, v)
    once = [(2, (1, 16, 16))]
    assert tpu.given == once
    attention(q, k, v, bias=jnp.zeros((2, 16, 16)))
    assert tpu.given == 2 * once
    tpu.given.pop()
    few = q[:, : MIN_QUERIES - 1]
    for arrays, extra in (
        ((q, k, v), dict(bias=bias)),
        ((q, k, v), dict(mask=mask)),
        ((q, k, v), dict(return_weights=True)),
        ((q, k, v), dict(dropout_rate=0.1, key=jax.random.key(0))),
        ((q, k, v), dict(implementation="kernel", bias=bias)),
        ((few, k, v), {}),
        ([x.astype(jnp.float32) for x in (q, k, v)], {}),
    ):
        attention(*arrays, **extra)
    assert tpu.given == once
    attention(q.astype(jnp.float32), k.astype(jnp.float32), v.astype(jnp.float32), implementation="kernel")
    assert len(tpu.given) == 2
    tpu.monkeypatch.setattr(attention_module, "is_known", lambda: False)
    attention(q, k, v)
    assert len(tpu.given) == 2


def test_it_is_refused_where_it_cannot_run(tpu):
    long = jnp.zeros((1, MAX_TOKENS + 1, 1, 8))
    with pytest.raises(ConfigError, match=f"on a tpu with {MAX_TOKENS + 1} tokens"):
        attention(long, long, long, implementation="kernel")
    wide = jnp.zeros((1, 576, 16, 72), jnp.bfloat16)
    with pytest.raises(ConfigError, match="576 tokens and 16 heads of 72 in bfloat16"):
        attention(wide, wide, wide, implementation="kernel")
    attention(wide, wide, wide)
    assert not tpu.given  # the explicit form took it
    tpu.monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"attention is 'kernel' on a cpu .* Set model.attention to 'auto'"):
        attention(*inputs(1, 16, 16, 2, 8)[:3], implementation="kernel")
