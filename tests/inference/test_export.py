"""An exported classifier: the same probabilities, without the code of models; damage is told by name."""

import json
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export

from tests.tiny import parameters, tiny
from vit_jax.cli import main
from vit_jax.data.sources.digits import open_digits
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.inference.export.export import export_predictor
from vit_jax.inference.export.exported import DESCRIPTION, PARAMETERS, PROGRAM, ExportedPredictor, digest_of
from vit_jax.inference.predictor import Predictor
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.options import parse_options
from vit_jax.training.config.defaults import default_config
from vit_jax.weights.formats import safetensors_format

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
    assert loaded.output == predictor.output
    assert loaded.class_names == predictor.objective.data.class_names
    assert loaded.programs[0].platforms == ("cpu", "cuda", "tpu")
    assert "stablehlo" in loaded.programs[0].mlir_module()
    (row,) = loaded.predict(DIGITS["image"][:1], top=3)
    assert row.classes == predictor.stored(exported[0]).predict(DIGITS["image"][:1], top=3)[0].classes
    assert loaded.probabilities([]).shape == (0, 10)


def test_it_can_be_pickled_after_use(exported):
    used = ExportedPredictor.load(exported[1])
    expected = used.predict(DIGITS["image"])
    assert pickle.loads(pickle.dumps(used)).predict(DIGITS["image"]) == expected


def test_nothing_of_models_and_training_is_imported(exported):
    command = f"""import sys
from vit_jax.inference.export.exported import ExportedPredictor
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
    row = json.loads(capsys.readouterr().out)
    assert [p["class"] for p in row["predictions"]] == [p["class"] for p in expected["predictions"]]
    assert main(["export", "--workdir", str(run[1]), str(folder)]) == 2
    assert "is not an empty folder; export to another one" in capsys.readouterr().err
    assert main(["predict", "--exported", str(folder), "--storage", "int8", str(image)]) == 2
    assert "--storage cannot be combined with --exported" in capsys.readouterr().err
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
    with pytest.raises(
        CheckpointError, match=r"program.stablehlo is not a program that jax .* can read: \w+ "
    ):
        ExportedPredictor.load(tmp_path / "x").probabilities(DIGITS["image"][:1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, "is of format 3; this version reads 1 and 2"),
        ({"format": None}, "has no format"),
        ({"output": {"kind": "classes", "class_names": [1]}}, "class_names has 1, which is not a string"),
        ({"output": {"kind": "classes", "class_names": ["a"]}}, "has 1 names for outputs of shape .*, 10"),
        ({"output": {"kind": "boxes"}}, "describes no predictions: outputs are of kind 'boxes'"),
        ({"model": None}, "has no model"),
        ({"digests": {}}, "does not list its files"),
    ],
)
def test_descriptions_that_say_something_else(predictor, tmp_path, changes, message):
    export_predictor(predictor, tmp_path / "x")
    described(tmp_path / "x", **changes)
    with pytest.raises(CheckpointError, match=message):
        ExportedPredictor.load(tmp_path / "x")


def test_what_earlier_versions_exported(predictor, tmp_path):
    """Their programs give the probabilities themselves, and their descriptions know classifiers alone."""
    folder = tmp_path / "x"
    export_predictor(predictor, folder)
    loaded = ExportedPredictor.load(folder)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), loaded.params)
    program = export.export(
        jax.jit(lambda params, images: loaded.programs[0].call(params, images)["probabilities"])
    )(shapes, jax.ShapeDtypeStruct((2, 8, 8, 1), np.uint8))
    (folder / PROGRAM).write_bytes(program.serialize())
    text = json.loads((folder / DESCRIPTION).read_text())
    names = text.pop("output")["class_names"]
    text |= {"format": 1, "class_names": names}
    text["digests"][PROGRAM] = digest_of(folder / PROGRAM)
    (folder / DESCRIPTION).write_text(json.dumps(text))
    again = ExportedPredictor.load(folder)
    assert again.predict(DIGITS["image"][:2]) == loaded.predict(DIGITS["image"][:2])


def test_it_is_for_the_platforms_it_was_exported_for(predictor, tmp_path, monkeypatch):
    export_predictor(predictor, tmp_path / "x")
    monkeypatch.setattr(jax, "default_backend", lambda: "rocm")
    with pytest.raises(CheckpointError, match="was exported for cpu, cuda, tpu, but this machine has a rocm"):
        ExportedPredictor.load(tmp_path / "x")


def test_a_file_is_no_folder(predictor, tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        export_predictor(predictor, tmp_path / "x")


def test_the_batch_sizes_that_were_asked_for(predictor, tmp_path):
    export_predictor(predictor, tmp_path / "x", batch_sizes=(4, 2, 4))
    assert sorted(path.name for path in (tmp_path / "x").glob("*.stablehlo")) == [
        "program_b2.stablehlo",
        "program_b4.stablehlo",
    ]
    loaded = ExportedPredictor.load(tmp_path / "x")
    assert [loaded.programs[size].in_avals[-1].shape[0] for size in (2, 4)] == [2, 4]
    images = predictor.probabilities(DIGITS["image"])
    for count in (1, 2, 3, 6):  # fewer than a batch are filled up, more are divided
        given = loaded.probabilities(DIGITS["image"][:count])
        np.testing.assert_allclose(given, images[:count], rtol=1e-5)
    described(tmp_path / "x", batch_sizes=[0])
    with pytest.raises(CheckpointError, match=r"has batch sizes \[0\]; export"):
        ExportedPredictor.load(tmp_path / "x")
    with pytest.raises(ConfigError, match="batch size is 0; it must be an integer of at least 1"):
        export_predictor(predictor, tmp_path / "y", batch_sizes=(0,))
    assert not (tmp_path / "y").exists()


# Positions of every kind that there is: learned and resampled in each way, computed, rotary.
POSITIONS = {
    "bicubic": dict(resample="bicubic"),
    "offset": dict(resample="bicubic", resample_antialias=False, resample_offset=1),
    "bilinear": dict(resample="bilinear"),
    "nearest": dict(resample="nearest", class_token=False, pool="mean"),
    "zoom": dict(resample="zoom"),
    "sines": dict(position="sincos2d_mae", pool="map"),
    "dinov3": dict(position="none", rope="dinov3"),
    "eva": dict(position="none", rope="eva", rope_grid=(4, 4)),
}


def dynamic(**changes):
    """A predictor of a model that takes images of any size."""
    model = tiny(dynamic_image_size=True, depth=1, **changes)
    objective = Classification(model, parse_options({"name": "classification"}), DataInfo(5, tuple("abcde")))
    return Predictor(objective, parameters(model), default_config(), "decode(3)|resize(16)")


@pytest.mark.parametrize("kind", POSITIONS)
def test_models_of_any_image_size_keep_it(kind, tmp_path):
    predictor = dynamic(**POSITIONS[kind])
    export_predictor(predictor, tmp_path / "x")
    loaded = ExportedPredictor.load(tmp_path / "x")
    for height, width in ((16, 16), (24, 12)):
        images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        given = loaded.programs[0].call(loaded.params, images)
        expected = predictor.compute(predictor.params, {}, images)
        assert given.keys() == expected.keys()
        np.testing.assert_allclose(*(x["probabilities"] for x in (given, expected)), rtol=2e-5, atol=1e-6)


def test_fixed_batches_of_any_image_size(tmp_path):
    export_predictor(dynamic(), tmp_path / "x", batch_sizes=(3,))
    shape = ExportedPredictor.load(tmp_path / "x").programs[3].in_avals[-1].shape
    assert list(map(str, shape)) == ["3", "4*h", "4*w", "3"]


def test_relative_positions_are_for_one_image_size(tmp_path):
    with pytest.raises(
        ConfigError, match="relative positions are made for one at a time; load it with dynamic_"
    ):
        export_predictor(dynamic(position="none", position_bias="blocks"), tmp_path / "x")
