"""What ends a run, or keeps it from beginning before anything is compiled."""

import jax
import numpy as np
import pytest

from tests.tiny import randomised
from tests.training.test_loop import configuration, lines
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.data.base import Selection, Source
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import (
    ConfigError,
    DataError,
    DivergedError,
    ResourceError,
)
from vit_jax.training import loop
from vit_jax.training.experiment import build

# ---- numbers that are not finite


class Poisoned(Source):
    """Float images, of which one is not a number."""

    def __init__(self, bad, size=64):
        self.class_names = tuple("012345")
        self.image_shape = (8, 8, 1)
        self.labels = (np.arange(size) % 6).astype(np.int32)
        self._images = np.random.default_rng(0).uniform(0, 255, (size, 8, 8, 1)).astype(np.float32)
        self._images[bad] = np.nan

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self._images[index], "label": int(self.labels[index]), "record": f"record {index}"}

    def take(self, indices):
        return {"image": self._images[indices], "label": self.labels[indices]}


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    config = configuration(
        data__train_transforms="", accumulation=1, objective__mixup=0.0, checkpoint__every=1, ema__decay=0.0
    )
    healthy = ArraySource(np.full((16, 8, 8, 1), 50, np.uint8), np.arange(16) % 6, num_classes=6)
    # Some record that is first read in step 4.
    batches = build(config, (Poisoned([]), healthy)).data.train_batches(0)
    first = [next(batches)["image"] for _ in range(4)]
    batches.close()
    images = Poisoned([])._images
    bad = next(i for i in range(64) if (images[i] == first[3]).all((1, 2, 3)).any())
    message = (
        r"^step 4: loss nan, gradient norm nan; its update was skipped, and the step recorded in "
        r".*/incidents/step_4.json; the newest checkpoint is step 3\."
    )
    with pytest.raises(DivergedError, match=message) as caught:
        loop.train(config, tmp_path, sources=(Poisoned([bad]), healthy))
    assert caught.value.exit_status == 5
    checkpoints = Checkpoints(tmp_path / "checkpoints", read_only=True)
    assert checkpoints.steps()[-1] == 3
    abstract = build(config, (Poisoned([]), healthy)).abstract_state
    state, _ = checkpoints.restore(abstract)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert lines(tmp_path)[-1]["step"] == 3


# ---- records that cannot be read


class Unreadable(Poisoned):
    """Records of which some are not there."""

    def __init__(self, bad):
        super().__init__([])
        self._bad = bad

    def __getitem__(self, index):
        if index in self._bad:
            raise DataError(f"record {index} is gone")
        return super().__getitem__(index)


def test_records_that_cannot_be_read_are_skipped_and_counted(tmp_path, capsys):
    config = configuration(ema__decay=0.0, log__every=5, data__eval_transforms="flip_lr(0.0)")
    healthy = ArraySource(np.full((16, 8, 8, 1), 50, np.uint8), np.arange(16) % 6, num_classes=6)
    loop.train(config, tmp_path, sources=(Unreadable({0, 7}), healthy))
    told = capsys.readouterr().err
    # 160 rows are two and a half epochs of 64 records.
    counts = [line["train/skipped_records"] for line in lines(tmp_path) if "train/skipped_records" in line]
    assert counts[-1] >= 4
    # Counted each time, told once.
    assert (told.count("skipped: record 0 is gone"), told.count("skipped: record 7 is gone")) == (1, 1)
    with pytest.raises(DataError, match="record 0 is gone"):
        build(configuration(data__bad_records="error"), (Unreadable({0}), healthy))
    # In evaluation the first one is an error: what is not counted would flatter.
    with pytest.raises(DataError, match="record 3 is gone"):
        list(build(config, (Unreadable({0}), Unreadable({3}))).eval_batches())


# ---- transforms that leave other arrays than an image


def test_what_has_no_image_is_refused_by_name():
    crops = "multi_crop(8, 4, 2, global_transforms='', local_transforms='')"
    with pytest.raises(
        ConfigError, match=r"train_transforms leave global_crops, local_crops but no image, which obj"
    ):
        build(configuration(data__train_transforms=crops))
    with pytest.raises(ConfigError, match=r"eval_transforms leave global_crops"):
        build(configuration(data__eval_transforms=crops))


@pytest.mark.parametrize("which", ["train", "eval"])
def test_channels_mean_the_same_in_training_and_evaluation(which):
    with pytest.raises(
        ConfigError, match=f"data.{which}_transforms are '.*hsv'.*; put hsv into both or into neither"
    ):
        build(configuration(**{f"data__{which}_transforms": "to_channels(3)|hsv"}))


def test_more_than_an_image_goes_to_the_step(tmp_path):
    config = configuration(duration="2 steps", data__train_transforms="mae_mask((2, 2))", log__every=1)
    assert build(config).abstract_batch()["patch_mask"].shape == (16, 4)
    assert loop.train(config, tmp_path).step == 2


# ---- what is refused before anything is compiled


def test_plain_sequences_are_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "resume", lambda *_: pytest.fail("far enough"))
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1), dtype=np.uint8)
    records = [(image, f"class {index % 6}") for index, image in enumerate(images)]
    with pytest.raises(pytest.fail.Exception, match="far enough"):
        loop.train(
            configuration(data__train_transforms="", data__eval_transforms=""),
            tmp_path,
            sources=(records, records[:9]),
        )
    with pytest.raises(
        DataError, match="record 1 of the evaluation records has label 'class 7', which is none of the 6"
    ):
        loop.train(configuration(), tmp_path, sources=(records, [records[0], (images[0], "class 7")]))


def sources(train_size=8, eval_size=8, classes=6, eval_classes=6, records=32):
    def source(size, count, records):
        images = np.zeros((max(records, 1), size, size, 1), np.uint8)
        whole = ArraySource(images, np.arange(len(images)) % count, num_classes=count)
        return Selection(whole, np.arange(records))

    return source(train_size, classes, 32), source(eval_size, eval_classes, records)


class Files(Source):
    """Images that are not in memory."""

    class_names = tuple("012345")

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return {"image": np.zeros((8, 8, 1), np.uint8), "label": 0, "record": "a file"}


REFUSED = {
    "no steps": (dict(duration=0), None, ConfigError, "duration is 0; it must be at least one step"),
    "no epochs": (dict(duration="0 epochs"), None, ConfigError, "duration is '0 epochs'"),
    "never evaluated": (
        dict(evaluation__every=0),
        None,
        ConfigError,
        "evaluation.every is 0; it must be at least",
    ),
    "never saved": (dict(checkpoint__every="0%"), None, ConfigError, "checkpoint.every is '0%'"),
    "never logged": (dict(log__every="0 epochs"), None, ConfigError, "log.every is '0 epochs'"),
    "batch": (
        dict(data__batch_size=24),
        None,
        ConfigError,
        "data.batch_size is 24; it must be a multiple of 16",
    ),
    "eval batch": (
        dict(data__eval_batch_size=12),
        None,
        ConfigError,
        "data.eval_batch_size is 12; it must be",
    ),
    "mesh": (
        dict(mesh__data=3),
        None,
        ConfigError,
        "mesh is data=3 fsdp=1 tensor=1, which does not multiply to 8",
    ),
    "warmup": (dict(schedule__warmup=11), None, ConfigError, "schedule.warmup is 11 steps"),
    "frozen": (dict(optimizer__frozen=("blocs",)), None, ConfigError, "optimizer.frozen has 'blocs'"),
    "classes": (
        {},
        sources(classes=5, eval_classes=5),
        ConfigError,
        "num_classes is 6 and the data has 5 classes",
    ),
    "eval classes": ({}, sources(eval_classes=7), DataError, "has 6 classes and the evaluation data has 7"),
    "no records": (
        {},
        sources(records=0),
        DataError,
        "data.eval_split selects no records; choose another split",
    ),
    "train size": (
        dict(data__train_transforms="resize(12)"),
        None,
        DataError,
        r"has shape \(12, 12, 1\) after the transforms, but the model takes \(8, 8, 1\)",
    ),
    "eval size": (
        dict(data__eval_transforms="center_crop(9)"),
        sources(eval_size=16),
        DataError,
        r"has shape \(9, 9, 1\) after the transforms",
    ),
    "transform": (
        dict(data__train_transforms="flip_rl"),
        None,
        ConfigError,
        "data.train_transforms: the transform is 'flip_rl'",
    ),
    "baseline": (dict(evaluation__baselines=("svm",)), None, ConfigError, "evaluation.baselines is 'svm'"),
    "baselines of files": (
        dict(evaluation__baselines=("svm_rbf",), data__train_transforms="", data__eval_transforms=""),
        (Files(), Files()),
        ConfigError,
        "evaluation.baselines is .*, but they need images in memory",
    ),
}


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_compiling(tmp_path, case):
    changes, given, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message) as caught:
        loop.train(configuration(**changes), tmp_path / "new", sources=given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("nothing_compiled")
def test_a_workdir_that_cannot_be_written_is_refused_before_compiling(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="Not a directory"):
        loop.train(configuration(), tmp_path / "file" / "run")
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(ResourceError, match=r"metrics.jsonl cannot be written"):
        loop.train(configuration(), tmp_path / "run")


def test_float_images_and_other_sizes_are_trained_on():
    experiment = build(configuration(data__train_transforms=""), (Poisoned([]), sources(eval_size=16)[1]))
    assert experiment.abstract_batch()["image"].dtype == np.float32
    batch = next(experiment.eval_batches())
    assert (batch["image"].shape, batch["image"].dtype) == ((16, 8, 8, 1), np.uint8)


def test_some_devices_can_be_chosen():
    experiment = build(configuration(mesh__data=2), devices=jax.devices()[2:4])
    assert list(experiment.devices.mesh.devices.flat) == jax.devices()[2:4]
    params = randomised(experiment.abstract_state.params)
    assert fingerprint(params)  # shapes are as ever
