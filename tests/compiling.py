"""How tests, and the processes that they start, have XLA compile: quickly. Imports no jax, which reads it."""

from importlib.metadata import version


def quickly(devices):
    """Return XLA's flags for so many simulated devices.

    Compilation is most of the tests' time; without LLVM's optimizations it takes a third, and the models are tiny.
    """
    flags = [
        f"--xla_force_host_platform_device_count={devices}",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        # Both cores have a worker; parts compiled at once cost more together.
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
    if version("jaxlib").startswith("0.10."):  # later versions have no such flag; it halves the rest
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(flags)
