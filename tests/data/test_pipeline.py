"""Batches: order, resuming, hosts, evaluation, threads and processes, and errors on the way."""

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.base import Source
from vit_jax.data.pipeline import eval_batches, train_batches
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.digits import open_digits
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.opening import balanced
from vit_jax.data.sources.synthetic import SyntheticSource
from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError

AUGMENT = "pad_crop(8, 2)|flip_lr"


def numbered(count):
    """Return a source whose images say which record they are."""
    return ArraySource(
        (np.arange(count) % 256).astype(np.uint8).reshape(-1, 1, 1, 1), np.arange(count) % 3, num_classes=3
    )


def take(source, spec, count, batch_size=6, seed=0, start=0, **options):
    batches = train_batches(source, parse(spec), batch_size, seed, start, **options)
    result = [next(batches) for _ in range(count)]
    batches.close()
    return result


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right):
        assert a.keys() == b.keys()
        for key in a:
            assert np.array_equal(a[key], b[key])
            assert a[key].dtype == b[key].dtype


def joined(hosts):
    """Return global batches from those of several hosts."""
    return [{key: np.concatenate([part[key] for part in parts]) for key in parts[0]} for parts in zip(*hosts)]


def test_batches_hold_images_and_labels():
    (batch,) = take(open_digits("train"), "", 1, batch_size=64)
    assert set(batch) == {"image", "label"}
    assert batch["image"].shape == (64, 8, 8, 1)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].shape == (64,)
    assert batch["label"].dtype == np.int32


@pytest.mark.parametrize("spec", ["", "flip_lr(0.0)"])
def test_images_keep_their_labels(spec):
    for batch in take(numbered(10), spec, 5):
        assert np.array_equal(batch["image"].reshape(-1) % 3, batch["label"])


def test_both_ways_of_reading_agree():
    # Without transforms arrays are read a batch at a time, with any transform record by record.
    assert_equal(take(open_digits("train"), "", 30), take(open_digits("train"), "flip_lr(0.0)", 30))


def test_every_epoch_has_every_record_once_across_batches():
    rows = np.concatenate([batch["image"].reshape(-1) for batch in take(numbered(10), "", 10)])
    epochs = rows.reshape(6, 10)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(10), (6, 1)))
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_seeds_decide_order_and_augmentation():
    same = take(open_digits("train"), AUGMENT, 3, seed=4)
    assert_equal(same, take(open_digits("train"), AUGMENT, 3, seed=4))
    other = take(open_digits("train"), AUGMENT, 3, seed=5)
    assert not np.array_equal(same[0]["label"], other[0]["label"])


def test_each_position_has_random_numbers_of_its_own():
    source = ArraySource(np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1), [0])
    images = np.concatenate([batch["image"] for batch in take(source, AUGMENT, 4, batch_size=32)])
    # One record over and over: 25 shifts, mirrored or not, 50 results of which most appear.
    assert len(np.unique(images.reshape(128, -1), axis=0)) > 40


def test_resuming_is_starting_at_a_later_step():
    whole = take(open_digits("train"), AUGMENT, 400, batch_size=6)
    assert_equal(whole[377:], take(open_digits("train"), AUGMENT, 23, batch_size=6, start=377))


@pytest.mark.parametrize("hosts", [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_hosts(hosts):
    source = open_digits("train")
    one = take(source, AUGMENT, 8, batch_size=8)
    parts = [
        take(source, AUGMENT, 8, batch_size=8, process_index=i, process_count=hosts) for i in range(hosts)
    ]
    assert {len(part[0]["label"]) for part in parts} == {8 // hosts}
    assert_equal(one, joined(parts))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_change_nothing(threads):
    expected = take(open_digits("train"), AUGMENT, 20)
    assert_equal(expected, take(open_digits("train"), AUGMENT, 20, num_threads=threads, prefetch=1))


@pytest.mark.parametrize("count", [1, 5, 7, 16, 64, 99])
@pytest.mark.parametrize(("batch_size", "hosts"), [(1, 1), (8, 1), (8, 4), (32, 2)])
def test_evaluation_counts_every_record_once(count, batch_size, hosts):
    source = numbered(count)
    parts = [list(eval_batches(source, [], batch_size, i, hosts)) for i in range(hosts)]
    assert {len(part) for part in parts} == {-(-count // batch_size)}
    batches = joined(parts)
    assert all(batch["image"].shape == (batch_size, 1, 1, 1) for batch in batches)
    assert all(batch["mask"].dtype == np.bool_ for batch in batches)
    mask = np.concatenate([batch["mask"] for batch in batches])
    images = np.concatenate([batch["image"].reshape(-1) for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    assert images[mask].tolist() == list(range(count))
    assert labels[mask].tolist() == [i % 3 for i in range(count)]


def test_evaluation_is_the_same_every_time():
    source = open_digits("test")
    assert_equal(
        list(eval_batches(source, parse(AUGMENT), 64)), list(eval_batches(source, parse(AUGMENT), 64))
    )


def test_balanced_sampling_is_even_over_an_epoch():
    labels = np.array([0] * 20 + [1] * 3 + [2] * 5)
    source = balanced(ArraySource(np.zeros((28, 2, 2, 1), np.uint8), labels))
    batches = take(source, "", 10)
    assert np.bincount(np.concatenate([batch["label"] for batch in batches])).tolist() == [20, 20, 20]


def png(*shape):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(shape).integers(0, 256, shape, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for i in range(12):
        path = tmp_path / "train" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(9 + i, 12, 3))
    return tmp_path


def error(source, spec, **options):
    with pytest.raises(DataError) as caught:
        take(source, spec, 4, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_give_batches(folder):
    source = FolderSource(folder, "train")
    spec = "decode|random_resized_crop(8)|flip_lr"
    batches = take(source, spec, 4, input_shape=(8, 8, 3))
    assert batches[0]["image"].shape == (6, 8, 8, 3)
    assert_equal(batches, take(source, spec, 4, num_threads=0))


@pytest.mark.parametrize("options", [{"num_threads": 0}, {"num_threads": 3}])
def test_an_unreadable_image_is_named_wherever_it_is_read(folder, options):
    path = folder / "train" / "cat" / "4.png"
    path.write_bytes(png(9, 9, 3)[:-30])
    said = error(FolderSource(folder, "train"), "decode|resize(8)", **options)
    assert said.startswith(f"{path}: the PNG image is damaged (")


def test_two_and_three_processes_give_what_threads_give(folder):
    source, spec = FolderSource(folder, "train"), "decode|random_resized_crop(8)|flip_lr"
    options = {"repeats": 2, "process_index": 1, "process_count": 2}
    expected = take(source, spec, 7, batch_size=4, seed=3, start=5, **options)
    for workers in (2, 3):
        found = take(source, spec, 7, batch_size=4, seed=3, start=5, num_workers=workers, **options)
        assert_equal(expected, found)


def test_restarting_with_another_number_of_hosts(folder):
    source, spec = FolderSource(folder, "train"), "decode|random_resized_crop(8)|flip_lr"

    def on(hosts, start, count):
        parts = [
            take(source, spec, count, 8, 1, start, process_index=i, process_count=hosts) for i in range(hosts)
        ]
        return joined(parts)

    whole = on(1, 0, 11)
    for stop, before, after in ((1, 8, 2), (4, 2, 4), (7, 4, 1), (10, 1, 8)):
        assert_equal(whole, on(before, 0, stop) + on(after, stop, 11 - stop))


def test_repeats_and_epochs_are_transformed_anew():
    source = SyntheticSource(8, (99, 99, 3), 8)
    batches = take(source, "random_resized_crop(16)", 12, batch_size=8, repeats=2)
    seen = {}
    for batch in batches:
        assert np.bincount(batch["label"], minlength=8).max() == 2
        for image, label in zip(batch["image"], batch["label"]):
            seen.setdefault(int(label), set()).add(image.tobytes())
    # Each record twice in every second batch, six epochs of four records a batch.
    assert {label: len(images) for label, images in seen.items()} == dict.fromkeys(range(8), 12)


def test_processes_change_nothing_errors_included(folder):
    path = folder / "train" / "dog" / "7.png"
    path.write_bytes(b"")
    source, transforms = FolderSource(folder, "train"), parse("decode|random_resized_crop(8)")
    results = []
    for workers in (0, 2):
        batches, images = train_batches(source, transforms, 2, 1, 1, num_workers=workers), []
        with pytest.raises(DataError) as caught:
            images.extend(batch["image"] for batch in batches)
        batches.close()
        results.append((str(caught.value), np.stack(images)))
    assert results[0][0] == results[1][0] == f"{path}: the file is empty; replace or remove it."
    assert len(results[0][1]) > 1
    assert np.array_equal(results[0][1], results[1][1])


def test_images_must_have_one_shape(folder):
    said = error(FolderSource(folder, "train"), "decode")
    assert "after the transforms, but" in said
    assert "end them with a resize to one size" in said


def test_images_must_be_decoded(folder):
    assert "png is still encoded; begin the transforms with decode" in error(
        FolderSource(folder, "train"), ""
    )


@pytest.mark.parametrize("spec", ["", "flip_lr"])
def test_images_must_have_the_shape_of_the_model(spec):
    said = error(open_digits("train"), spec, input_shape=(16, 16, 3))
    assert (
        "of the digits (train) has shape (8, 8, 1) after the transforms, but the model takes (16, 16, 3)"
        in said
    )
    assert "end them with resize((16, 16)) and to_channels(3)" in said


class Mislabelled(Source):
    """A source that cannot check its labels beforehand."""

    class_names = ("a", "b")

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {
            "image": np.zeros((2, 2, 1), np.uint8),
            "label": (0, 1, 2, 1, 0)[index],
            "record": f"row {index}",
        }


def test_labels_out_of_range_are_named():
    assert error(Mislabelled(), "") == "row 2 has label 2; labels must be from 0 to 1 (2 classes)."
    said = error(SyntheticSource(100, (2, 2, 1), 10), "", num_classes=4)
    assert "of the synthetic source has label" in said
    assert "labels must be from 0 to 3 (4 classes)" in said
    with pytest.raises(DataError, match="row 2 has label 2"):
        list(eval_batches(Mislabelled(), [], 3))


@pytest.mark.parametrize(("batch_size", "hosts"), [(6, 4), (0, 1), (-8, 2)])
def test_batches_must_divide_among_hosts(batch_size, hosts):
    with pytest.raises(
        ConfigError, match=rf"batch size is {batch_size}; it must be a multiple of .* {hosts}\."
    ):
        train_batches(numbered(5), [], batch_size, 0, process_count=hosts)


class TestBadRecords:
    @pytest.fixture
    def damaged(self, folder):
        (folder / "train" / "cat" / "4.png").write_bytes(png(9, 9, 3)[:-30])
        (folder / "train" / "dog" / "7.png").write_bytes(b"")
        return FolderSource(folder, "train")

    SPEC = "decode|random_resized_crop(8)"

    def test_others_take_their_place_always_the_same(self, damaged):
        told = []
        options = {"skip_bad": True, "max_bad_share": 0.5}
        expected = take(damaged, self.SPEC, 8, report=told.append, **options)
        assert all(batch.keys() == {"image", "label"} for batch in expected)
        # Four epochs of twelve records, two of which are bad; each is told once.
        assert len(told) == len(set(told)) == 2
        assert all(line.startswith("skipped: ") and "replace or remove it" in line for line in told)
        assert_equal(expected, take(damaged, self.SPEC, 8, report=told.append, num_threads=0, **options))
        processes = take(damaged, self.SPEC, 8, report=told.append, num_workers=2, **options)
        assert_equal(expected, processes)
        hosts = [
            take(damaged, self.SPEC, 8, report=told.append, process_index=i, process_count=2, **options)
            for i in range(2)
        ]
        assert_equal(expected, joined(hosts))

    def test_good_rows_stay_as_they_are(self, folder):
        source = FolderSource(folder, "train")
        before = take(source, self.SPEC, 2)
        (folder / "train" / "cat" / "4.png").write_bytes(b"")
        after = take(source, self.SPEC, 2, skip_bad=True, report=lambda line: None)
        same = [(a["image"] == b["image"]).all((1, 2, 3)) for a, b in zip(before, after)]
        assert np.concatenate(same).sum() == 11

    def test_they_are_counted_up_to_a_limit(self, damaged):
        told = []
        batches = train_batches(
            damaged, parse(self.SPEC), 6, 0, skip_bad=True, max_bad_share=0.01, report=told.append
        )
        with pytest.raises(DataError, match=r"^11 of \d+ .* data.max_bad_share 0.01; the last one: .*png: "):
            list(itertools.islice(batches, 100))
        assert batches.skipped == 11
        assert len(told) == 2  # each once
        batches.close()

    def test_sources_without_a_good_record_end_at_once(self, folder):
        for file in folder.rglob("*.png"):
            file.write_bytes(b"")
        said = error(FolderSource(folder, "train"), self.SPEC, skip_bad=True)
        assert said.startswith("8 records in a row cannot be read; the last one: ")

    def test_by_default_they_go_to_standard_error(self, damaged, capsys):
        take(damaged, self.SPEC, 2, skip_bad=True)
        assert capsys.readouterr().err.count("skipped: ") >= 2

    def test_evaluation_leaves_them_out(self, damaged):
        with pytest.raises(DataError, match="damaged"):
            list(eval_batches(damaged, parse(self.SPEC), 5))
        batches = eval_batches(damaged, parse(self.SPEC), 5, skip_bad=True, report=lambda line: None)
        rows = list(batches)
        assert [batch["image"].shape for batch in rows] == [(5, 8, 8, 3)] * 3
        assert sum(batch["mask"].sum() for batch in rows) == 10
        assert batches.skipped == 2

    def test_padding_is_no_record(self, damaged):
        """Twelve records in a batch of 96, two of them bad: two of twelve, and not sixteen of 96."""
        told = []
        options = {"skip_bad": True, "max_bad_share": 0.01, "report": told.append}
        batches = eval_batches(damaged, parse(self.SPEC), 96, **options)
        assert sum(batch["mask"].sum() for batch in batches) == 10
        assert (batches.skipped, len(told)) == (2, 2)
        assert batches._read == 12


class Crops(Transform):
    """Several fixed-shape arrays from one image."""

    def __call__(self, example, rng):
        image = example.pop("image")
        return {**example, "global_crops": np.stack([image, image]), "hidden": np.zeros(4, np.bool_)}


def test_transforms_may_give_other_arrays():
    (batch,) = [
        next(iter(train_batches(open_digits("train"), [Crops()], 4, 0, input_shape=(8, 8, 1), num_threads=0)))
    ]
    assert {key: value.shape for key, value in batch.items()} == {
        "label": (4,),
        "global_crops": (4, 2, 8, 8, 1),
        "hidden": (4, 4),
    }


# Batches of worker processes, read in a program that ends in different ways with batches still in its hands.
READS = """
import os, signal, sys
import numpy as np
from vit_jax.data.sources.synthetic import SyntheticSource
from vit_jax.data.pipeline import eval_batches, train_batches

if __name__ == "__main__":
    source = SyntheticSource(96, (64, 64, 3), 10)
    batches = train_batches(source, [], 16, 0, num_workers=2, prefetch=3)
    kept = [next(batches), next(batches)]
    assert all(type(rows) is np.ndarray for batch in kept for rows in batch.values())
    if sys.argv[1] == "closed":
        batches.close()
        batches.close()
        held = list(eval_batches(source, [], 16, num_workers=2))
        assert len(held) == 6 and next(batches, None) is None
    if sys.argv[1] == "error":
        raise ValueError("wrong")
    if sys.argv[1] == "interrupted":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background takes away
        os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [("closed", ""), ("forgotten", ""), ("error", "ValueError: wrong"), ("interrupted", "KeyboardInterrupt")],
)
def test_worker_processes_leave_nothing_behind(how, said, tmp_path):
    """Python's resource tracker tells of shared memory that is left at the end of a program."""
    script = tmp_path / "reads.py"
    script.write_text(READS)
    process = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", script, how],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    lines = process.stderr.splitlines()
    assert process.stderr.count("Traceback") == bool(said), process.stderr
    assert (lines[-1] if lines else "") == said, process.stderr
    assert "leaked" not in process.stderr
    assert "ignored" not in process.stderr


UNGUARDED = """
import vit_jax

config = vit_jax.default_config()
config.duration = "2 steps"
config.model.update(name="vit_mu_patch4_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32)
config.data.update(source="digits", num_workers=1)
config.log.update(tensorboard=False, progress=False)
vit_jax.train(config, "run")
"""


def test_a_program_that_worker_processes_would_run_again(tmp_path):
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    process = subprocess.run(
        [sys.executable, "unguarded.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.returncode == 1
    assert "put the code under if __name__ == '__main__', or set data.num_workers=0." in process.stderr
    assert "AssertionError" not in process.stderr
    last = process.stderr.splitlines()[-1]
    assert last.endswith(
        "ended with exit code 1; its output tells why; data.num_workers=0 reads in this process."
    )
