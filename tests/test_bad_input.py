"""What bad input gets: one line that names the thing and the remedy, the right exit status, and no harm done."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runs import CONFIG, run
from vit_jax.checkpoints.files import checksum
from vit_jax.training import loop


@pytest.fixture
def no_compilation(monkeypatch):
    """Fail as soon as the training step is compiled."""

    def refuse(*_):
        pytest.fail("the step was compiled")

    monkeypatch.setattr(loop, "compile_step", refuse)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data sets with something wrong each; the current folder of `test_before_compiling`."""
    root = tmp_path_factory.mktemp("data")
    (root / "tiny.py").write_text(CONFIG)
    (root / "file").write_text("not a folder")
    (root / "empty").mkdir()
    write_folder(root / "flat")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "flat" / "0.png")
    write_folder(root / "hollow", train={"cat": 20, "dog": 0}, test={"cat": 2, "dog": 2})
    write_folder(root / "other_classes", train={"cat": 20, "dog": 20}, test={"cat": 2, "dogs": 2})
    write_folder(root / "no_test", train={"cat": 20, "dog": 20})
    write_folder(root / "good", train={"cat": 40, "dog": 40}, test={"cat": 8, "dog": 8})
    names = [f"class {label}" for label in range(10)]
    write_npz(root / "label", "train", labels=[*range(10), 10], class_names=names)
    write_npz(root / "negative", "train", labels=[0, 1, -1, 3])
    write_npz(root / "seven", "train", labels=list(range(7)))
    write_npz(root / "seven", "test", labels=list(range(7)))
    write_npz(root / "more_in_test", "train", labels=list(range(7)))
    write_npz(root / "more_in_test", "test", labels=[*range(7), 9])
    write_npz(root / "large", "train", labels=list(range(10)), size=12)
    write_npz(root / "large", "test", labels=list(range(10)), size=12)
    return root


def write_folder(root, **splits):
    root.mkdir()
    for split, classes in splits.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(np.full((8, 8), index, np.uint8)).save(root / split / name / f"{index}.png")


def write_npz(root, split, labels, size=8, **more):
    root.mkdir(exist_ok=True)
    images = np.zeros((len(labels), size, size), np.uint8)
    np.savez(root / f"{split}.npz", images=images, labels=np.asarray(labels), **more)


def contents(folder):
    """Every file of a folder; what has been there must stay, byte for byte."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def train(config, workdir, *arguments):
    return run("train", "--config", config, "--workdir", workdir, *arguments)


def assert_refused(outcome, status, *parts):
    """One line on stderr and nothing on stdout."""
    assert outcome.status == status, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("vit-jax: ")
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err


FOLDER = "--config.data.source=folder --config.data.path"
ARRAYS = "--config.data.source=arrays --config.data.path"
# Arguments beside config and workdir, exit status, what the line must contain.
BEFORE_COMPILING = [
    (
        "--config.data.batch_size=60",
        2,
        ["data.batch_size is 60; it must be a multiple of 8 (mesh.data 8", "56 or 64"],
    ),
    ("--config.data.eval_batch_size=100", 2, ["data.eval_batch_size is 100", "for example 96 or 104"]),
    ("--config.accumulation=16", 2, ["data.batch_size is 64", "multiple of 128", "accumulation 16"]),
    (
        "--config.mesh.data=3",
        2,
        ["mesh is data=3 fsdp=1 tensor=1, which does not multiply to 8 devices; possible are data="],
    ),
    (
        "--config.model.num_classes=7",
        2,
        ["model.num_classes is 7 and the data has 10 classes; set model.num_classes=10"],
    ),
    ("--config.model.num_classes=0", 2, ["num_classes is 0"]),
    ("--config.data.train_transforms=resise(8)", 2, ["'resise'", "Did you mean 'resize'"]),
    ("--config.duration=0", 2, ["duration is 0; it must be at least"]),
    ("--config.log.every=0", 2, ["log.every is 0; it must be at least"]),
    ("--config.evaluation.baselines=['svm']", 2, ["'svm'", "svm_rbf"]),
    ("--config.data.eval_split=tset", 2, ["'tset'; it must be one of train, test. Did you mean 'test'?"]),
    (f"{FOLDER}=nowhere", 3, ["data.path is 'nowhere', which is not a folder"]),
    (f"{FOLDER}=file", 3, ["data.path is 'file', which is not a folder"]),
    (f"{FOLDER}=empty", 3, ["data.path empty is empty; put one folder of images per class in it"]),
    (f"{FOLDER}=flat", 3, ["flat has no class folders"]),
    (f"{FOLDER}=hollow", 3, ["class folder hollow/train/dog has no images", "add some or remove it"]),
    (f"{FOLDER}=other_classes", 3, ["class 'dogs' is in other_classes/test but not in other_classes/train"]),
    (f"{FOLDER}=no_test", 3, ["no_test has no split 'test'; it has train"]),
    ("--config.optimizer.frozen=['blokcs']", 2, ["'blokcs'"]),
    (f"{ARRAYS}=nowhere", 3, ["nowhere/train.npz does not exist"]),
    (
        f"{ARRAYS}=label",
        3,
        ["record 10 of label/train.npz has label 10; labels must be from 0 to 9 (10 classes)"],
    ),
    (f"{ARRAYS}=negative", 3, ["record 2 of negative/train.npz has label -1"]),
    (
        f"{ARRAYS}=more_in_test",
        3,
        ["has 7 classes and the evaluation data has 10 classes", "equally many; give"],
    ),
    (
        f"{ARRAYS}=large --config.data.batch_size=8 --config.data.train_transforms=flip_lr",
        3,
        ["(12, 12, 1)", "(8, 8, 1)"],
    ),
    ("--workdir file", 6, ["workdir file is a file, not a folder; give another --workdir."]),
    ("--workdir file/run", 6, ["file/run/run.lock cannot be written: Not a directory; check the workdir"]),
]


@pytest.mark.usefixtures("no_compilation")
@pytest.mark.parametrize(("arguments", "status", "parts"), BEFORE_COMPILING)
def test_before_compiling(data, monkeypatch, arguments, status, parts):
    monkeypatch.chdir(data)
    before = contents(data)
    assert_refused(train("tiny.py", "workdir", *arguments.split()), status, *parts)
    assert contents(data) == before


def test_an_unreadable_image_is_named(data, tmp_path):
    # The first batch has every image: there are 80.
    broken = Path(shutil.copytree(data / "good", tmp_path / "broken"))
    image = broken / "train" / "dog" / "7.png"
    image.write_bytes(image.read_bytes()[:40])
    outcome = train(
        *(data / "tiny.py", tmp_path / "run", *f"{FOLDER}={broken}".split()),
        *(
            "--config.data.batch_size=80",
            "--config.data.eval_batch_size=16",
            "--config.evaluation.baselines=()",
            "--config.data.bad_records=error",
        ),
    )
    *begins, line = outcome.err.splitlines(keepends=True)
    assert begins[0].startswith("data: 80 training records")
    assert_refused(
        replace(outcome, err=line), 3, str(image), "the PNG image is damaged", "replace or remove it"
    )
    assert not list((tmp_path / "run").rglob("summary.json"))


# --- a workdir that holds something else


RESUMING = [
    (
        "--config.optimizer.learning_rate=1",
        2,
        ["optimizer.learning_rate: 0.001 -> 1.0", "--allow-change optimizer.learning_rate"],
    ),
    ("--config.model.width=32", 2, ["model.width: 16 -> 32", "Use another --workdir"]),
    ("--config.model.name=vit_mu_patch2_8", 2, ["model.name: 'vit_mu_patch4_8' -> 'vit_mu_patch2_8'"]),
    ("--config.model.qk_norm=true", 2, ["model.qk_norm: '(not set)' -> True"]),
    ("--config.objective.name=mae", 2, ["objective.name: 'classification' -> 'mae'"]),
    ("--config.seed=1 --config.duration=9 --allow-change seed", 2, ["duration: '6 steps' -> 9"]),
    (
        "--config.seed=1 --allow-change sead",
        2,
        ["--allow-change sead: there is no such key. Did you mean 'seed'"],
    ),
    (
        "--config.model.mlp_dim=48 --allow-change model",
        4,
        ["belongs to a different model or configuration", "blocks/mlp/fc1"],
    ),
]


@pytest.mark.usefixtures("no_compilation")
@pytest.mark.parametrize(("arguments", "status", "parts"), RESUMING)
def test_a_workdir_of_another_run(trained, arguments, status, parts):
    workdir = Path(trained.workdir)
    before = contents(workdir)
    outcome = train(trained.config, workdir, *arguments.split())
    *notices, line = outcome.err.splitlines(keepends=True)
    assert all(notice.startswith("changed: ") for notice in notices)
    assert_refused(replace(outcome, err=line), status, *parts)
    assert contents(workdir) == before


def cut_arrays(step):
    for path in (step / "state" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:100])


def flip_bits(step):
    """One bit in each eighth of every data file: Orbax leaves copies behind that nothing reads."""
    for path in step.rglob("d/*"):
        data = bytearray(path.read_bytes())
        for position in range(len(data) // 16, len(data), max(1, len(data) // 8)):
            data[position] ^= 1
        path.write_bytes(data)


def garbage_metadata(step):
    (step / "metadata" / "metadata").write_text("{")


def lose_metadata(step):
    shutil.rmtree(step / "metadata")


@pytest.mark.usefixtures("no_compilation")
@pytest.mark.parametrize("damage", [cut_arrays, flip_bits, garbage_metadata, lose_metadata])
def test_unreadable_checkpoints_are_no_fresh_start(trained, copied, damage):
    for step in (3, 6):
        damage(copied / "checkpoints" / str(step))
    before = contents(copied)
    outcome = train(trained.config, copied)
    assert outcome.status == 4
    assert outcome.out == ""
    line = outcome.err.splitlines()[-1]
    assert line.startswith("vit-jax: ")
    assert f"{copied}/checkpoints" in line
    assert contents(copied) == before
    for command in (["evaluate"], ["predict", __file__]):
        assert_refused(run(*command, "--workdir", copied), 4, f"{copied}/checkpoints")
    assert contents(copied) == before


def test_a_loss_that_is_not_finite_stops_the_run(trained, copied):
    before = contents(copied / "checkpoints")
    outcome = train(
        *(trained.config, copied, "--config.checkpoint.every=1", "--config.evaluation.every=30"),
        *("--config.duration=60", "--allow-change", "duration", "--allow-change", "optimizer"),
        *("--config.optimizer.learning_rate=1e15", "--config.optimizer.clip_norm=0"),
    )
    assert outcome.status == 5
    assert outcome.out == ""
    *told, line = outcome.err.splitlines()
    resumed = told.index("resuming after step 6")
    assert told[resumed + 3].startswith("run: from step 6, 60 steps of 64 images")
    assert told[resumed + 4] == "compiling ..."
    # The step after the first with this learning rate; the one before was finite and is saved.
    assert line.startswith(
        "vit-jax: step 8: loss nan, gradient norm nan; its update was skipped, and the step recorded in "
    )
    assert "step_8.json; the newest checkpoint is step 7." in line
    assert "lower optimizer.learning_rate" in line
    steps = {path.name for path in (copied / "checkpoints").iterdir() if path.name.isdecimal()}
    assert {"6", "7"} <= steps
    assert "8" not in steps
    kept = contents(copied / "checkpoints")
    assert all(kept[path] == data for path, data in before.items() if path in kept)


# --- evaluate and predict


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "zero.png")
    return tmp_path / "zero.png"


def test_images_that_cannot_be_classified(trained, tmp_path, picture):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:44])
    for folder in ("folder.png", "empty"):
        (tmp_path / folder).mkdir()
    for name, expected in [
        ("none.png", "does not exist; give paths of image files"),
        ("folder.png", "Is a directory"),
        ("empty", "has no images"),
        ("text.png", "not an image of a known format"),
        ("cut.png", "damaged"),
    ]:
        outcome = run("predict", "--workdir", trained.workdir, picture, tmp_path / name)
        assert_refused(outcome, 3, str(tmp_path / name), expected)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_workdirs_without_a_checkpoint(tmp_path, picture, command):
    images = [picture] if command == "predict" else []
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    assert_refused(run(command, "--workdir", missing, *images), 4, f"workdir '{missing}' does not exist")
    assert_refused(run(command, "--workdir", empty, *images), 4, f"workdir '{empty}' has no checkpoint")
    assert list(empty.iterdir()) == []


def test_a_step_that_is_not_there(trained, picture):
    for command in (["evaluate"], ["predict", picture]):
        assert_refused(run(*command, "--workdir", trained.workdir, "--step", "5"), 4, "5", "3, 6")


def test_a_model_without_classes_predicts_nothing(copied, picture):
    for file in copied.glob("checkpoints/*/metadata/metadata"):
        metadata = json.loads(file.read_text())
        metadata["config"]["objective"] = {"name": "mae"}
        file.write_text(json.dumps(metadata | {"checksum": checksum(metadata)}))
    outcome = run("predict", "--workdir", copied, picture)
    assert_refused(
        outcome, 2, str(copied), "'mae', which makes no predictions for images", "vit-jax features"
    )


def test_evaluation_data_that_do_not_fit(trained, data):
    evaluate = ["evaluate", "--workdir", trained.workdir]
    assert_refused(
        run(*evaluate, *f"{FOLDER}=nowhere".split()), 3, "data.path is 'nowhere', which is not a folder"
    )
    of_train = ["--config.data.eval_split=train", "--config.data.eval_batch_size=8"]
    wrong = run(*evaluate, *f"{ARRAYS}={data}/label".split(), *of_train)
    assert_refused(wrong, 3, "record 10 of", "has label 10")
    assert_refused(run(*evaluate, "--config.data.eval_batch_size=100"), 2, "data.eval_batch_size is 100")
    outcome = run(*evaluate, *f"{ARRAYS}={data}/seven".split(), *of_train)
    assert outcome.status == 0  # labels without names: none of the last three classes is there
    assert "labels are taken by position, 7 of 10" in outcome.err
