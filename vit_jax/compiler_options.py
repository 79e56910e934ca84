"""Options of XLA for our own programs, where measuring showed that they help (docs/performance.md); elsewhere none.

For x86 processors jaxlib brings two libraries of matrix products. The one that it uses, YNNPACK, leaves products with
a transposed operand, which gradients consist of, to slow loops, and gets less out of a processor's matrix
instructions; oneDNN does neither. Sums over rows stay with YNNPACK. jaxlib 0.10 has oneDNN but never calls it for
products; what versions after 0.12 do has not been seen.
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


def training_options(platform: str, dtype: str, widest: int) -> Options:
    """Return the options of a program that computes gradients.

    Args:
      platform: that it is compiled for: `cpu`, `gpu` or `tpu`.
      dtype: of computing: `float32` or `bfloat16`.
      widest: columns of the widest layer.
    """
    pays = dtype == "bfloat16" or widest <= MOST_COLUMNS
    return dict(ONEDNN) if pays and _has_onednn(platform) else {}


def prediction_options(platform: str, dtype: str) -> Options:
    """Return the options of a forward pass alone.

    In float32 both libraries are equally fast there, and small models lose time to calling oneDNN.

    Args:
      platform: that it is compiled for: `cpu`, `gpu` or `tpu`.
      dtype: of computing: `float32` or `bfloat16`.
    """
    return dict(ONEDNN) if dtype == "bfloat16" and _has_onednn(platform) else {}


def _has_onednn(platform: str) -> bool:
    return platform == "cpu" and machine.machine() in ("x86_64", "AMD64") and SINCE <= version[:2] < BEFORE
