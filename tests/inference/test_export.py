"""An exported classifier: the same probabilities, without the code of models; damage is told by name."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from vit_jax.cli import main
from vit_jax.data.digits import open_digits
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.inference.export import export_predictor
from vit_jax.inference.exported import DESCRIPTION, PARAMETERS, PROGRAM, ExportedPredictor, digest_of
from vit_jax.inference.predictor import Predictor
from vit_jax.weights import safetensors_format

DIGITS = open_digits("test").take(np.arange(6))


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor.load(run[1])


@pytest.fixture(scope="module", params=["float32", "int8"])
def exported(request, predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / request.param
    export_predictor(predictor.stored(request.param), folder)
    return request.param, folder


@pytest.mark.parametrize("count", [1, 6])
def test_probabilities_are_those_of_the_predictor(predictor, exported, count):
    storage, folder = exported
    expected = predictor.stored(storage).probabilities(DIGITS["image"][:count])
    np.testing.assert_allclose(
        ExportedPredictor.load(folder).probabilities(DIGITS["image"][:count]), expected, rtol=1e-5
    )


def test_it_says_what_it_is(predictor, exported):
    loaded = ExportedPredictor.load(exported[1])
    assert loaded.class_names == predictor.objective.data.class_names
    assert loaded.program.platforms == ("cpu", "cuda", "tpu")
    assert "stablehlo" in loaded.program.mlir_module()
    (row,) = loaded.predict(DIGITS["image"][:1], top=3)
    assert row.classes == predictor.stored(exported[0]).predict(DIGITS["image"][:1], top=3)[0].classes
    assert loaded.probabilities([]).shape == (0, 10)


def test_nothing_of_models_and_training_is_imported(exported):
    command = f"""import sys
from vit_jax.inference.exported import ExportedPredictor
ExportedPredictor.load({str(exported[1])!r})
heavy = {{"flax", "optax", "orbax", "grain", "sklearn", "scipy", "tensorflow_datasets"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", command], check=True, timeout=120)


def test_commands(run, tmp_path, capsys):
    folder, image = tmp_path / "exported", next((run[1] / "samples").glob("0_*.png"))
    assert main(["export", "--workdir", str(run[1]), "--storage", "bfloat16", str(folder)]) == 0
    assert "vit-jax predict --exported" in capsys.readouterr().out
    assert main(["predict", "--workdir", str(run[1]), "--storage", "bfloat16", "--json", str(image)]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert main(["predict", "--exported", str(folder), "--json", str(image)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [p["class"] for p in rows[0]["predictions"]] == [p["class"] for p in expected[0]["predictions"]]
    assert main(["export", "--workdir", str(run[1]), str(folder)]) == 2
    assert "is not an empty folder; export to another one" in capsys.readouterr().err
    assert main(["predict", "--exported", str(folder), "--storage", "int8", str(image)]) == 2
    assert "--storage cannot be changed of what was exported" in capsys.readouterr().err
    assert main(["predict", "--exported", str(tmp_path), str(image)]) == 4
    assert "description.json" in capsys.readouterr().err
    assert main(["evaluate", "--workdir", str(run[1]), "--storage", "int4"]) == 2
    assert "--storage is 'int4'; it must be one of float32, bfloat16, int8" in capsys.readouterr().err


@pytest.mark.parametrize("name", [PROGRAM, PARAMETERS, DESCRIPTION])
@pytest.mark.parametrize("way", ["flip", "cut", "gone"])
def test_damage_is_named(predictor, tmp_path, name, way):
    export_predictor(predictor, tmp_path / "x")
    path = tmp_path / "x" / name
    content = path.read_bytes()
    if way == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if way == "cut" else b"\xff" + content[1:])
    with pytest.raises(CheckpointError, match=name):
        ExportedPredictor.load(tmp_path / "x")


def described(folder, **changes):
    text = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps(text | changes))


@pytest.mark.parametrize("way", ["cut", "flip", "zero", "other parameters"])
def test_programs_that_only_pretend_to_be_whole(predictor, tmp_path, way):
    # With the digest that belongs to them, as a stranger would give them.
    export_predictor(predictor, tmp_path / "x")
    path, digests = (
        tmp_path / "x" / PROGRAM,
        json.loads((tmp_path / "x" / DESCRIPTION).read_text())["digests"],
    )
    content = bytearray(path.read_bytes())
    if way == "other parameters":
        loaded = safetensors_format.read(tmp_path / "x" / PARAMETERS)
        kept = {name: tensor.read() for name, tensor in loaded.items()}
        name = next(iter(kept))
        kept[name] = np.zeros((7, *kept[name].shape), kept[name].dtype)
        specs = [(name, array.shape, array.dtype) for name, array in kept.items()]
        safetensors_format.write(tmp_path / "x" / PARAMETERS, specs, kept.__getitem__, {})
    elif way == "cut":
        content = content[: len(content) // 3]
    else:
        middle = len(content) // 2
        content[middle : middle + 64] = (
            bytes(64) if way == "zero" else bytes(x ^ 255 for x in content[middle : middle + 64])
        )
    path.write_bytes(content)
    described(tmp_path / "x", digests={name: digest_of(tmp_path / "x" / name) for name in digests})
    with pytest.raises(CheckpointError, match=r"program.stablehlo is no program that jax .* reads: \w+ "):
        ExportedPredictor.load(tmp_path / "x").probabilities(DIGITS["image"][:1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "is of format 2; this version reads 1"),
        ({"class_names": [1]}, "has class names that are no text"),
        ({"model": None}, "has no model"),
        ({"digests": {}}, "does not say what its files are"),
    ],
)
def test_descriptions_that_say_something_else(predictor, tmp_path, changes, message):
    export_predictor(predictor, tmp_path / "x")
    described(tmp_path / "x", **changes)
    with pytest.raises(CheckpointError, match=message):
        ExportedPredictor.load(tmp_path / "x")


def test_it_is_for_the_platforms_it_was_exported_for(predictor, tmp_path, monkeypatch):
    export_predictor(predictor, tmp_path / "x")
    monkeypatch.setattr(jax, "default_backend", lambda: "rocm")
    with pytest.raises(CheckpointError, match="was exported for cpu, cuda, tpu, and this is a rocm"):
        ExportedPredictor.load(tmp_path / "x")


def test_a_file_is_no_folder(predictor, tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        export_predictor(predictor, tmp_path / "x")
