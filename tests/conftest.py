"""Strict settings for every test: eight simulated devices, strict promotion, no accelerator."""

import gc
import os
import shutil
from pathlib import Path

from tests.compiling import quickly

os.environ["JAX_PLATFORMS"] = "cpu"
# Also in processes that tests start: nothing goes to the user's cache. Tests that want one ask for `compile_cache`.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
os.environ.setdefault("XLA_FLAGS", quickly(8))

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests.runs import train_tiny

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")

# Tracing makes many objects, which collections look through for nothing, and ten thousand tests with them.
gc.set_threshold(50_000, 20, 50)


# Linux gives a process 65,530 mappings of memory. A compiled program takes tens to thousands, with jax 0.12 most, and
# where there are no more XLA ends the process.
MOST_MAPPINGS = 40_000
MAPPINGS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def room_for_programs():
    """Forget the programs of tests that are over, before there are too many for one process."""
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory):
    """A folder in which compiled programs are kept while the tests run, for tests that need equal ones often."""
    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield settings["jax_compilation_cache_dir"]
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def trained(compile_cache, tmp_path_factory):
    """A finished run of `tests.runs.CONFIG`, for reading only."""
    return train_tiny(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def copied(trained, tmp_path):
    """The workdir of the finished run, free to be changed."""
    return Path(shutil.copytree(trained.workdir, tmp_path / "copy"))
