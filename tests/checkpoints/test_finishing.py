"""What is deleted when: nothing before all that stays has been read back; and failures are told at once."""

import errno
import os
import shutil

import jax
import jax.numpy as jnp
import pytest

from tests.checkpoints.test_checkpoints import assert_same, files_of, fill, read, state
from vit_jax.checkpoints import finishing
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import explain, is_ours, is_remainder, read_metadata, remove
from vit_jax.checkpoints.retention import kept
from vit_jax.checkpoints.verification import _groups, verify
from vit_jax.errors import CheckpointError, ResourceError


@pytest.mark.parametrize(
    ("last", "best", "expected"),
    [
        (1, 0, {5}),
        (2, 0, {4, 5}),
        (1, 1, {2, 5}),
        (1, 2, {1, 2, 5}),
        (2, 9, {1, 2, 3, 4, 5}),
        (9, 0, {1, 2, 3, 4, 5}),
    ],
)
def test_the_newest_and_the_best_stay(last, best, expected):
    scores = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.3, 5: 0.4}
    assert kept(scores, last, best, scores.get) == expected
    assert kept([], last, best, scores.get) == set()


def test_of_equal_steps_the_newest_is_best_and_one_without_a_score_never():
    assert kept([1, 2, 3, 4], 1, 1, {1: 0.5, 2: 0.5}.get) == {2, 4}
    assert kept([1, 2], 1, 1, {}.get) == {2}


def damage(step):
    path = max(files_of(step / "state"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-300])


def test_a_step_is_read_back_bit_by_bit(tmp_path):
    fill(tmp_path, (1,))
    verify(tmp_path / "1", read_metadata(tmp_path / "1"))
    damage(tmp_path / "1")
    with pytest.raises(CheckpointError, match=r"fingerprint differs|cannot be read"):
        verify(tmp_path / "1", read_metadata(tmp_path / "1"))


def test_processes_divide_what_is_read_back(monkeypatch):
    monkeypatch.setattr("vit_jax.checkpoints.verification.GROUP_BYTES", 100)
    stored = {name: ["float32", [size], "0"] for name, size in dict(a=20, b=5, c=6, d=100, e=0, f=1).items()}
    assert _groups(stored) == [["a", "b"], ["c"], ["d"], ["e", "f"]]


def test_nothing_is_deleted_when_the_new_step_reads_back_wrong(tmp_path, monkeypatch):
    real = finishing.verify

    def harmed(path, *rest):
        damage(path)
        real(path, *rest)

    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    checkpoints.save(1, state(1), {})
    checkpoints.wait()
    monkeypatch.setattr(finishing, "verify", harmed)
    checkpoints.save(2, state(2), {})
    with pytest.raises(
        CheckpointError,
        match=r"2 was written but cannot be read back correctly: .*Steps saved before are intact",
    ):
        checkpoints.wait()
    checkpoints.close()
    assert read(tmp_path)[0][1]["step"] == 1


def test_a_step_that_stays_is_read_before_another_goes(tmp_path):
    fill(tmp_path, (1, 2, 3), keep_last=3, keep_best=0)
    damage(tmp_path / "3")
    lines = []
    with Checkpoints(tmp_path, keep_last=2, keep_best=0, report=lines.append) as checkpoints:
        # Nobody has loaded anything: a run that begins anew in a workdir of steps, so to speak.
        checkpoints.save(4, state(4), {})
        checkpoints.wait()
        # Step 3 would have been the second of the two; step 2 is.
        assert checkpoints.steps() == [2, 3, 4]
        assert len(lines) == 1
        assert f"checkpoint {tmp_path / '3'} is damaged and does not count" in lines[0]
        checkpoints.save(5, state(5), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.unreadable", "4", "5"]


def test_at_every_save_two_good_steps_are_there(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(finishing, "remove", lambda path: seen.append(intact()) or remove(path))

    def intact():
        return [
            path.name
            for path in sorted(tmp_path.iterdir())
            if is_ours(path) and not verify(path, read_metadata(path))
        ]

    with Checkpoints(tmp_path, keep_last=2, keep_best=0) as checkpoints:
        for step in range(5):
            checkpoints.save(step, state(step), {})
            checkpoints.wait()
    assert seen == [["0", "1", "2"], ["1", "2", "3"], ["2", "3", "4"]]


def test_a_folder_that_only_looks_like_a_step_is_not_deleted(tmp_path):
    for name in ("1", "2", "03", "٣"):
        (tmp_path / name / "state").mkdir(parents=True)
        (tmp_path / name / "state" / "mine.txt").write_text("mine")
    with Checkpoints(tmp_path, keep_last=1, keep_best=0, report=lambda line: None) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        for step in (5, 6):
            checkpoints.save(step, state(step), {})
    assert len(list(tmp_path.rglob("mine.txt"))) == 4
    assert Checkpoints(tmp_path, read_only=True).steps() == [1, 2, 6]


def test_only_our_own_remains_are_swept(tmp_path):
    fill(tmp_path / "saved", (1,))
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    for suffix in (".orbax-checkpoint-tmp", ".copying", ".deleting"):
        shutil.copytree(tmp_path / "saved" / "1", directory / f"7{suffix}")
        (directory / f"8{suffix}").mkdir()
        (directory / f"8{suffix}" / "notes.txt").write_text("mine")
        (directory / f"x{suffix}").mkdir()
    (directory / "9.orbax-checkpoint-tmp").symlink_to(tmp_path / "saved" / "1")
    (directory / "9.orbax-checkpoint-tmp.zip").write_text("mine")
    (directory / "1.unreadable").mkdir()
    before = {path.name for path in directory.iterdir()}
    Checkpoints(directory, read_only=True)
    assert {path.name for path in directory.iterdir()} == before  # Looking changes nothing.
    lines = []
    with Checkpoints(directory, report=lines.append) as checkpoints:
        swept = {"7.orbax-checkpoint-tmp", "7.copying", "7.deleting"}
        assert {path.name for path in directory.iterdir()} == before - swept
        assert not any(is_remainder(path) for path in directory.iterdir())
        # Orbax would delete what has the name it writes under.
        checkpoints.save(8, state(8), {})
    assert (directory / "8.orbax-checkpoint-tmp.unreadable" / "notes.txt").read_text() == "mine"
    assert len(lines) == 1


def test_a_failed_save_is_told_by_the_next_check_and_once(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        real = checkpoints._checkpointer.wait_until_finished

        def full():
            real()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(checkpoints._checkpointer, "wait_until_finished", full)
        checkpoints._finisher.begin(2, {})
        monkeypatch.undo()
        jobs = list(checkpoints._finisher._jobs)
        while not all(job.done() for job in jobs):
            pass
        expected = rf"saving step 1 in {tmp_path} failed: No space left on device; \d+ MiB are free there and a step "
        with pytest.raises(
            ResourceError, match=expected + r"needs up to \d+\.\d MiB; make room, then start again\. "
        ):
            checkpoints.check()
        checkpoints.check()
        assert_same(checkpoints.restore(state())[0], state(1))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "writable"),
        (errno.EIO, "check the disk"),
    ],
)
def test_every_error_of_the_disk_has_its_remedy(tmp_path, number, remedy):
    told = explain("saving step 3", tmp_path, OSError(number, os.strerror(number)), 3 * 2**20)
    assert isinstance(told, ResourceError)
    assert told.exit_status == 6
    assert os.strerror(number) in str(told)
    assert remedy in str(told)
    assert "3.0 MiB" in str(told)
    assert "\n" not in str(told)


def test_every_part_of_the_state_has_a_fingerprint(tmp_path):
    whole = {"params": {"w": jnp.ones(3)}, "buffers": {"m": jnp.ones(2)}, "opt_state": (jnp.zeros(4),)}
    whole |= {"ema": {"w": jnp.ones(3)}, "step": jnp.int32(1)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, whole, {})
    arrays = read_metadata(tmp_path / "1")["arrays"]
    assert set(arrays) == {"params/w", "buffers/m", "opt_state/0", "ema/w", "step"}
    for part in ("params", "buffers", "opt_state", "ema"):
        changed = jax.tree.map(lambda x: x, whole)
        changed[part] = jax.tree.map(lambda x: x + 1, whole[part])
        with (
            Checkpoints(tmp_path) as checkpoints,
            pytest.raises(CheckpointError, match="holds a different state"),
        ):
            checkpoints.save(1, changed, {})


def test_a_disk_that_cannot_be_read_is_no_fresh_start(tmp_path, monkeypatch):
    fill(tmp_path, (1,))

    def broken(_):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr("pathlib.Path.iterdir", broken)
    with pytest.raises(
        ResourceError, match=r"listing the checkpoints in .* failed: Transport endpoint is not connected"
    ):
        Checkpoints(tmp_path, read_only=True).restore(state())


def test_what_fails_in_closing_is_one_line_too(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)

    def close():
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(checkpoints._finisher, "close", close)
    with pytest.raises(ResourceError, match="Disk quota exceeded"):
        checkpoints.close()
