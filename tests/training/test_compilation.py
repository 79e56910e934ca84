"""Compiled once, kept, and as little memory as it should be: what the compiler is asked and what it answers."""

import os
import signal
import warnings
from argparse import Namespace
from collections import Counter
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests.training.test_loop import configuration, loop
from vit_jax import trees
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.commands import source
from vit_jax.errors import Preempted
from vit_jax.training.devices.compilation import kept_programs, uncached
from vit_jax.training.experiment import build
from vit_jax.training.step import compile_step

CACHE = "/jax/compilation_cache/"
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


class Seen:
    """What JAX told of its compilations: how often each program was asked for, and how many were there."""

    def __init__(self):
        self.programs, self.events = Counter(), Counter()

    def program(self, event, seconds, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            self.programs[details["fun_name"].removeprefix("jit(").removesuffix(")")] += 1

    def event(self, event, **details):
        if event.startswith(CACHE):
            self.events[event.removeprefix(CACHE)] += 1

    def clear(self):
        """Forget, and let JAX forget what it has compiled in this process."""
        self.programs.clear()
        self.events.clear()
        jax.clear_caches()


@pytest.fixture
def seen():
    seen = Seen()
    jax.monitoring.register_event_duration_secs_listener(seen.program)
    jax.monitoring.register_event_listener(seen.event)
    seen.clear()
    yield seen
    jax.monitoring.unregister_event_duration_listener(seen.program)
    jax.monitoring.unregister_event_listener(seen.event)


def settings():
    return {name: getattr(jax.config, name) for name in SETTINGS}


# ---- one compilation per run


def assert_nothing_compiled(seen):
    assert seen.events["cache_misses"] == 0
    assert seen.events["cache_hits"] == seen.events["compile_requests_use_cache"] == seen.programs.total()


@pytest.mark.usefixtures("compile_cache")
def test_every_program_is_compiled_once_and_never_again(tmp_path, seen, monkeypatch):
    config = configuration(compilation__cache=str(tmp_path / "cache"))
    before = settings()
    first = loop.train(config, tmp_path / "first")
    assert settings() == before
    # 10 steps, evaluations of 40 records in batches of 16 (the last is padded), 5 checkpoints.
    assert (seen.programs["init_state"], seen.programs["step"], seen.programs["evaluate_rows"]) == (1, 1, 1)
    assert seen.events["cache_hits"] == 0
    assert seen.events["cache_misses"] == seen.events["compile_requests_use_cache"] == seen.programs.total()

    # A second run compiles nothing at all, although it is stopped in the middle of everything,
    real, batches = loop.shard_batch, []

    def stopped(batch, mesh):
        batches.append(batch)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(batch, mesh)

    monkeypatch.setattr(loop, "shard_batch", stopped)
    seen.clear()
    with pytest.raises(Preempted):
        loop.train(config, tmp_path / "second")
    assert seen.programs["step"] == 1
    assert_nothing_compiled(seen)
    # and goes on.
    seen.clear()
    second = loop.train(config, tmp_path / "second")
    assert (seen.programs["init_state"], seen.programs["step"], seen.programs["evaluate_rows"]) == (0, 1, 1)
    assert_nothing_compiled(seen)
    assert fingerprint(second.state) == fingerprint(first.state)

    # What uses the run keeps its programs there too.
    with source.kept_programs(Namespace(workdir=str(tmp_path / "first"), step=None, best=False)):
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache")
    assert settings() == before


# ---- where programs are kept


@jax.jit
def program(x):
    return jnp.sin(x) * 2


def compile_anew():
    jax.clear_caches()
    return program(jnp.ones(3, jnp.float32)).block_until_ready()


def entries(folder):
    return [path for path in folder.iterdir() if path.name.endswith("-cache")]


@pytest.fixture
def no_cache(compile_cache):
    """JAX may keep programs, but was not told where, as on a user's machine."""
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", compile_cache)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize(
    ("setting", "hosts", "expected"),
    [("auto", 1, "user/compiled"), ("auto", 4, "run/compiled"), ("{}/mine", 4, "mine"), ("off", 1, None)],
)
def test_where_programs_are_kept(tmp_path, monkeypatch, setting, hosts, expected):
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "user"))
    monkeypatch.setattr(jax, "process_count", lambda: hosts)
    before = settings()
    with kept_programs(setting.format(tmp_path), tmp_path / "run") as folder:
        compile_anew()
    assert folder == (None if expected is None else tmp_path / expected)
    assert settings() == before
    files = {path.parent for path in tmp_path.rglob("*-cache")}
    assert files == (set() if expected is None else {folder})
    compile_anew()  # and afterwards no more
    assert len(list(tmp_path.rglob("*-cache"))) == (0 if expected is None else len(entries(folder)))


def test_the_folder_that_jax_was_told_of_is_respected(compile_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "user"))
    with kept_programs("auto", tmp_path / "run") as folder:
        assert (folder, jax.config.jax_compilation_cache_dir) == (None, compile_cache)
        compile_anew()
    with kept_programs("off", tmp_path / "run"):
        assert jax.config.jax_compilation_cache_dir is None
    assert jax.config.jax_compilation_cache_dir == compile_cache
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("compile_cache")
def test_also_after_an_error_everything_is_as_before(tmp_path):
    before = settings()
    with pytest.raises(ZeroDivisionError), kept_programs(str(tmp_path), tmp_path):
        raise ZeroDivisionError
    assert settings() == before


@pytest.mark.usefixtures("compile_cache")
def test_a_folder_that_cannot_be_written_is_told_once(tmp_path):
    (tmp_path / "file").write_text("")
    told = []
    with kept_programs(str(tmp_path / "file" / "cache"), tmp_path, told.append) as folder:
        assert folder is None
        compile_anew()
    (line,) = told
    assert line.startswith(
        f"compiled programs are not cached: {tmp_path}/file/cache cannot be written: Not a dir"
    )
    assert "\n" not in line


@pytest.mark.parametrize("error", ["MemoryError: std::bad_alloc", "OSError: no space"])
def test_that_a_program_cannot_be_written_is_told_once(tmp_path, error):
    told = []
    with kept_programs(str(tmp_path), tmp_path, told.append):
        for _ in range(2):
            start = "Error writing persistent compilation cache entry for 'jit_step': "
            warnings.warn(start + error, stacklevel=1)
    (line,) = told
    assert line.partition(": ")[2].startswith(error)


@pytest.mark.usefixtures("compile_cache")
def test_damaged_programs_are_compiled_again_and_told_once(tmp_path, capsys):
    with kept_programs(str(tmp_path), tmp_path):
        expected = compile_anew()
    for path in entries(tmp_path):
        path.write_bytes(path.read_bytes()[:20])
    assert len(entries(tmp_path)) > 0
    with kept_programs(str(tmp_path), tmp_path):
        np.testing.assert_array_equal(compile_anew(), expected)
        np.testing.assert_array_equal(compile_anew(), expected)
    err = capsys.readouterr().err
    assert err.startswith(f"compiled programs in {tmp_path} are partly unusable and are recompiled: ")
    assert err.count("\n") == 1


# ---- memory


def state_bytes(state):
    """Bytes of a state on one device."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )


@pytest.mark.usefixtures("compile_cache")
@pytest.mark.parametrize(
    ("mesh", "first_moment"), [(dict(data=8, fsdp=1), "float32"), (dict(data=1, fsdp=8), "bfloat16")]
)
def test_the_state_is_donated_whole_and_has_its_dtypes(mesh, first_moment):
    config = configuration(optimizer__first_moment_dtype=first_moment, sharding__min_size=0)
    config.mesh.update(mesh)
    experiment = build(config)
    abstract = experiment.abstract_state
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    step = (
        compile_step(experiment.step, shardings, None).lower(abstract, experiment.abstract_batch()).compile()
    )
    # Every byte of the old state is the new one's, so there are never two; with fsdp, of this device's part.
    assert step.memory_analysis().alias_size_in_bytes == state_bytes(abstract)

    # Parameters, their average and the second moment in float32, and the first moment as configured.
    size = trees.count(abstract.params)
    numbers = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract) if leaf.ndim)
    assert numbers == size * (4 + 4 + 4 + (2 if first_moment == "bfloat16" else 4))

    state = experiment.init()
    with closing(experiment.data.train_batches(0)) as batches:
        batch = experiment.devices.put(next(batches))
    old = jax.tree.leaves(state)
    state, _ = step(state, batch)
    assert all(leaf.is_deleted() for leaf in old)
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [
        leaf.dtype for leaf in jax.tree.leaves(abstract)
    ]
    assert state_bytes(state) == state_bytes(abstract)


# ---- metrics one step late


@pytest.mark.usefixtures("compile_cache")
def test_metrics_are_fetched_after_the_next_step_was_dispatched(tmp_path, monkeypatch):
    order, numbers = [], {}
    real_compile, real_get = loop.compile_step, jax.device_get

    class Watched:
        def __init__(self, program):
            self._program = program

        def lower(self, *abstract):
            return Watched(self._program.lower(*abstract))

        def compile(self):
            return Watched(self._program.compile())

        def memory_analysis(self):
            return self._program.memory_analysis()

        def __call__(self, state, batch):
            state, values = self._program(state, batch)
            number = len(numbers) + 1
            numbers[id(values["loss"])] = number, values
            order.append(("dispatch", number))
            return state, values

    def device_get(values):
        if isinstance(values, dict) and id(values.get("loss")) in numbers:
            order.append(("fetch", numbers[id(values["loss"])][0]))
        return real_get(values)

    monkeypatch.setattr(loop, "compile_step", lambda *arguments: Watched(real_compile(*arguments)))
    monkeypatch.setattr(jax, "device_get", device_get)
    loop.train(configuration(log__every=5, evaluation__every=10, checkpoint__every=10), tmp_path)
    expected = [("dispatch", 1)]
    for number in range(2, 11):
        # A line of metrics, evaluation and checkpoint want all values of their step.
        late = [("fetch", number)] if number in (5, 10) else []
        early = [] if number - 1 == 5 else [("fetch", number - 1)]
        expected += [("dispatch", number), *early, *late]
    assert order == expected


def test_what_is_only_read_is_not_cached(compile_cache):
    folder = Path(compile_cache)
    read, run = (jax.jit(lambda x, y=y: x * y).lower(jnp.zeros(3)) for y in (1.25, 1.75))
    before = set(folder.iterdir())
    with uncached():
        read.compile()
    assert set(folder.iterdir()) == before
    run.compile()
    assert set(folder.iterdir()) > before
