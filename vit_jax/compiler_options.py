"""Options of XLA for our own programs, where they were shown to help (docs/performance.md, docs/plans.md); elsewhere
none.

For x86 processors jaxlib brings two libraries of matrix products. The one that it uses, YNNPACK, leaves products with
a transposed operand, which gradients consist of, to slow loops, and gets less out of a processor's matrix
instructions; oneDNN does neither. Sums over rows stay with YNNPACK. jaxlib 0.10 has oneDNN but never calls it for
products; what versions after 0.12 do has not been seen.

On TPU v5e reduce-scatters of gradients can run inside the products that follow them; the compiler does so for that chip
alone, and when asked. Products then need more of the chip's fast memory than it gives them by itself, and gradients
must come one by one, not several together.
"""

import platform as machine

from jaxlib.version import __version_info__ as version

Options = dict[str, bool | str]

ONEDNN: Options = {
    "xla_cpu_use_onednn": True,
    "xla_cpu_experimental_onednn_custom_call": True,
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
}
SINCE, BEFORE = (0, 11), (0, 13)
# In float32, of products with 2560, 3072 or 5120 columns, oneDNN takes twice the time; of 2304 and fewer, never.
MOST_COLUMNS = 2304

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
    pays = dtype == "bfloat16" or widest <= MOST_COLUMNS
    return dict(ONEDNN) if pays and has_onednn(platform) else {}


def prediction_options(platform: str, dtype: str) -> Options:
    """Return the options of a forward pass alone.

    In float32 both libraries are equally fast there, and small models lose time to calling oneDNN.

    Args:
      platform: that it is compiled for: `cpu`, `gpu` or `tpu`.
      dtype: of computing: `float32` or `bfloat16`.
    """
    return dict(ONEDNN) if dtype == "bfloat16" and has_onednn(platform) else {}


def overlap_options(kind: str) -> Options:
    """Return the options of a training step that divides its gradients by reduce-scatters.

    Args:
      kind: `device_kind` of what it is compiled for.
    """
    return dict(OVERLAP) if kind == V5E else {}


def has_onednn(platform: str) -> bool:
    """Return whether programs for `platform` may call oneDNN here."""
    return platform == "cpu" and machine.machine() in ("x86_64", "AMD64") and SINCE <= version[:2] < BEFORE
