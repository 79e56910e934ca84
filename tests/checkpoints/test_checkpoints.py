import dataclasses
import errno
import gc
import json
import logging
import resource
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vit_jax import trees
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.errors import CheckpointError, ResourceError


class Moments(NamedTuple):
    number: jax.Array
    mu: dict


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    params: dict
    opt_state: tuple
    ema: dict | None


def state(step=0, size=8):
    key = jax.random.fold_in(jax.random.key(0), step)
    params = {
        "blocks": {"0": {"kernel": jax.random.normal(key, (size, 16))}, "10": {"bias": jnp.zeros((3,))}},
        "head": {"kernel": jax.random.normal(key, (16, 4)).astype(jnp.bfloat16)},
    }
    mask = jnp.array([True, False])
    return State(jnp.int32(step), params, (Moments(jnp.uint32(step), params), {}, (), mask), None)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert fingerprint(a) == fingerprint(b)


def fill(directory, steps=(1, 2), **options):
    with Checkpoints(directory, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), {"config": json.dumps({"seed": 1})}, {"accuracy": step / 10})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    fill(directory)
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files_of(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def read(directory, abstract=None, **options):
    lines = []
    checkpoints = Checkpoints(directory, read_only=True, report=lines.append)
    return checkpoints.restore(abstract or state(), **options), lines


def test_nothing_there_is_none_and_writes_nothing(tmp_path):
    assert read(tmp_path / "nowhere") == (None, [])
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "9").mkdir()
    (tmp_path / "7").write_text("")
    (tmp_path / "8.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (tmp_path / ".DS_Store").write_text("")
    assert read(tmp_path) == (None, [])


def test_the_newest_state_comes_back_with_its_metadata(saved):
    (restored, metadata), lines = read(saved)
    assert_same(restored, state(2))
    assert lines == []
    assert metadata["step"] == 2
    assert metadata["fingerprint"] == fingerprint(state(2))
    assert metadata["metrics"] == {"accuracy": 0.2}
    assert json.loads(metadata["config"]) == {"seed": 1}
    assert set(metadata["versions"]) == {"vit_jax", "jax", "orbax-checkpoint"}


def test_a_step_may_be_chosen(saved):
    (restored, metadata), _ = read(saved, step=1)
    assert_same(restored, state(1))
    assert metadata["step"] == 1
    with pytest.raises(CheckpointError, match=r"5 does not exist; steps there: 1, 2"):
        read(saved, step=5)


@pytest.mark.parametrize("part", ["params", "params/blocks", "opt_state/0"])
def test_a_part_comes_back_without_the_rest(saved, part):
    flat = {
        k.removeprefix(f"{part}/"): v for k, v in trees.flatten(state(2)).items() if k.startswith(f"{part}/")
    }
    wanted = trees.unflatten(flat)
    restored, metadata = Checkpoints(saved, read_only=True).restore_part(part, wanted)
    assert_same(restored, wanted)
    assert metadata["step"] == 2


def test_an_empty_part_is_empty_and_a_missing_one_is_named(saved):
    checkpoints = Checkpoints(saved, read_only=True)
    assert checkpoints.restore_part("ema", None)[0] is None
    with pytest.raises(CheckpointError, match="ema/blocks/0/kernel is missing there"):
        checkpoints.restore_part("ema", state().params)


def test_another_mesh_gives_the_same_bits(tmp_path):
    def on(count):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("fsdp",), axis_types=(AxisType.Auto,))

        def place(leaf):
            spec = PartitionSpec("fsdp") if leaf.ndim and leaf.shape[0] % count == 0 else PartitionSpec()
            return jax.device_put(leaf, NamedSharding(mesh, spec))

        return jax.tree.map(place, state(3))

    for step, (before, after) in enumerate([(8, 1), (1, 4), (4, 8)]):
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step, on(before), {})
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), on(after)
        )
        (restored, metadata), _ = read(tmp_path, abstract)
        assert_same(restored, state(3))
        assert metadata["step"] == step
        jax.tree.map(
            lambda x, y: x.sharding == y.sharding or pytest.fail(str(x.sharding)), restored, on(after)
        )


def damaged(content, how):
    middle = len(content) // 2
    if how == "truncate":
        return content[:middle]
    if how == "zero":
        return bytes(len(content))
    if how == "empty":
        return b""
    position = {"flip first": 0, "flip middle": middle, "flip last": len(content) - 1}[how]
    return content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :]


@pytest.mark.parametrize(
    "how", ["delete", "truncate", "zero", "empty", "flip first", "flip middle", "flip last"]
)
def test_a_damaged_file_is_harmless_or_the_step_is_skipped(copy, how):
    fell_back = 0
    for path in files_of(copy / "2"):
        content = path.read_bytes()
        if how == "delete":
            path.unlink()
        elif content:
            path.write_bytes(damaged(content, how))
        (restored, metadata), lines = read(copy)
        path.write_bytes(content)
        if metadata["step"] == 1:
            fell_back += 1
            assert len(lines) == 1
            assert str(copy / "2") in lines[0]
            assert "\n" not in lines[0]
            assert_same(restored, state(1))
        else:
            assert lines == []
            assert_same(restored, state(2))
    assert fell_back >= 2  # metadata and array data at least


def test_every_flipped_bit_of_array_data_is_found(copy, caplog):
    path = max(files_of(copy / "2" / "state"), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    positions = range(0, len(content), max(1, len(content) // 40))
    steps = []
    for position in positions:
        path.write_bytes(
            content[:position] + bytes([content[position] ^ (1 << position % 8)]) + content[position + 1 :]
        )
        (restored, metadata), _ = read(copy)
        assert_same(restored, state(metadata["step"]))
        steps.append(metadata["step"])
    assert steps.count(1) > len(steps) // 2
    gc.collect()
    assert not caplog.records  # Orbax and asyncio leave no tracebacks behind.


def test_damage_everywhere_is_an_error_and_not_a_fresh_start(copy):
    (copy / "2" / "metadata" / "metadata").unlink()
    shutil.rmtree(copy / "1" / "state")
    with pytest.raises(CheckpointError, match=r"no intact checkpoint.*step 2: .*step 1: ") as caught:
        read(copy)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 4
    with pytest.raises(CheckpointError, match="step 2: "):
        read(copy, step=2)


def test_edited_metadata_are_damaged(copy):
    path = copy / "2" / "metadata" / "metadata"
    metadata = json.loads(path.read_text())
    metadata["metrics"]["accuracy"] = 1.0
    path.write_text(json.dumps(metadata))
    with pytest.raises(CheckpointError, match="checksum"):
        Checkpoints(copy, read_only=True).metadata(2)
    assert read(copy)[0][1]["step"] == 1


def test_training_goes_on_after_a_damaged_step(copy, caplog):
    path = max(files_of(copy / "2" / "state"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-300])
    with caplog.at_level(logging.WARNING), Checkpoints(copy) as checkpoints:
        restored, metadata = checkpoints.restore(state())
        assert metadata["step"] == 1
        assert "skipped" in caplog.text
        assert checkpoints.save(2, state(2), {})
        assert checkpoints.save(3, state(3), {})
    assert "2.unreadable" in caplog.text
    assert (copy / "2.unreadable" / "state").is_dir()
    (restored, metadata), _ = read(copy)
    assert_same(restored, state(3))
    assert Checkpoints(copy, read_only=True).steps() == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda s: dataclasses.replace(s, params={"head": s.params["head"]}),
            "params/blocks/0/kernel exists only there",
        ),
        (lambda s: dataclasses.replace(s, ema=s.params), "ema/blocks/0/kernel is missing there"),
        (
            lambda s: dataclasses.replace(s, step=jnp.float32(0)),
            r"step is int32\(\) there and float32\(\) here",
        ),
        (lambda s: state(size=4), r"float32\(8, 16\) there and float32\(4, 16\) here"),
    ],
)
def test_another_model_is_refused_with_the_first_differences(saved, change, expected):
    with pytest.raises(CheckpointError, match=f"a different model or configuration: .*{expected}") as caught:
        read(saved, change(state()))
    assert len(str(caught.value)) < 900


def test_the_last_and_the_best_are_kept(tmp_path):
    scores = {1: 0.5, 2: 0.9, 3: 0.1, 4: float("nan"), 5: 0.3, 6: None}
    with Checkpoints(tmp_path, keep_last=2, keep_best=1) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, state(step), {}, None if score is None else {"accuracy": score})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 5, 6]
        assert checkpoints.best_step() == 2
    with Checkpoints(tmp_path, keep_last=1, keep_best=1, monitor_mode="min") as checkpoints:
        checkpoints.save(7, state(7), {}, {"accuracy": 0.4})
        checkpoints.wait()
        assert checkpoints.steps() == [5, 7]
        assert checkpoints.best_step() == 5
    assert Checkpoints(tmp_path, read_only=True, monitor="loss").best_step() is None


def test_foreign_directories_are_neither_counted_nor_deleted(tmp_path):
    (tmp_path / "9").mkdir()
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "notes.txt").write_text("mine")
    lines = []
    with Checkpoints(tmp_path, keep_last=1, keep_best=0, report=lines.append) as checkpoints:
        for step in (1, 2, 8):
            checkpoints.save(step, state(step), {})
        checkpoints.wait()
        assert checkpoints.steps() == [8]
    assert (tmp_path / "9").is_dir()
    assert (tmp_path / "8.unreadable" / "notes.txt").read_text() == "mine"
    assert len(lines) == 1


def test_saving_a_step_twice_is_harmless_and_another_state_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(1, state(1), {})
        assert not checkpoints.save(1, state(1), {})
        checkpoints.wait()
        assert not checkpoints.save(1, state(1), {})
        with pytest.raises(CheckpointError, match="holds a different state"):
            checkpoints.save(1, state(2), {})
    assert_same(read(tmp_path)[0][0], state(1))


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    step = jax.jit(lambda s: jax.tree.map(jnp.zeros_like, s), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        current = state(1)
        checkpoints.save(1, current, {})
        step(current)
    assert_same(read(tmp_path)[0][0], state(1))


def test_remains_of_a_killed_save_are_swept(tmp_path):
    fill(tmp_path, (1,))
    shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp")
    assert read(tmp_path)[0][1]["step"] == 1
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, state(2), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_saving_and_loading_under_a_transfer_guard(tmp_path):
    current = state(1)
    with jax.transfer_guard("disallow"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, current, {})
        checkpoints.wait()
        restored = checkpoints.restore(current)
    assert_same(restored[0], current)


def test_a_directory_that_cannot_be_written_is_found_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "checkpoints"):
        with pytest.raises(ResourceError, match=r"file.* failed: ") as caught:
            Checkpoints(directory)
        assert caught.value.exit_status == 6
    with pytest.raises(ResourceError, match="is a URL; mount it"):
        Checkpoints("gs://bucket/run")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_no_permission_or_space_at_the_start(tmp_path, monkeypatch, number):
    def refuse(**_):
        raise OSError(number, "refused")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ResourceError, match=str(tmp_path)):
        Checkpoints(tmp_path)


def test_a_failure_in_the_background_surfaces_and_older_steps_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    checkpoints.save(1, state(1), {})
    checkpoints.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # Bytes: as a full disk, but for tests.
    checkpoints.save(2, state(2, size=1000), {})
    with pytest.raises(ResourceError, match=r"saving step 2 .*File too large") as caught:
        checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert checkpoints.steps() == [1]
    checkpoints.save(3, state(3), {})
    checkpoints.close()
    assert checkpoints.steps() == [3]
    assert_same(read(tmp_path)[0][0], state(3))


def test_the_first_error_is_the_one_told(tmp_path, monkeypatch):
    def fail(**_):
        raise OSError(errno.ENOSPC, "full")

    def leave_after(error):
        with Checkpoints(tmp_path) as checkpoints:
            monkeypatch.setattr(checkpoints._finisher, "wait", fail)
            if error:
                raise error

    with pytest.raises(KeyError):
        leave_after(KeyError())
    with pytest.raises(ResourceError, match="MiB are free"):
        leave_after(None)


def test_read_only_and_reserved_names_are_bugs(tmp_path):
    with pytest.raises(ValueError, match="read-only"):
        Checkpoints(tmp_path, read_only=True).save(1, state(1), {})
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="metadata"):
        checkpoints.save(1, state(1), {"fingerprint": "x"})
