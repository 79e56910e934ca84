"""What accelerators can do at best, as their makers publish it."""

from typing import Any

import jax

# Dense bfloat16 peak, FLOP/s a chip, by `jax.Device.device_kind` (prefix). Published figures, not measured.
PEAK_FLOPS = {
    "TPU v3": 123e12 / 2,  # a jax device is one of the chip's two cores
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "Tesla V100": 125e12,  # float16
    "Tesla T4": 65e12,  # float16
}


def peak_flops(device: Any) -> float | None:
    """Return a device's peak in FLOP/s, or None when it is not known (CPUs)."""
    kind = device.device_kind
    return next((peak for prefix, peak in PEAK_FLOPS.items() if kind.startswith(prefix)), None)


def compute_dtype(setting: str, platform: str | None = None) -> str:
    """Return the compute dtype: `auto` means bfloat16 on accelerators and float32 on CPUs.

    Args:
      setting: `auto`, `float32` or `bfloat16`.
      platform: of the devices; that of this machine by default.
    """
    if setting != "auto":
        return setting
    return "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
