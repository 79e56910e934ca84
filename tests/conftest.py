"""Strict settings for every test: eight simulated devices, strict promotion, no accelerator."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Compilation is most of the tests' time; without LLVM's optimizations it takes a third, and the models are tiny.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
)

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")
