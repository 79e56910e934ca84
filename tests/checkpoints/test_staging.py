"""A workdir that goes away: training goes on, steps are kept, copied whole or not at all, and found again."""

import errno
import shutil
import time

import pytest

from tests.checkpoints.test_checkpoints import assert_same, files_of, state
from tests.checkpoints.test_finishing import damage
from vit_jax.checkpoints import finishing, staging
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.staging import copy_verified, same_files, staging_folder
from vit_jax.errors import CheckpointError, ResourceError


class Away:
    """A workdir whose connection can be lost: it is moved, and its path leads nowhere."""

    def __init__(self, tmp_path):
        self.workdir, self.hidden = tmp_path / "drive" / "run", tmp_path / "hidden"
        self.staging = str(tmp_path / "local")
        self.lines = []

    def lose(self):
        (self.workdir / "checkpoints").rename(self.hidden)

    def find(self):
        self.hidden.rename(self.workdir / "checkpoints")

    def open(self, **options):
        return Checkpoints(
            self.workdir / "checkpoints", staging=self.staging, report=self.lines.append, **options
        )

    def staged(self):
        folder = staging_folder(self.staging, self.workdir / "checkpoints")
        return sorted(path.name for path in folder.iterdir())

    def published(self):
        return sorted(path.name for path in (self.workdir / "checkpoints").iterdir())


@pytest.fixture
def away(tmp_path, monkeypatch):
    monkeypatch.setattr(finishing, "FIRST_DELAY", 0.02)
    return Away(tmp_path)


def until(condition):
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_steps_go_through_staging_to_the_workdir(away):
    with away.open(keep_last=2, keep_best=0) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]
        assert away.published() == ["2", "3"]
        assert away.staged() == []
        assert_same(checkpoints.restore(state())[0], state(3))
    assert_same(Checkpoints(away.workdir / "checkpoints", read_only=True).restore(state())[0], state(3))
    assert away.lines == []


def test_training_goes_on_while_the_workdir_is_away(away):
    with away.open(keep_last=2, keep_best=0) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        away.lose()
        for step in (2, 3, 4, 5):
            checkpoints.save(step, state(step), {})
            checkpoints.check()
        until(lambda: away.staged() == ["4", "5"])  # Local disks are finite: what is not wanted goes.
        assert len(away.lines) == 1
        assert "cannot be written: " in away.lines[0]
        assert "training continues" in away.lines[0]
        away.find()
        checkpoints.wait()
        assert away.published() == ["4", "5"]
        assert away.staged() == []
    assert "can be written again" in away.lines[1]


def test_what_could_not_be_copied_is_where_the_next_run_goes_on(away):
    with away.open() as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        away.lose()
        checkpoints.save(2, state(2), {})
        begin = time.monotonic()
        checkpoints.wait(hurry=True)
        assert time.monotonic() - begin < 60  # and not half an hour
    assert "start again on this machine" in away.lines[-1]
    away.find()
    assert Checkpoints(away.workdir / "checkpoints", read_only=True).steps() == [1]
    with away.open() as checkpoints:
        assert checkpoints.newest_metadata()["step"] == 2
        restored, metadata = checkpoints.restore(state())
        assert metadata["step"] == 2
        assert_same(restored, state(2))
    assert away.published() == ["1", "2"]  # Even without another save.


def test_a_damaged_step_in_staging_is_not_copied(away):
    with away.open() as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        away.lose()
        checkpoints.save(2, state(2), {})
        checkpoints.wait(hurry=True)
    away.find()
    damage(staging_folder(away.staging, away.workdir / "checkpoints") / "2")
    with away.open() as checkpoints:
        assert checkpoints.restore(state())[1]["step"] == 1
        assert "2 is skipped" in away.lines[-1]
        assert checkpoints.save(2, state(2), {})
    assert away.published() == ["1", "2"]
    assert away.staged() == ["2.unreadable"]


def test_patience_ends(away, monkeypatch):
    monkeypatch.setattr(finishing, "PATIENCE", 0.1)
    checkpoints = away.open()
    away.lose()
    checkpoints.save(1, state(1), {})
    with pytest.raises(ResourceError, match=r"checkpoints cannot be written: .*; step 1 is in .*local"):
        checkpoints.wait()
    checkpoints.close(hurry=True)
    assert away.staged() == ["1"]


def test_a_full_workdir_is_no_matter_of_patience(away, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(finishing, "copy_verified", full)
    checkpoints = away.open()
    checkpoints.save(1, state(1), {})
    with pytest.raises(ResourceError, match="No space left on device"):
        checkpoints.wait()
    checkpoints.close(hurry=True)


def test_a_copy_that_was_interrupted_is_swept_and_made_again(away):
    with away.open() as checkpoints:
        (away.workdir / "checkpoints" / "1.copying" / "state").mkdir(parents=True)
        checkpoints.save(1, state(1), {})
    assert away.published() == ["1"]


def test_a_step_that_is_there_already_must_be_the_same(away, tmp_path):
    with Checkpoints(away.workdir / "checkpoints") as checkpoints:
        checkpoints.save(1, state(2), {})
    checkpoints = away.open()
    checkpoints.save(1, state(1), {})
    with pytest.raises(
        CheckpointError, match=r"run/checkpoints/1 differs from .*local.*move one of them away"
    ):
        checkpoints.wait()
    shutil.rmtree(away.workdir / "checkpoints" / "1")
    shutil.copytree(
        staging_folder(away.staging, away.workdir / "checkpoints") / "1", away.workdir / "checkpoints" / "1"
    )
    checkpoints.close()  # As after a kill between the rename and the removal.
    assert away.published() == ["1"]
    assert away.staged() == []


def test_a_copy_is_read_back(tmp_path, monkeypatch):
    source, target = tmp_path / "1", tmp_path / "far" / "1"
    (source / "state").mkdir(parents=True)
    (source / "state" / "data").write_bytes(bytes(range(256)))
    with pytest.raises(FileNotFoundError):  # A mount point without its mount is not filled instead.
        copy_verified(source, target)
    target.parent.mkdir()
    real = staging._copy

    def careless(one, other):
        digest = real(one, other)
        other.write_bytes(bytes(256))
        return digest

    monkeypatch.setattr(staging, "_copy", careless)
    with pytest.raises(OSError, match="does not read back"):
        copy_verified(source, target)
    assert not target.exists()
    monkeypatch.undo()
    copy_verified(source, target)
    assert same_files(source, target)
    (target / "state" / "more").write_bytes(b"")
    assert not same_files(source, target)
    assert [path.name for path in files_of(target)] == ["data", "more"]


def test_a_staging_folder_is_one_per_run_and_local(tmp_path):
    first, second = (
        staging_folder(str(tmp_path / "s"), tmp_path / name / "checkpoints") for name in ("a b", "c")
    )
    assert first.parent == second.parent == tmp_path / "s"
    assert first != second
    assert first.name.startswith("a-b-")
    for wrong, reason in ((tmp_path / "c" / "s", "inside the workdir"), ("gs://bucket", "is a URL")):
        with pytest.raises(ResourceError, match=reason):
            Checkpoints(tmp_path / "c" / "checkpoints", staging=str(wrong))


def test_several_processes_have_no_staging(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(
        ResourceError, match=r"staging is '/local', but 2 processes must write to one disk; leave it empty"
    ):
        Checkpoints(tmp_path, staging="/local")
