"""Options of XLA for our own programs, where they were shown to help (docs/performance.md, docs/plans.md); elsewhere
none.

For x86 processors jaxlib brings two libraries of matrix products. The one that it uses, YNNPACK, leaves products with
a transposed operand, which gradients consist of, to slow loops, and gets less out of a processor's matrix
instructions; oneDNN does neither. Sums over rows stay with YNNPACK. jaxlib 0.10 understands the option and does
nothing, so that `jit` carries it out (`onednn.py`); what versions after 0.12 do has not been seen.

On TPU v5e reduce-scatters of gradients can run inside the products that follow them; the compiler does so for that chip
alone, and when asked. Products then need more of the chip's fast memory than it gives them by itself, and gradients
must come one by one, not several together.
"""

import platform as machine
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jaxlib.version import __version_info__ as version

from vit_jax import onednn

Options = dict[str, bool | str]

CALLS: Options = {"xla_cpu_experimental_onednn_custom_call": True}
ONEDNN: Options = {
    **CALLS,
    "xla_cpu_use_onednn": True,
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
}
CALLED_BY_US, SINCE, BEFORE = (0, 10, 2), (0, 11), (0, 13)
PROCESSORS = Path("/proc/cpuinfo")

V5E = "TPU v5 lite"  # as its `device_kind` says
OVERLAP: Options = {
    "xla_enable_async_reduce_scatter_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter": True,
    "xla_tpu_ars_combiner_threshold_in_bytes": "1000000",
    "xla_tpu_scoped_vmem_limit_kib": "32768",  # of 128 MiB; the compiler's own 16 MiB are too few
}


def training_options(platform: str, dtype: str, widest: int) -> Options:
    """Return the options of a program that computes gradients.

    Args:
      platform: that it is compiled for: `cpu`, `gpu` or `tpu`.
      dtype: of computing: `float32` or `bfloat16`.
      widest: columns of the widest layer.
    """
    if version == CALLED_BY_US or dtype == "bfloat16" or widest <= onednn.MOST_COLUMNS:
        return _onednn(platform)
    return {}


def prediction_options(platform: str, dtype: str) -> Options:
    """Return the options of a forward pass alone.

    In float32 both libraries are about equally fast there, small models lose time to calling oneDNN, and programs that
    call it cannot be kept for the next start (`training/compilation.py`).

    Args:
      platform: that it is compiled for: `cpu`, `gpu` or `tpu`.
      dtype: of computing: `float32` or `bfloat16`.
    """
    return _onednn(platform) if dtype == "bfloat16" else {}


def overlap_options(kind: str) -> Options:
    """Return the options of a training step that divides its gradients by reduce-scatters.

    Args:
      kind: `device_kind` of what it is compiled for.
    """
    return dict(OVERLAP) if kind == V5E else {}


def has_onednn(platform: str) -> bool:
    """Return whether programs for `platform` may call oneDNN here."""
    if platform != "cpu" or machine.machine() not in ("x86_64", "AMD64"):
        return False
    return SINCE <= version[:2] < BEFORE or (version == CALLED_BY_US and _has_bfloat16())


def jit(function: Callable[..., Any], options: Options | None = None, **arguments: Any) -> Any:
    """Return `jax.jit(function, **arguments)` with options of the compiler, also where jaxlib does not obey them.

    Args:
      function: to be compiled.
      options: what the functions above return; None: none.
      **arguments: others of `jax.jit`.
    """
    if options and CALLS.items() <= options.items():
        onednn.keep_out_of_cache()
        if version == CALLED_BY_US:
            function = onednn.marked(function)
    return jax.jit(function, compiler_options=options, **arguments)


def _onednn(platform: str) -> Options:
    if not has_onednn(platform):
        return {}
    return dict(CALLS if version == CALLED_BY_US else ONEDNN)


def _has_bfloat16() -> bool:
    """Return whether the processors name instructions for bfloat16, without which oneDNN was not measured."""
    return PROCESSORS.exists() and " avx512_bf16" in PROCESSORS.read_text()
