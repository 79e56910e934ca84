"""Inputs that cannot hurt: files that are none, damaged and malicious ones, wrong configurations, hostile names.

Short forms of the scripts in benchmarks/, which say what they try; docs/reliability.md has figures of the long ones.
"""

import importlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.runs import BENCHMARKS, run, run_benchmark
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.data.prepare.check import check
from vit_jax.data.prepare.prepare import prepare
from vit_jax.data.sources.opening import open_source
from vit_jax.data.sources.tfds_source import TfdsSource
from vit_jax.errors import ConfigError, DataError, VitError, is_printable, printable
from vit_jax.inference.text.tokenizer import Tokenizer
from vit_jax.models.text.config import TextConfig
from vit_jax.paths import check_output, open_file, read_file
from vit_jax.training.config import default_config, load_config
from vit_jax.weights.convert import convert
from vit_jax.weights.formats.files import open_checkpoint

PACKAGE = Path(vit_jax.__file__).parent
# A loader that waits for a pipe or reads a device would take forever; imports are done before.
SECONDS = 5.0


# --- paths that are no files


def picture():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def bad_paths(folder, ending):
    """Paths at which there is no file that can be read, by what is there."""
    folder.mkdir()
    paths = {
        kind: folder / f"{kind}{ending}"
        for kind in ("missing", "directory", "empty", "broken", "loop", "pipe")
    }
    paths["directory"].mkdir()
    paths["empty"].touch()
    paths["broken"].symlink_to("nowhere")
    paths["loop"].symlink_to(f"loop{ending}")
    os.mkfifo(paths["pipe"])
    paths["endless"] = folder / f"endless{ending}"
    paths["endless"].symlink_to("/dev/zero")
    paths["socket"] = folder / f"s{ending}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(paths["socket"]))  # such names are short
    paths["huge"] = folder / f"huge{ending}"
    with paths["huge"].open("wb") as file:
        file.truncate(2**40)
    paths["garbage"] = folder / f"garbage{ending}"
    paths["garbage"].write_bytes(bytes(range(1, 256)))
    paths["inside a file"] = paths["garbage"] / f"x{ending}"
    paths["long"] = folder / f"{'x' * 300}{ending}"
    paths["NUL"] = folder / f"a\0b{ending}"
    paths["line end"] = folder / f"a\nb\x1b[31m{ending}"
    paths["no text"] = folder / f"\udcff{ending}"
    return paths


def in_folder(name, load):
    """A loader of a folder in which the bad path has a certain name."""

    def action(path, place):
        place.mkdir()
        try:
            (place / name).symlink_to(path)
        except (OSError, ValueError):
            pytest.skip("no link can go there")
        return load(place)

    return action


def two_classes(place):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (place / split / name).mkdir(parents=True)
            (place / split / name / "1.png").write_bytes(picture())
    return place


def beside_images(place, action):
    def act(path, folder):
        root = two_classes(folder)
        try:
            (root / place).symlink_to(path)
        except (OSError, ValueError):
            pytest.skip("no link can go there")
        return action(root)

    return act


def source(kind, path):
    data = default_config().data
    data.update(source=kind, path=str(path), size=8)
    return open_source(data, "train")


def all_records(opened):
    return [opened[index] for index in range(len(opened))]


def step_of(place):
    (place / "checkpoints").mkdir()
    (place / "link").rename(place / "checkpoints" / "3")
    return vit_jax.evaluate(place)


def metadata_of(place):
    (place / "checkpoints" / "3" / "metadata").mkdir(parents=True)
    (place / "link").rename(place / "checkpoints" / "3" / "metadata" / "metadata")
    return vit_jax.evaluate(place)


TEXT = TextConfig(vocab_size=100, context_length=8, width=8, depth=1, heads=1, mlp_dim=8, eos_token=99)
# Ending of the path, and what is done with it.
LOADERS = {
    "load": ("", lambda path, _: vit_jax.load(str(path))),
    "load .safetensors": (".safetensors", lambda path, _: vit_jax.load(str(path))),
    "load .npz": (".npz", lambda path, _: vit_jax.load(path)),
    "load .pth": (".pth", lambda path, _: vit_jax.load(str(path))),
    "load a folder": (".safetensors", in_folder("model.safetensors", vit_jax.load)),
    "load an index": (".json", in_folder("model.safetensors.index.json", vit_jax.load)),
    "Predictor": ("", lambda path, _: vit_jax.Predictor.load(path)),
    "Classifier": ("", lambda path, _: vit_jax.Classifier.load(path)),
    "Classifier.fit": ("", lambda path, _: vit_jax.Classifier("vit_mu_patch4_8").fit(path)),
    "ZeroShotClassifier": ("", lambda path, _: vit_jax.ZeroShotClassifier.load(str(path), ["a", "b"])),
    "tokenizer": (".json", lambda path, _: Tokenizer.load(str(path), TEXT)),
    "sentencepiece": (".model", lambda path, _: Tokenizer.load(str(path), TEXT)),
    "config .py": (".py", lambda path, _: load_config(str(path))),
    "config .json": (".json", lambda path, _: load_config(str(path))),
    "evaluate": ("", lambda path, _: vit_jax.evaluate(path)),
    "a step": ("", in_folder("link", step_of)),
    "metadata of a step": ("", in_folder("link", metadata_of)),
    "convert": ("", lambda path, place: convert(str(path), place, "timm")),
    "folder": ("", lambda path, _: source("folder", path)),
    "an image": (".png", beside_images("train/cat/2.png", lambda root: all_records(source("folder", root)))),
    "arrays": (".npz", in_folder("train.npz", lambda place: source("arrays", place))),
    "tfds": ("", lambda path, _: source("tfds", path)),
    "dataset_info": (".json", in_folder("dataset_info.json", lambda place: source("tfds", place))),
    "data check": ("", lambda path, _: check(path, workers=1)),
    "prepare": ("", lambda path, place: prepare(path, place, workers=1)),
    "prepare an image": (
        ".png",
        beside_images("train/cat/2.png", lambda root: prepare(root, root / "out", name="x", workers=1)),
    ),
    "prepare archives": (
        ".tar",
        in_folder(
            "ILSVRC2012_img_val.tar",
            lambda root: prepare(root, root / "out", splits=["validation"], workers=1),
        ),
    ),
    "prepare a devkit": (
        ".gz",
        in_folder(
            "ILSVRC2012_devkit_t12.tar.gz", lambda root: prepare(with_archive(root), root / "out", workers=1)
        ),
    ),
    "predict": (".png", lambda path, place: command("predict", "--workdir", two_classes(place), path)),
    "features": (
        ".png",
        lambda path, place: command(
            "features", "--workdir", two_classes(place), "--output", place / "x.npz", path
        ),
    ),
    "train": (".py", lambda path, place: command("train", "--config", path, "--workdir", place)),
}
# What is in order: an image that cannot be decoded is told when it is, and not when it is read.
FINE = {("an image", "garbage"), ("an image", "empty")}


def with_archive(root):
    import tarfile

    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w"):
        pass
    return root


def command(*arguments):
    outcome = run(*arguments)
    assert outcome.err.count("\n") == 1
    assert "vit-jax: " in outcome.err
    assert outcome.status > 1
    raise VitError(outcome.err.strip())


@pytest.mark.parametrize("name", LOADERS)
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ending, action = LOADERS[name]
    for kind, path in bad_paths(tmp_path / "bad", ending).items():
        begun, line = time.process_time(), None
        try:
            action(path, tmp_path / kind)
        except VitError as error:
            line = str(error)
        except pytest.skip.Exception:  # of this kind alone: no file system has a link to it
            continue
        assert line is not None or (name, kind) in FINE, kind
        assert line is None or (is_printable(line) and len(line) < 2100), kind
        assert time.process_time() - begun < SECONDS, kind


def test_files_that_may_not_be_read(tmp_path):
    # As another user, since root reads everything.
    code = """
import os, sys
from vit_jax.errors import VitError
from vit_jax.training.config import load_config
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.data.images.decode import load_image
from vit_jax.data.sources.folder import FolderSource
if os.geteuid() == 0:
    os.seteuid(65534)
for action, name in ((load_config, "secret.py"), (load_config, "secret.json"), (open_checkpoint, "secret"),
                     (load_image, "secret.png"), (lambda path: FolderSource(path, "train"), "folder")):
    try:
        action(f"{sys.argv[1]}/{name}")
    except VitError as error:
        print(type(error).__name__, error)
"""
    for name in ("secret.py", "secret.json", "secret", "secret.png"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0)
    (tmp_path / "folder").mkdir(mode=0)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.owner() == Path("/proc/self").owner() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    process = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    lines = process.stdout.splitlines()
    assert len(lines) == 5, process.stdout + process.stderr
    assert [line.split()[0] for line in lines] == ["ResourceError"] * 3 + ["DataError"] * 2
    assert all("secret" in line or "folder" in line for line in lines)


def test_reading_is_bounded(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_file(file, 5) == b"12345"
    with open_file(file) as opened:
        assert opened.read() == b"12345"
    with pytest.raises(OSError, match="5 bytes, more than the 4"):
        read_file(file, 4)


# --- messages


def test_messages_are_one_printable_line():
    assert printable("a\nb\x1b[31m\udcff‮é\u200d") == r"a\nb\x1b[31m\udcff\u202eé" + "\u200d"
    assert str(DataError("bad\nname")) == r"bad\nname"
    line = str(DataError("begins" + "x" * 10**6 + "ends"))
    assert len(line) < 2010
    assert line.startswith("begins")
    assert line.endswith("ends")


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\udcff", "a\0b", "‮", "x" * 256])
def test_outputs_have_names_that_can_be_printed(tmp_path, name):
    with pytest.raises(ConfigError):
        check_output(tmp_path / name, "--workdir")
    outcome = run("train", "--config", "x.py", "--workdir", f"{tmp_path}/{name}")
    assert outcome.status == 2
    assert outcome.err.startswith("vit-jax: --workdir is")
    with pytest.raises(ConfigError):
        prepare(two_classes(tmp_path / "in"), tmp_path / name)
    assert os.listdir(tmp_path) == ["in"]


def test_names_of_classes_can_be_printed(tmp_path):
    root = two_classes(tmp_path / "in")
    (root / "train" / "cat").rename(root / "train" / "c\nat")
    with pytest.raises(DataError, match=r"class folder 'c\\nat' in .* rename it"):
        source("folder", root)


# --- data sets that would run code


def prepared(tmp_path):
    return prepare(two_classes(tmp_path / "in"), tmp_path / "out", name="x", workers=1).directory


def test_metadata_of_a_data_set_import_nothing(tmp_path, monkeypatch):
    directory = prepared(tmp_path)
    (tmp_path / "evil_module.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    features = json.loads((directory / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["pythonClassName"] = "evil_module.Feature"
    (directory / "features.json").write_text(json.dumps(features))
    with pytest.raises(DataError, match=r"names 'evil_module.Feature', which is not part of tfds"):
        TfdsSource("", "train", str(directory))
    with pytest.raises(DataError, match="evil_module"):
        check(directory, workers=1)
    assert not Path("ran").exists()
    assert "evil_module" not in sys.modules
    importlib.import_module("evil_module")
    assert Path("ran").exists(), "the test would not notice an import"


@pytest.mark.parametrize(
    "name", ["kaggle:cats", "huggingface:mnist", "someone:data/x", "../x", "a b", "mnist/x=1"]
)
def test_names_of_data_sets_fetch_no_code(tmp_path, name):
    with pytest.raises(DataError, match="without a namespace"):
        TfdsSource(name, "train", str(tmp_path))


# --- labels


def test_labels_are_checked_where_they_are_read(tmp_path):
    directory = prepared(tmp_path)
    (labels,) = directory.glob("*train.labels.npy")
    for content in (np.array([0.0, np.nan]), np.array([0], np.int32)):
        np.save(labels, content)
        with pytest.raises(DataError, match="not one whole number per record"):
            check(directory, "train", workers=1)
    np.save(labels, np.array([5, 5], np.int32))
    findings = check(directory, "train", workers=1).splits["train"].bad_labels
    assert findings.count == 2
    assert "but 5 in the file of labels" in findings.examples[0]


# --- the long scripts, in short


def script(name, *arguments):
    process = run_benchmark(BENCHMARKS / f"{name}.py", *map(str, arguments))
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout


def test_damaged_data_sets(tmp_path):
    script("fuzz_datasets", "--files", 240, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["failures"] == []
    kinds = {name.split()[0] for name in report["counts"]}
    assert kinds == {"npz", "tar", "devkit", "tfrecord", "array_record", "json", "npy", "checkpoint"}
    assert report["loaded"] > 0
    assert report["refused"] > 0


def test_wrong_configurations(tmp_path):
    script("fuzz_configs", "--files", 240, "--json", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["refused"] > 160


def test_every_key_with_every_mistake(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fuzz_configs = importlib.import_module("fuzz_configs")
    (tmp_path / "config.json").write_text("{}")
    refused = 0
    for before, key, value, wrong in fuzz_configs.every_case():
        if not wrong:
            continue
        with pytest.raises(ConfigError) as caught:
            load_config(str(tmp_path / "config.json"), [*before, f"{key}={value}"])
        # A section that lost a letter is told as what it is now.
        assert printable(key.rpartition(".")[2]) in str(caught.value), (key, value[:40])
        refused += 1
    assert refused >= 2000


def test_the_command_refuses_quickly(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code = (
        "import sys, time; from vit_jax.cli import main; status = main(sys.argv[1:]); "
        "print(status, 'jax' in sys.modules, time.process_time())"
    )
    for override in (
        "optimizer.learning_rat=1",
        "data.batch_size=1e99",
        "data.train_transforms=decode|resise(8)",
    ):
        command = [
            "train",
            "--config",
            tmp_path / "config.json",
            "--workdir",
            tmp_path / "run",
            f"--config.{override}",
        ]
        process = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
        )
        status, jax, seconds = process.stdout.split()
        assert (status, jax) == ("2", "False")
        assert process.stderr.count("\n") == 1
        assert float(seconds) < 2  # a tenth to a third of a second where nothing else runs
    assert not (tmp_path / "run").exists()


def test_no_malicious_pickle_is_executed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    attacks = importlib.import_module("pickle_attacks")
    canary = tmp_path / "ran"
    files = attacks.corpus(canary)
    assert len(attacks.programs(canary)) > 100
    assert len(files) > 400
    events = []
    sys.addaudithook(
        lambda event, _: events.append(event) if event.startswith(("os.system", "subprocess")) else None
    )
    for name, content in files.items():
        (tmp_path / "weights").write_bytes(content)
        with pytest.raises(VitError):
            open_checkpoint(tmp_path / "weights")
        assert not canary.exists(), name
    assert events == []
    assert os.listdir(tmp_path) == ["weights"]


def test_the_pickles_are_malicious(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    attacks = importlib.import_module("pickle_attacks")
    canary = tmp_path / "ran"
    programs = attacks.programs(canary)
    for name in ("os.system REDUCE", "INST", "OBJ", "STACK_GLOBAL", "BUILD of state", "operator.attrgetter"):
        (tmp_path / "pickle").write_bytes(programs[name])
        code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
        subprocess.run([sys.executable, "-c", code, tmp_path / "pickle"], capture_output=True, check=False)
        assert canary.exists(), name
        canary.unlink()


def test_edited_checkpoints():
    assert "0 failed" in script("edit_checkpoints", "--edits", 20)


def test_hostile_names():
    assert "0 failed" in script("hostile_names", "--names", 160)


def test_writing_elsewhere_would_be_noticed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    watch = importlib.import_module("hostile_names").Watch(tmp_path / "inside")
    (tmp_path / "inside").mkdir()
    watch.on = True
    (tmp_path / "inside" / "x").write_text("x")
    assert watch.outside == []
    (tmp_path / "y").write_text("y")
    watch.on = False
    assert watch.outside == [("open", str(tmp_path / "y"))]


# --- what is not in the package

# Each with the files that may have it, and why.
FORBIDDEN = {
    r"import (c?pickle|marshal|shelve)\b|from (pickle|marshal|shelve) |pickle\.loads?\(|Unpickler": {},
    r"allow_pickle(?!=False)|torch\.load\(|weights_only": {},
    r"(?<![\w.])(eval|exec|compile)\(": {},
    r"yaml|joblib|\bdill\b|loadmat|trust_remote_code": {},
    r"exec_module": {"training/config/load.py": "configurations are Python, from local files only"},
    r"shell=True|os\.system|os\.popen|subprocess": {
        "training/guard/supervisor.py": "the same command again, as a list of arguments"
    },
    r"extractall|\.extract\(|mktemp\(": {},
    r"verify=False|CERT_NONE|_create_unverified": {},
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_the_package_has_nothing_that_executes_data(pattern):
    found = {
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if re.search(pattern, path.read_text())
    }
    assert found <= FORBIDDEN[pattern].keys()


def test_checkpoints_are_no_folder_of_files(tmp_path):
    with pytest.raises(VitError):
        Checkpoints(tmp_path / "a\0b")
