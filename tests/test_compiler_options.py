"""Options of XLA: only where they are known to help, and they change nothing but the time."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import compiler_options
from vit_jax.compiler_options import (
    BEFORE,
    CALLED_BY_US,
    CALLS,
    ONEDNN,
    OVERLAP,
    PROCESSORS,
    SINCE,
    jit,
    overlap_options,
    prediction_options,
    training_options,
)
from vit_jax.models.layers.convolutional import convolve
from vit_jax.models.layers.dense import dense
from vit_jax.onednn import MOST_COLUMNS

HERE = compiler_options.machine.machine() in ("x86_64", "AMD64") and (
    SINCE <= compiler_options.version[:2] < BEFORE
    or (compiler_options.version == CALLED_BY_US and "avx512_bf16" in PROCESSORS.read_text().split())
)


@pytest.fixture(params=[(0, 11, 0), (0, 12, 0, 1)], ids=str)
def known(monkeypatch, request):
    monkeypatch.setattr(compiler_options.machine, "machine", lambda: "x86_64")
    monkeypatch.setattr(compiler_options, "version", request.param)


@pytest.fixture
def called_by_us(known, monkeypatch, tmp_path):
    """jaxlib 0.10.2 on processors with these instructions."""
    monkeypatch.setattr(compiler_options, "version", CALLED_BY_US)

    def instructions(names: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags: fpu avx2 avx512f {names}\n")

    monkeypatch.setattr(compiler_options, "PROCESSORS", tmp_path / "cpuinfo")
    return instructions


def test_where_they_help(known):
    assert (
        training_options("cpu", "float32", MOST_COLUMNS)
        == training_options("cpu", "bfloat16", 3072)
        == ONEDNN
    )
    assert prediction_options("cpu", "bfloat16") == ONEDNN
    assert training_options("cpu", "float32", 3072) == prediction_options("cpu", "float32") == {}


def test_jaxlib_010_is_only_told_what_is_carried_out_for_it(called_by_us):
    called_by_us("avx512_bf16 amx_bf16")
    assert training_options("cpu", "float32", 3072) == training_options("cpu", "bfloat16", 8) == CALLS
    assert prediction_options("cpu", "bfloat16") == CALLS
    assert prediction_options("cpu", "float32") == training_options("gpu", "bfloat16", 8) == {}


def test_jaxlib_010_needs_instructions_for_bfloat16(called_by_us):
    assert training_options("cpu", "bfloat16", 8) == {}  # no such file: another system than Linux
    called_by_us("")
    assert training_options("cpu", "bfloat16", 8) == {}


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_not_on_accelerators(known, platform):
    assert training_options(platform, "bfloat16", 8) == prediction_options(platform, "bfloat16") == {}


@pytest.mark.parametrize("version", [(0, 10, 1), (0, 13, 0), (1, 0, 0)], ids=str)
def test_not_in_versions_that_were_not_seen(known, monkeypatch, version):
    monkeypatch.setattr(compiler_options, "version", version)
    assert training_options("cpu", "bfloat16", 8) == {}


def test_not_on_other_processors(known, monkeypatch):
    monkeypatch.setattr(compiler_options.machine, "machine", lambda: "aarch64")
    assert training_options("cpu", "bfloat16", 8) == {}


@pytest.mark.parametrize("kind", ["TPU v4", "TPU v5", "TPU v6 lite", "NVIDIA H100", "cpu"])
def test_reduce_scatters_beside_products_only_where_the_compiler_supports_them(kind):
    assert overlap_options("TPU v5 lite") == OVERLAP
    assert overlap_options(kind) == {}


@pytest.mark.parametrize(("stride", "pad"), [(4, 3), (1, None)])
def test_maps_are_not_added_within_convolutions(stride, pad):
    def added(x, kernel, positions):
        return convolve(x, kernel, stride, pad) + positions

    x, kernel = jnp.ones((2, 32, 32, 3), jnp.bfloat16), jnp.ones((7, 7, 3, 16), jnp.bfloat16)
    positions = jnp.ones((1, 32 // stride, 32 // stride, 16), jnp.bfloat16)
    program = jit(added, prediction_options("cpu", "bfloat16")).lower(x, kernel, positions).compile()
    assert "BINARY_ADD" not in program.as_text()


def entries(folder):
    return set(Path(folder).glob("*-cache"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_gradients_are_the_same_to_rounding(dtype, compile_cache):
    def loss(kernel, x):
        return jnp.square(dense(x, kernel).astype(jnp.float32)).mean()

    kernel = jax.random.normal(jax.random.key(0), (384, 256))  # smaller products stay as they are
    x = jax.random.normal(jax.random.key(1), (4, 100, 384)).astype(dtype)
    gradients = jax.grad(loss, argnums=(0, 1))
    plain = jax.jit(gradients)(kernel, x)
    compiled = entries(compile_cache)
    program = jit(gradients, training_options("cpu", "bfloat16", 256)).lower(kernel, x).compile()
    assert ("onednn" in program.as_text()) == HERE  # the compiler understands the options
    # jaxlib ends with an error or a segmentation fault where such a program is written; others still are.
    assert (entries(compile_cache) == compiled) == HERE
    jit(lambda x: x * 1.375, training_options("cpu", "bfloat16", 256)).lower(x).compile()
    assert entries(compile_cache) > compiled
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-7
    for ours, theirs in zip(program(kernel, x), plain, strict=True):
        largest = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(
            np.asarray(ours, np.float32), np.asarray(theirs, np.float32), rtol=0, atol=tolerance * largest
        )
