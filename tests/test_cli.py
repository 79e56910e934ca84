"""The commands, as a user types them: what they print, what they return, what they import."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runs import CONFIG, run
from vit_jax import cli
from vit_jax.errors import Preempted
from vit_jax.models.names.resolve import list_models
from vit_jax.training.report.metrics import PHASES
from vit_jax.version import __version__

# Runs commands in a process that has imported nothing yet, and tells after each what has been imported.
WITHOUT_IMPORTS = """
import contextlib, io, json, sys
from vit_jax.cli import main
heavy = {"jax", "jaxlib", "flax", "orbax", "optax", "grain", "sklearn", "scipy", "cv2", "PIL", "matplotlib", "numpy"}
outcomes = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    outcomes.append([status, out.getvalue(), err.getvalue(), sorted(heavy & set(sys.modules))])
print(json.dumps(outcomes))
"""

INFORMATION = [
    "--help",
    "",
    "train --help",
    "evaluate --help",
    "predict --help",
    "features --help",
    "convert --help",
    "models --help",
    "data --help",
    "data prepare --help",
    "data check --help",
    "data show --help",
    "export --help",
    "benchmark --help",
    "--version",
    "models",
    "models deit* --json",
    "models ViT-B/16",
]
TRAIN = "train --config tiny.py --workdir nowhere"
# A command, and what the one line must contain: the thing, the bad value, what to do instead.
MISTAKES = [
    (
        "trian",
        "unknown command 'trian'; commands are train, evaluate, predict, features, convert, export, data, models, "
        "benchmark, plan, replay. Did you mean",
    ),
    ("--frob", "unknown argument '--frob'; see vit-jax --help"),
    (f"{TRAIN} --frob", "unknown argument '--frob'; see vit-jax train --help"),
    ("models 'vit*' 'deit*'", "unknown argument 'deit*'; see vit-jax models --help"),
    ("train --config tiny.py", "required: --workdir; see vit-jax train --help"),
    ("train --workdir nowhere", "required: --config"),
    ("predict --workdir nowhere", "required: IMAGE"),
    ("predict a.png", "one of the arguments --workdir --checkpoint --exported is required"),
    ("predict a.png --workdir a --checkpoint b", "--checkpoint: not allowed with argument --workdir"),
    (
        "evaluate --checkpoint timm/x --step 3",
        "--step selects one of a run's checkpoints; give its --workdir",
    ),
    ("evaluate --checkpoint timm/x --best", "--best selects one of a run's checkpoints"),
    (
        "evaluate --workdir a --weights ema",
        "--weights is 'ema'; it selects weights within a published --checkpoint",
    ),
    ("features --checkpoint timm/x a.png", "required: --output"),
    ("features --checkpoint timm/x --output a.txt a.png", "--output is 'a.txt'; it must end with .npz"),
    (
        "features --checkpoint timm/x --output a.npz --batch-size 0 .",
        "--batch-size is 0; it must be at least 1",
    ),
    ("convert a b", "required: --format"),
    ("convert a b --format torch", "invalid choice: 'torch' (choose from"),
    (f"{TRAIN} --config.lora.rank=-1", "lora.rank is -1; it must be at least 0"),
    (
        f"{TRAIN} --config.lora.rank=4 '--config.lora.targets=()'",
        "lora.targets is empty; name layers to adapt",
    ),
    (
        f"{TRAIN} --config.lora.target=q",
        "'lora.target' is not a configuration key. Did you mean 'lora.targets'",
    ),
    (f"{TRAIN} --config.model.chekpoint=timm/x", "Did you mean 'model.checkpoint'"),
    (
        f"{TRAIN} --config.model.checkpoint=timm/x '--config.model.ignore=(1,)'",
        "model.ignore is (1,); it must be a sequence of array names.",
    ),
    (f"{TRAIN} --config.model.name=facebook/vit-mae-base", "which is not a single image encoder"),
    ("evaluate --workdir nowhere --step 3 --best", "not allowed with argument"),
    ("evaluate --workdir nowhere --step last", "--step: invalid int value: 'last'"),
    ("predict --workdir nowhere a.png --top 0", "--top is 0; it must be at least 1"),
    (
        "predict --workdir nowhere a.png --max-megapixels 0",
        "--max-megapixels is 0.0; it must be a number above 0",
    ),
    ("predict --workdir nowhere a.png --bad ignore", "argument --bad: invalid choice: 'ignore'"),
    (
        "predict --workdir nowhere a.png --output x.txt",
        "--output is 'x.txt'; it must end with .csv, .jsonl, .parquet",
    ),
    (
        "predict --workdir nowhere a.png --output x.csv --json",
        "--json cannot be combined with --output; leave one out",
    ),
    ("predict --workdir nowhere a.png --config.seed=1", "unknown argument '--config.seed=1'"),
    (
        "train --config tinny.py --workdir nowhere",
        "config file 'tinny.py' does not exist. Did you mean 'tiny.py'?",
    ),
    ("train --config tiny --workdir nowhere", "config 'tiny' must be FILE.py"),
    ("train --config tiny.py:big --workdir nowhere", "takes no argument, but was given 'big'"),
    (
        f"{TRAIN} --config.optimizer.lerning_rate=1",
        "'optimizer.lerning_rate' is not a configuration key. Did you mean 'optimizer.learning_rate'",
    ),
    (
        "evaluate --workdir nowhere --config.data.pathh=x",
        "'data.pathh' is not a configuration key. Did you mean 'data.path'",
    ),
    (f"{TRAIN} --config.optimizer=adamw", "optimizer is a section; set one of its keys: optimizer."),
    (f"{TRAIN} --config.seed", "--config.seed has no value; write --config.seed=VALUE"),
    (f"{TRAIN} --config.seed --config.duration=3", "--config.seed has no value"),
    (f"{TRAIN} --config.data.batch_size=many", "data.batch_size is 'many'; it must be an integer"),
    (f"{TRAIN} --config.optimizer.b1=1.5", "optimizer.b1 is 1.5; it must be at least 0 and below 1"),
    (
        f"{TRAIN} '--config.duration=3 weeks'",
        "duration is '3 weeks'; it must be a number with its unit: 500, '500 steps'",
    ),
    (f"{TRAIN} --config.optimizer.name=adam", "optimizer.name is 'adam'; it must be one of adamw, sgd"),
    (
        f"{TRAIN} --config.model.name=vit_tini_patch16_224",
        "model 'vit_tini_patch16_224' does not exist. Did you mean 'vit_tiny_patch16_224'",
    ),
    (
        f"{TRAIN} --config.model.widht=3",
        "'model.widht' is not a configuration key. Did you mean 'model.width'",
    ),
    (
        f"{TRAIN} --config.objective.name=clasification",
        "objective.name is 'clasification'; it must be one of",
    ),
    (
        f"{TRAIN} --config.model.image_size=10",
        "image_size has height 10, not divisible by patch size 4; the nearest sizes are 8 or 12.",
    ),
    (f"{TRAIN} --config.accumulation=5", "accumulation is 5, which does not divide data.batch_size 64"),
    (f"{TRAIN} --config.data.source=folder", "data.path is empty; data.source 'folder' needs it"),
    (f"{TRAIN} --config.data.source=tfds", "data.name or data.path is empty; data.source 'tfds' needs it"),
    (
        "models vit_bse_patch16_224",
        "model 'vit_bse_patch16_224' does not exist. Did you mean 'vit_base_patch16_224'",
    ),
    (
        "train --config tiny.py --workdir nowhere --profile 5:x",
        "--profile 5:x: it must be FIRST:LAST or one step, for example 10:20.",
    ),
    (
        "train --config tiny.py --workdir nowhere --profile 6:5",
        "--profile 6:5: FIRST must be at least 1 and not above LAST",
    ),
    ("benchmark vit_tny_patch16_224", "does not exist. Did you mean 'vit_tiny_patch16_224'"),
    ("benchmark ViT-Ti/16 --batch-sizes 1,0", "--batch-sizes is '1,0'; it must be positive whole numbers"),
    ("benchmark ViT-Ti/16 --dtype float16", "--dtype is 'float16'; it must be one of float32, bfloat16"),
    ("benchmark ViT-Ti/16 --storage int4", "--storage is 'int4'; it must be one of float32, bfloat16, int8"),
    (
        "benchmark ViT-Ti/16 --train --storage int8",
        "--storage applies to prediction, and training keeps parameters in float32",
    ),
    ("benchmark ViT-Ti/16 --seconds 0", "--seconds is 0; it must be above 0 and at most 3600."),
    ("benchmark ViT-Ti/16 --image-size 100", "image_size has height 100, not divisible by patch size 16"),
    ("models ViT-Q/16", "model 'ViT-Q/16' does not exist. Did you mean 'ViT-"),
    ("models 'alexnet*'", "no model matches 'alexnet*'; `vit-jax models` lists them all."),
]


def vit_jax(code_or_arguments, folder, **options):
    """A fresh process; the package is found as the tests found it."""
    path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    return subprocess.run(
        [sys.executable, *code_or_arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "100"},
        text=True,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def instant(tmp_path_factory):
    """Status, output, error and heavy imports of every command that must answer at once."""
    folder = tmp_path_factory.mktemp("startup")
    (folder / "tiny.py").write_text(CONFIG)
    commands = [*INFORMATION, *dict(MISTAKES)]
    arguments = json.dumps([shlex.split(command) for command in commands])
    process = vit_jax(["-c", WITHOUT_IMPORTS, arguments], folder, capture_output=True)
    assert process.returncode == 0, process.stderr
    assert not (folder / "nowhere").exists()
    return dict(zip(commands, json.loads(process.stdout)))


@pytest.mark.parametrize("command", INFORMATION)
def test_information_is_instant(instant, command):
    status, out, err, heavy = instant[command]
    assert (status, err, heavy) == (0, "", [])
    assert out.endswith("\n")


@pytest.mark.parametrize(("command", "expected"), MISTAKES)
def test_a_mistake_is_told_at_once_in_one_line(instant, command, expected):
    status, out, err, heavy = instant[command]
    assert (status, out, heavy) == (2, "", [])
    assert err.startswith("vit-jax: ")
    assert err.count("\n") == 1
    assert expected in err


def test_help_names_commands_and_overrides(instant):
    for command in cli.COMMANDS:
        assert command in instant["--help"][1]
    assert instant[""][1] == instant["--help"][1]
    assert "--config.optimizer.learning_rate=3e-4" in instant["train --help"][1]
    assert instant["--version"][1] == f"vit-jax {__version__}\n"


def test_a_process_ends_with_the_status_and_no_traceback(tmp_path):
    process = vit_jax(["-m", "vit_jax.cli", "trian"], tmp_path, capture_output=True)
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        process = vit_jax(["-m", "vit_jax.cli", "models"], tmp_path, stdout=gone, stderr=subprocess.PIPE)
    assert (process.returncode, process.stderr) == (0, "")


# --- models


def test_models_table():
    outcome = run("models", "vit_*_patch16_224")
    header, *rows = outcome.out.splitlines()
    assert header.split() == ["name", "parameters", "GFLOPs", "input"]
    assert [row.split()[0] for row in rows] == list_models("vit_*_patch16_224")
    assert ["vit_base_patch16_224", "86,567,656", "35.1", "224x224"] in [row.split() for row in rows]
    assert len({len(line) for line in (header, *rows)}) == 1


def test_models_as_json():
    rows = run("models", "--json").json()
    assert [row["name"] for row in rows] == list_models()
    base = next(row for row in rows if row["name"] == "vit_base_patch16_224")
    assert base["parameters"] == 86_567_656
    assert base["input_size"] == "224x224"
    assert base["gflops"] == pytest.approx(35.1, abs=0.05)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("ViT-B/16", "vit_base_patch16_224"),
        ("b/32", "vit_base_patch32_224"),
        ("ViT-G/14@448", "vit_gigantic_patch14_448"),
        ("vit_mu_patch4_8", "vit_mu_patch4_8"),
        ("vit_small_patch16_224", "vit_small_patch16_224"),
    ],
)
def test_models_knows_aliases_and_unlisted_sizes(name, canonical):
    assert [row["name"] for row in run("models", name, "--json").json()] == [canonical]


def test_models_names_the_weights_of_one_architecture():
    names = [row["name"] for row in run("models", "ViT-B/16", "--pretrained", "--json").json()]
    assert "vit_base_patch16_224.augreg_in21k" in names
    assert {name.partition(".")[0] for name in names} == {"vit_base_patch16_224"}


# --- train


def summary_of(workdir):
    return json.loads((workdir / "summary.json").read_text())


def test_train_says_what_came_out_and_where_it_is(trained):
    outcome, workdir = trained.outcome, Path(trained.workdir)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith("step 6: accuracy 0.")
    assert lines[1].startswith("for comparison, on the same split: nearest neighbour 0.9")
    assert lines[2].startswith("time: compile ")
    # A slow machine takes minutes, which are written in another form.
    shares = re.fullmatch(r"goodput: (\d+\.\d)% of (\d+\.\d s|\d+ min); the rest: (.*)", lines[3])
    elapsed = json.loads((workdir / "summary.json").read_text())["goodput"]["elapsed"]
    assert shares[2] == (f"{elapsed:.1f} s" if elapsed < 120 else f"{elapsed / 60:.0f} min")
    rest = dict(part.removesuffix("%").rsplit(" ", 1) for part in shares[3].split(", "))
    # A phase too short to show is left out; restoring nothing shows only on a busy machine.
    assert [name for name in rest if name != "restore"][:2] == ["startup", "compile"]
    assert set(rest) <= {name.replace("_", " ") for name in PHASES}
    assert float(shares[1]) + sum(map(float, rest.values())) == pytest.approx(100, abs=0.5)
    assert " images/s, " in lines[4]
    assert lines[5:] == [f"checkpoint: {workdir}/checkpoints/6", f"figure: {workdir}/illustration.png"]
    with Image.open(workdir / "illustration.png") as figure:
        assert min(figure.size) > 100
    assert "step 3  evaluation: accuracy" in outcome.err
    begins = outcome.err.splitlines()
    names = "0, 1, 2, 3, 4, ..."
    assert begins[0] == f"data: 1,437 training records, 360 evaluation records; 10 classes ({names})"
    size = f"{summary_of(workdir)['parameters']:,}"
    assert re.fullmatch(rf"model: vit_mu_patch4_8, {size} parameters, [\d.]+ kFLOPs per image, .*", begins[1])
    assert begins[2].startswith("run: 6 steps of 64 images, 0.267 epochs; float32 on 8 x cpu (mesh data 8)")
    assert begins[3] == "compiling ..."
    assert re.fullmatch(r"step 1/6  loss .* accuracy .*|step 1/6  .*loss .*", begins[4])
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["step"] == 6
    assert f"accuracy {summary['metrics']['accuracy']:.4f}" in lines[0]
    assert (summary["checkpoint"], summary["figure"]) == ("checkpoints/6", "illustration.png")


def test_train_again_only_reports(trained, copied):
    fingerprint = json.loads((copied / "summary.json").read_text())["fingerprint"]
    outcome = run("train", "--config", trained.config, "--workdir", copied)
    assert outcome.status == 0
    assert outcome.err == "resuming after step 6\n"
    assert outcome.out.splitlines()[0] == trained.outcome.out.splitlines()[0]
    assert json.loads((copied / "summary.json").read_text())["fingerprint"] == fingerprint


def test_both_ways_to_write_an_override(monkeypatch, tmp_path):
    from vit_jax.training import loop

    seen = []

    def train(config, workdir, **options):
        seen.append((config, workdir, options))
        raise Preempted("stopped")

    monkeypatch.setattr(loop, "train", train)
    config = tmp_path / "tiny.py"
    config.write_text(CONFIG)
    outcome = run(
        *("train", "--config", config, "--workdir", "w", "--allow-change", "seed", "--allow-change", "mesh"),
        *("--config.seed=7", "--config.duration", "2 epochs", "--config.mesh.data", "-1"),
        *("--config.data.train_transforms=flip_lr", "--config.optimizer.decay=('kernel$', 'bias$')"),
    )
    assert (outcome.status, outcome.err) == (75, "vit-jax: stopped\n")
    (config, workdir, options) = seen[0]
    assert (config.seed, config.duration, config.mesh.data) == (7, "2 epochs", -1)
    assert (config.data.train_transforms, config.optimizer.decay) == ("flip_lr", ("kernel$", "bias$"))
    assert workdir == "w"
    assert 0 < options.pop("begun") <= time.monotonic()
    assert options.pop("peers") is not None
    assert options == {"allow_change": ["seed", "mesh"], "profile": None}


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (Preempted("stopped"), 75)])
def test_what_ends_a_command_is_in_its_status(monkeypatch, error, status):
    def stop(arguments):
        raise error

    monkeypatch.setattr(cli.COMMANDS["models"], "run", stop)
    outcome = run("models")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (status, "", 1)


def test_a_bug_keeps_its_traceback(monkeypatch):
    def fail(arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli.COMMANDS["models"], "run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run("models")


# --- evaluate


def metrics_of(trained, step):
    lines = map(json.loads, (Path(trained.workdir) / "metrics.jsonl").read_text().splitlines())
    found = next(line for line in lines if line["step"] == step and "eval/accuracy" in line)
    return {name.removeprefix("eval/"): value for name, value in found.items()}


def measured(outcome):
    """The metrics of `evaluate --json`, without the report on them."""
    found = outcome.json()
    return {name: found[name] for name in ("step", "accuracy", "loss", "top5_accuracy")}


def test_evaluate_gives_what_training_measured(trained):
    expected = metrics_of(trained, 6)
    outcome = run("evaluate", "--workdir", trained.workdir, "--json")
    assert measured(outcome) == pytest.approx(expected, rel=1e-6)
    found = outcome.json()
    assert (found["split"], found["records"], found["skipped"]) == ("test", 360, 0)
    written = json.loads((Path(trained.workdir) / "report.json").read_text())
    assert {"split": "test", **found["report"]} == written
    assert written["accuracy"] == expected["accuracy"]
    assert written["top5_accuracy"] == expected["top5_accuracy"]


def test_evaluate_says_what_was_evaluated_and_each_class(trained):
    expected = metrics_of(trained, 6)
    lines = run("evaluate", "--workdir", trained.workdir).out.splitlines()
    assert lines[0] == "step 6, 360 records of split 'test', 10 classes"
    values = dict(line.split() for line in lines[1:7])
    found = json.loads((Path(trained.workdir) / "report.json").read_text())
    for name in ("accuracy", "loss", "top5_accuracy"):
        assert float(values[name]) == pytest.approx(expected[name], rel=1e-5)
    assert float(values["balanced_accuracy"]) == pytest.approx(found["balanced_accuracy"], rel=1e-5)
    table = [line.split() for line in lines[lines.index("") + 1 :]]
    assert table[0] == ["class", "records", "precision", "recall", "f1"]
    for row, one in zip(table[1:11], found["classes"], strict=True):
        scores = [one[name] for name in ("precision", "recall", "f1")]
        expected_row = [one["class"], str(one["records"])]
        assert row == [*expected_row, *("-" if score is None else f"{score:.4f}" for score in scores)]
    pair = found["most_confused"][0]
    pairs = lines[lines.index("most confused") + 1 :]
    expected_pair = [pair["label"], "as", pair["prediction"], str(pair["records"]), f"{pair['share']:.1%}"]
    assert pairs[0].split() == expected_pair


def test_evaluate_writes_predictions_and_a_picture(trained, tmp_path):
    table, picture = tmp_path / "new" / "predictions.jsonl", tmp_path / "report.png"
    files = ("--output", table, "--figure", picture)
    found = run("evaluate", "--workdir", trained.workdir, "--json", *files).json()
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [row["record"] for row in rows[:2]] == [f"record {i} of the digits (test)" for i in (0, 1)]
    assert len(rows) == 360
    assert np.mean([row["label"] == row["prediction"] for row in rows]) == found["accuracy"]
    assert np.mean([row["label"] in row["classes"] for row in rows]) == found["top5_accuracy"]
    for row in rows:
        assert (row["prediction"], row["probability"]) == (row["classes"][0], row["probabilities"][0])
        assert row["probabilities"] == sorted(row["probabilities"], reverse=True)
    with Image.open(picture) as image:
        assert image.format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "report.png"]


@pytest.mark.parametrize(
    ("option", "file", "message"),
    [
        ("--output", "table.xlsx", "must end with .csv, .jsonl, .parquet"),
        ("--figure", "report.jpg", "must end with .png"),
    ],
)
def test_evaluate_names_bad_files_before_any_work(option, file, message):
    outcome = run("evaluate", "--workdir", "nowhere", option, file)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err


def test_evaluate_any_checkpoint(trained):
    scores = {step: metrics_of(trained, step) for step in (3, 6)}
    by_step = run("evaluate", "--workdir", trained.workdir, "--step", "3", "--json")
    assert measured(by_step) == pytest.approx(scores[3], rel=1e-6)
    by_path = run("evaluate", "--workdir", f"{trained.workdir}/checkpoints/3", "--json")
    assert by_path.json() == by_step.json()
    best = run("evaluate", "--workdir", trained.workdir, "--best", "--json").json()
    assert best["accuracy"] == max(score["accuracy"] for score in scores.values())


def test_evaluate_on_other_data(trained, tmp_path):
    # Every image twice: the same accuracy, if all of them are counted once.
    from vit_jax.data.sources.digits import open_digits

    digits = open_digits("test")
    every = np.arange(len(digits)).repeat(2)
    records = digits.take(every)
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", images=records["image"], labels=records["label"])
    outcome = run(
        *("evaluate", "--workdir", trained.workdir, "--json", "--config.data.eval_batch_size=56"),
        *("--config.data.source=arrays", "--config.data.path", tmp_path),
    )
    assert outcome.json()["report"]["records"] == 720
    assert measured(outcome) == pytest.approx(metrics_of(trained, 6), rel=1e-6)


# --- predict


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    from vit_jax.data.sources.digits import open_digits

    folder, digits = tmp_path_factory.mktemp("pictures"), open_digits("test")
    for index in range(3):
        Image.fromarray(digits[index]["image"][..., 0]).save(folder / f"{index}.png")
    return [folder / f"{index}.png" for index in range(3)]


def test_predict_names_the_most_probable_classes(trained, pictures):
    rows = run("predict", "--workdir", trained.workdir, *pictures, "--json", "--top", "10").json_lines()
    assert [row["image"] for row in rows] == list(map(str, pictures))
    for row in rows:
        chances = [prediction["probability"] for prediction in row["predictions"]]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1, abs=1e-5)
        assert sorted(prediction["class"] for prediction in row["predictions"]) == list("0123456789")
    table = run("predict", "--workdir", trained.workdir, *pictures, "--top", "2")
    assert table.status == 0
    for line, row in zip(table.out.splitlines(), rows, strict=True):
        first, second = row["predictions"][:2]
        chances = "   ".join(f"{p['class']} {p['probability']:.1%}" for p in (first, second))
        assert line == f"{row['image']}   {chances}"


def test_predict_folders_beside_files(trained, pictures):
    folder = pictures[0].parent
    outcome = run("predict", "--workdir", trained.workdir, folder, pictures[2])
    by_name = run("predict", "--workdir", trained.workdir, *pictures, pictures[2])
    assert (outcome.status, outcome.out) == (0, by_name.out)
    (folder / "notes.txt").write_text("")
    again = run("predict", "--workdir", trained.workdir, folder)
    assert again.out.count("\n") == 3
    assert again.err.startswith("left out: ")
    assert ".txt" in again.err
    (folder / "notes.txt").unlink()


def test_predict_goes_on_after_bad_images(trained, pictures, tmp_path):
    bad, none = tmp_path / "bad.png", tmp_path / "none.png"
    bad.write_text("no image")
    command = ("predict", "--workdir", trained.workdir, pictures[0], bad, pictures[1], none)
    refused = run(*command)
    assert (refused.status, refused.out) == (3, "")
    outcome = run(*command, "--bad", "skip", "--json")
    assert outcome.status == 3
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["image"] for row in rows] == [str(pictures[0]), str(bad), str(pictures[1]), str(none)]
    assert (
        ["error" in row for row in rows]
        == ["predictions" not in row for row in rows]
        == [False, True, False, True]
    )
    first, second, last = outcome.err.splitlines()
    assert first.startswith(f"left out {bad}: not an image of a known format")
    assert second.startswith(f"left out {none} cannot be read: No such file")
    assert last == "vit-jax: 2 of 4 images could not be read and were left out; repair or remove them."
    small = run("predict", "--workdir", trained.workdir, pictures[0], "--max-megapixels", "0.00001")
    assert (small.status, small.err.count("\n")) == (3, 1)
    assert "more than the 1e-05 megapixels allowed; shrink or remove it, or allow more" in small.err
    table = run(*command, "--bad", "skip", "--top", "1").out.splitlines()
    assert [line.endswith("   cannot be read") for line in table] == [False, True, False, True]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_predict_writes_tables(trained, pictures, tmp_path, ending):
    rows = run("predict", "--workdir", trained.workdir, *pictures, "--json", "--top", "2").json_lines()
    output = tmp_path / f"predictions.{ending}"
    command = ("predict", "--workdir", trained.workdir, "--top", "2", "--output", output)
    outcome = run(*command, *pictures)
    assert (outcome.status, outcome.out, outcome.err) == (0, f"{output}: 3 images\n", "")
    lines = output.read_text().splitlines()
    for row, line in zip(rows, lines[ending == "csv" :], strict=True):
        classes, chances = zip(*(p.values() for p in row["predictions"]))
        if ending == "csv":
            assert line == ",".join(map(str, [row["image"], *classes, *chances]))
        else:
            expected = {"image": row["image"], "classes": [*classes], "probabilities": [*chances]}
            assert json.loads(line) == expected
    if ending == "csv":
        assert lines[0] == "image,classes_1,classes_2,probabilities_1,probabilities_2"
    bad = tmp_path / "bad.png"
    bad.write_text("")
    before = output.read_text()
    assert run(*command, pictures[0], bad).status == 3
    assert output.read_text() == before  # whole or not at all
    assert run(*command, pictures[0], bad, "--bad", "skip").status == 3
    last = output.read_text().splitlines()[-1]
    assert last.startswith(str(bad)) if ending == "csv" else json.loads(last)["image"] == str(bad)
    assert "the file is empty" in last


def test_predict_with_another_checkpoint(trained, pictures):
    newest, older, best = (
        run("predict", "--workdir", trained.workdir, pictures[0], "--json", *which).json()
        for which in ([], ["--step", "3"], ["--best"])
    )
    assert len(newest["predictions"]) == 5
    assert older != newest
    assert best in (newest, older)
