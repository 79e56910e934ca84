"""`vit-jax data`, as a user types it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.images import COLOURS, colour_folder
from tests.runs import CONFIG, run
from vit_jax.data.prepare.sheet import contact_sheet
from vit_jax.errors import ConfigError, DataError

FOLDER_CONFIG = CONFIG.replace(
    "    return config",
    """    config.data.update(source="folder", path=PATH, eval_split="val", batch_size=24, eval_batch_size=8)
    config.data.train_transforms = "decode|random_resized_crop(8)|flip_lr"
    config.data.eval_transforms = "decode|resize(8)"
    config.model.in_channels, config.evaluation.baselines = 3, ()
    return config""",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return colour_folder(tmp_path_factory.mktemp("images") / "colours")


@pytest.fixture(scope="module")
def config(folder):
    file = folder.parent / "tiny.py"
    file.write_text(FOLDER_CONFIG.replace("PATH", repr(str(folder))))
    return file


@pytest.fixture(scope="module")
def prepared(folder):
    """What the command said, and the directory that it wrote."""
    outcome = run("data", "prepare", folder, "--output", folder.parent / "out", "--workers", 1)
    return outcome, folder.parent / "out" / "colours" / "1.0.0"


def test_prepare(prepared, folder):
    outcome, directory = prepared
    assert outcome.status == 0, outcome.err
    first, second = outcome.out.splitlines()
    assert first.startswith(f"{directory}: train 36, val 12; 0.")
    assert second == f"to train on it: --config.data.source=tfds --config.data.path={directory}"
    again = run("data", "prepare", folder, "--output", folder.parent / "out")
    assert again.out.splitlines()[0].startswith(f"{directory} exists already: train 36")


def test_a_run_reads_it_by_path_alone(prepared, config):
    from vit_jax.training.config import load_config
    from vit_jax.training.experiment import build

    options = ["data.source=tfds", f"data.path={prepared[1]}", "data.balanced=True"]
    experiment = build(load_config(str(config), options))
    assert (len(experiment.data.train_source), len(experiment.data.eval_source)) == (36, 12)
    assert experiment.data.train_source.class_names == COLOURS


def test_what_is_left_out_is_told(folder, tmp_path):
    root = colour_folder(tmp_path / "colours", (2, 1))
    (root / "train" / "red" / "0.png").write_bytes(b"no image")
    outcome = run("data", "prepare", root, "--output", tmp_path / "out", "--bad", "skip")
    assert "left out 1, all listed in prepare.json:" in outcome.out
    assert f"  {root}/train/red/0.png: not an image of a known format" in outcome.out


def test_other_files_are_told_by_every_command(folder, tmp_path):
    root = tmp_path / "colours"
    shutil.copytree(folder, root)
    (root / "train" / "red" / "notes.txt").write_text("?")
    (root / "train" / "red" / "more").mkdir()
    shutil.copy(root / "train" / "red" / "0.png", root / "train" / "red" / "more" / "0.png")
    (root / "val" / "blue" / ".hidden.png").write_text("?")
    checked = run("data", "check", root, "--json").json()
    assert {name: (split["records"], split["left_out"]) for name, split in checked["splits"].items()} == {
        "train": (37, {".txt": 1}),
        "val": (12, {"hidden files": 1}),
    }
    assert "\n  left out: .txt 1\n" in run("data", "check", root, "--split", "train").out
    for _ in range(2):
        done = run("data", "prepare", root, "--output", tmp_path / "out", "--workers", 1)
        assert "train 37, val 12" in done.out
        assert "\nleft out: .txt 1, hidden files 1\n" in done.out
    config = tmp_path / "tiny.py"
    config.write_text(FOLDER_CONFIG.replace("PATH", repr(str(root))))
    trained = run("train", "--config", config, "--workdir", tmp_path / "run", "--config.duration=1 steps")
    assert trained.status == 0, trained.err
    assert "training data: left out: .txt 1\n" in trained.out + trained.err
    assert "evaluation data: left out: hidden files 1\n" in trained.out + trained.err


def test_split_folders_are_stored_in_lower_case(folder, tmp_path):
    root = tmp_path / "colours"
    shutil.copytree(folder / "train", root / "Training")
    shutil.copytree(folder / "val", root / "Validation")
    done = run("data", "prepare", root, "--output", tmp_path / "out", "--workers", 1)
    assert "training 36, validation 12" in done.out, done.err
    assert set(run("data", "check", root, "--json").json()["splits"]) == {"Training", "Validation"}
    assert set(run("data", "check", root, "--split", "train", "--json").json()["splits"]) == {"train"}


def test_larger_images_are_refused_or_allowed(folder, config, tmp_path):
    """The largest size allowed is a key and an option."""
    from vit_jax.training.config import load_config
    from vit_jax.training.experiment import build

    with Image.open(folder / "train" / "red" / "0.png") as image:
        assert image.size == (48, 40)
    for command in (("check", folder), ("prepare", folder, "--output", tmp_path, "--workers", 1)):
        refused = run("data", *command, "--max-megapixels", 0.001)
        assert refused.status == 3
        assert (
            "the image has 48x40 pixels, more than the 0.001 megapixels allowed" in refused.out + refused.err
        )
        assert "data.max_megapixels" in refused.out + refused.err
        assert run("data", *command, "--max-megapixels", 0.002).status == 0
        for value in (0, "nan", -1, 20000):
            assert run("data", *command, "--max-megapixels", value).status == 2
    with pytest.raises(
        DataError, match=r"48x40 pixels, more than the 0\.001 megapixels.*data\.max_megapixels"
    ):
        build(load_config(str(config), ["data.max_megapixels=0.001"]))
    cached = ["data.max_megapixels=0.001", "data.cache=decoded", "data.train_transforms=resize(8)"]
    with pytest.raises(DataError, match=r"more than the 0\.001 megapixels"):
        build(load_config(str(config), cached))
    with pytest.raises(ConfigError, match=r"data\.max_megapixels is 0"):
        load_config(str(config), ["data.max_megapixels=0"])
    allowed = build(load_config(str(config), ["data.max_megapixels=100"]))
    # What predicts from the run knows it too.
    assert allowed.data.transforms[0].startswith("decode(max_megapixels=100.0)|random_resized_crop(8)")
    assert allowed.data.transforms[1] == "decode(max_megapixels=100.0)|resize(8)"
    assert build(load_config(str(config))).data.transforms[1] == "decode|resize(8)"
    own = ["data.max_megapixels=0.001", "data.train_transforms=decode(max_megapixels=1)|resize(8)"]
    own.append("data.eval_transforms=decode(max_megapixels=1)|resize(8)")
    assert build(load_config(str(config), own)).data.transforms[1] == "decode(max_megapixels=1)|resize(8)"


def test_check(prepared, folder, tmp_path):
    _, directory = prepared
    outcome = run("data", "check", directory)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[0] == "train: 36 records, 3 classes"
    assert {f"  class {name}: 12" for name in COLOURS} < set(lines)
    assert "  formats: PNG 36" in lines
    assert lines[-1] == "good"
    as_json = run("data", "check", directory, "--json", "--split", "val").json()
    assert as_json["good"]
    assert list(as_json["splits"]) == ["val"]
    root = colour_folder(tmp_path / "colours", (2, 1))
    (root / "train" / "red" / "0.png").write_bytes(b"no image")
    bad = run("data", "check", root)
    assert bad.status == 3
    assert "  unreadable: 1" in bad.out
    assert bad.out.endswith("bad: some records cannot be read or have no valid label\n")


def test_a_table_is_checked_shown_and_trained_on(folder, config, tmp_path):
    """The same records as those of the folder, so the same batches."""
    rows = ["file,kind,where"]
    for split in ("train", "val"):
        for name in COLOURS:
            files = sorted((folder / split / name).iterdir())
            rows += [f"{split}/{name}/{file.name},{name},{split}" for file in files]
    table = folder / "table.csv"
    table.write_text("\n".join(rows))
    outcome = run(
        "data", "check", table, "--image-column=file", "--label-column=kind", "--split-column=where"
    )
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[0] == "train: 36 records, 3 classes"
    assert outcome.out.splitlines()[-1] == "good"
    columns = ["--image-column=file", "--label-column=kind", "--split-column=where"]
    outcome = run("data", "prepare", table, "--output", tmp_path, *columns, "--workers", 1)
    assert outcome.out.startswith(f"{tmp_path}/table/1.0.0: train 36, val 12; 0."), outcome.err
    assert run("data", "check", tmp_path / "table" / "1.0.0").out.endswith("good\n")
    wrong = run("data", "check", table)
    assert (wrong.status, "has no column 'path', it has 'file', 'kind', 'where'" in wrong.err) == (3, True)
    from vit_jax.training.config import load_config
    from vit_jax.training.report.samples import samples

    columns = ["data.image_column=file", "data.label_column=kind", "data.split_column=where"]
    pictures = [
        samples(load_config(str(config), options), count=8)
        for options in ([], ["data.source=table", f"data.path={table}", *columns])
    ]
    np.testing.assert_array_equal(pictures[0][0], pictures[1][0])
    assert pictures[0][1] == pictures[1][1]


def test_show_is_what_the_run_sees(config, folder, tmp_path):
    from vit_jax.training.config import load_config
    from vit_jax.training.experiment import build
    from vit_jax.training.report.samples import samples

    loaded = load_config(str(config), [])
    batches = build(loaded).data.train_batches(3)
    batch = next(batches)
    batches.close()
    images, names = samples(loaded, count=5, step=3)
    np.testing.assert_array_equal(images, batch["image"][:5])
    assert names == [COLOURS[label] for label in batch["label"][:5]]
    others, _ = samples(loaded, count=5, step=3, seed=1)
    assert not np.array_equal(images, others)
    assert len(samples(loaded, count=100)[0]) == 24
    images, names = samples(loaded, train=False, count=8, step=1)
    assert len(images) == 4  # of twelve
    assert set(names) == {"red"}


def test_show_repeats_a_record_in_a_row(config):
    from vit_jax.training.config import load_config
    from vit_jax.training.report.samples import samples

    images, names = samples(load_config(str(config), []), count=6, repeats=3)
    assert names[0] == names[1] == names[2]
    assert names[3] == names[4] == names[5]
    assert len({image.tobytes() for image in images}) == 6
    # Noise that leans to the class's colour stays that colour however it is cropped.
    lean = [COLOURS[2 - int(image.mean((0, 1)).argmax())] for image in images]
    assert lean == names


def test_show_writes_a_sheet(config, tmp_path):
    output = tmp_path / "sheet.png"
    command = ["data", "show", "--config", config, "--output", output, "--rows", 2, "--columns", 3]
    outcome = run(*command, "--config.data.train_transforms=decode|resize(8)")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith(f"{output}: 6 samples, ")
    with Image.open(output) as sheet:
        assert sheet.size == (3 * 68 + 4, 2 * 84 + 4)
    assert run(*command, "--split", "eval", "--step", 9).err.startswith(
        "vit-jax: --step is 9, but the evaluation data has only 2 batches."
    )


@pytest.mark.parametrize(
    ("image", "corner"), [(np.full((9, 70, 1), 200, np.uint8), 200), (np.eye(9)[..., None], 255)]
)
def test_sheets_of_any_pictures(image, corner):
    sheet = contact_sheet([image] * 3, ["a", "b" * 99, ""], 2)
    assert sheet.getpixel((4, 4)) == (corner,) * 3


MISTAKES = [
    ("data", "the following arguments are required: ACTION; see vit-jax data --help"),
    ("data prepair x", "invalid choice: 'prepair'"),
    ("data prepare x", "required: --output"),
    (
        "data prepare x --output y --quality 80",
        "--quality applies to images that --short-side shrinks; give --short-side too",
    ),
    ("data prepare x --output y --workers -1", "--workers is -1; it must be at least 0"),
    (
        "data prepare x --output y --config.seed=1",
        "unknown argument '--config.seed=1'; see vit-jax data prepare",
    ),
    ("data check x --workers -1", "--workers is -1; it must be at least 0"),
    ("data check", "required: SOURCE"),
    ("data show --config tiny.py --output sheet.jpg", "--output is 'sheet.jpg'; it must end with .png."),
    ("data show --config tiny.py --output a.png --rows 0", "--rows is 0; it must be at least 1"),
    ("data show --config tiny.py --output a.png --step -1", "--step is -1; it must be at least 0"),
    ("data show --config tiny.py --output a.png --split eval --repeat", "--repeat shows random transforms"),
    ("data show --config none.py --output a.png", "config file 'none.py' does not exist"),
]


@pytest.mark.parametrize(("command", "expected"), MISTAKES)
def test_mistakes(command, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run(*command.split())
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert expected in outcome.err
    assert not list(tmp_path.iterdir())


def test_json_of_a_report_is_json(prepared):
    report = json.loads(run("data", "check", prepared[1], "--json").out)
    assert report["splits"]["train"]["classes"] == dict.fromkeys(COLOURS, 12)
