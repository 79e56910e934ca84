"""`vit-jax evaluate --probes`: of runs and of published checkpoints, with the data of the run or with any other."""

import pytest

import vit_jax
from tests.images import colour_folder
from tests.runs import run
from vit_jax.errors import ConfigError
from vit_jax.inference.probing import probe


def test_a_run_on_its_own_records(trained):
    found = run("evaluate", "--workdir", trained.workdir, "--probes", "knn,rank", "--json").json()
    assert {name: found[name] for name in ("step", "bank", "bank_split", "records", "split", "width")} == {
        "step": 6,
        "bank": 1437,
        "bank_split": "train",
        "records": 360,
        "split": "test",
        "width": 16,
    }
    assert 0.4 < found["knn20_accuracy"] < 1
    text = run("evaluate", "--workdir", trained.workdir, "--probes", "knn, rank").out.splitlines()
    assert text[0] == "step 6, 16 features of 1,437 records of split 'train', asked about 360 of split 'test'"
    assert f"knn20_accuracy       {found['knn20_accuracy']:.6g}" in text


def test_a_published_checkpoint_on_a_folder_of_other_classes(tmp_path):
    folder, file = colour_folder(tmp_path / "colours"), tmp_path / "model"
    vit_jax.save(
        vit_jax.create_model("vit_mu_patch4_8", width=16, depth=1, heads=2, mlp_dim=32, num_classes=7), file
    )
    data = ["--config.data.source=folder", f"--config.data.path={folder}", "--config.data.eval_split=val"]
    options = [
        "--probes",
        "knn,fewshot",
        "--config.evaluation.shots=(1,12)",
        "--config.evaluation.neighbours=(3,)",
    ]
    found = run("evaluate", "--checkpoint", file, *options, *data, "--json").json()
    assert found.keys() == {
        "knn3_accuracy", "fewshot1_accuracy", "fewshot12_accuracy", "bank_split", "split", "bank", "records", "width"
    }  # fmt: skip
    assert (found["bank"], found["records"], found["width"]) == (36, 12, 16)
    assert found["fewshot12_accuracy"] == 1  # colours show even in features of random parameters


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--probes", "nn"], "--probes is 'nn'; it must be one of knn, linear"),
        (
            ["--probes", "knn:3 epochs"],
            "--probes has 'knn:3 epochs', but here each probe runs once; write 'knn'",
        ),
        (["--probes", "rank", "--output", "x.csv"], "--output is about a head's predictions"),
        (
            ["--probes", "rank", "--storage", "int8"],
            "--storage is 'int8'; --probes uses parameters as they were saved",
        ),
        (
            ["--probes", "fewshot", "--config.evaluation.shots=(500,)"],
            "evaluation.shots has 500, but class '8' has 139 training records; set evaluation.shots=(139,).",
        ),
    ],
)
def test_what_is_refused(trained, options, expected):
    found = run("evaluate", "--workdir", trained.workdir, *options)
    assert found.status == 2
    assert expected in found.err
    assert len(found.err.splitlines()) == 1


def test_weights_are_of_published_files(trained):
    with pytest.raises(ConfigError, match="is a training run; leave out weights"):
        probe(trained.workdir, ("rank",), weights="teacher")
