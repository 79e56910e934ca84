"""Messages name arguments as the one who reads them gives them: Python's in Python, the command's flags there."""

import numpy as np
import pytest

import vit_jax
from tests.weights.test_evaluated_with import SQUARE, workdir
from vit_jax.cli import main
from vit_jax.errors import CheckpointError, ConfigError, argument, speaking
from vit_jax.weights.convert import convert
from vit_jax.weights.formats import safetensors_format


def test_three_ways_to_say_an_argument():
    assert argument("ignore", ["head"]) == "ignore=['head']"
    assert argument("workdir") == "workdir"
    with speaking({"--ignore", "--workdir", "--allow-change"}):
        assert argument("ignore", ["head", "a b"]) == '--ignore head --ignore "a b"'
        assert argument("allow_change", ["data"]) == "--allow-change data"
        assert argument("workdir") == "--workdir"
        assert argument("weights", "teacher", key="model.weights") == "weights='teacher' in Python"
        with speaking({"--config"}):
            assert argument("weights", "teacher", key="model.weights") == "--config.model.weights=teacher"
            assert argument("ignore", ["a"], key="model.ignore") == "--config.model.ignore=\"('a',)\""
        assert argument("ignore") == "--ignore"
    assert argument("ignore") == "ignore"


def test_what_a_format_would_lose(tmp_path, capsys):
    run, _ = workdir(tmp_path / "run", "decode|resize(24)|resize(16)", SQUARE)
    with pytest.raises(ConfigError, match=r"ignore=\['preprocessing.transforms'\] writes it anyway"):
        convert(run, tmp_path / "out", "timm")
    assert main(["convert", str(run), str(tmp_path / "out"), "--format", "timm"]) == 2
    told = capsys.readouterr().err
    assert "--ignore preprocessing.transforms writes it anyway" in told
    assert "--eval-transforms \"decode|resize(16, 'bicubic')\"" in told
    assert "ignore=" not in told


def test_what_a_file_has_beside_a_model(tmp_path, capsys):
    run, _ = workdir(tmp_path / "run", "", SQUARE)
    convert(run, tmp_path / "timm", "timm")
    path = tmp_path / "timm" / "model.safetensors"
    arrays = {name: tensor.read() for name, tensor in safetensors_format.read(path).items()}
    arrays["strange.weight"] = np.zeros((3,), np.float32)
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    safetensors_format.write(path, specs, arrays.__getitem__, {})
    with pytest.raises(CheckpointError, match=r"ignore=\['strange.weight'\] leaves it out"):
        vit_jax.load(tmp_path / "timm")
    command = ["convert", str(tmp_path / "timm"), str(tmp_path / "out"), "--format", "hf"]
    assert main(command) == 4
    assert "--ignore strange.weight leaves it out" in capsys.readouterr().err
    assert main([*command, "--ignore", "strange.weight"]) == 0
    evaluate = ["evaluate", "--checkpoint", str(tmp_path / "timm"), "--config.data.source=digits"]
    assert main(evaluate) == 4
    assert "--config.model.ignore=\"('strange.weight',)\" leaves it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "python", "command"),
    [
        ({"ignore": ["foo"]}, "ignore has 'foo', but timm loses nothing", "--ignore has 'foo'"),
        (
            {"part": "image"},
            "part is 'image'; the checkpoint's model has the parts: none",
            "--part is 'image'",
        ),
        (
            {"eval_transforms": "resiz(3)"},
            "eval_transforms: the transform is 'resiz'",
            "--eval-transforms: the transform is 'resiz'",
        ),
    ],
)
def test_what_cannot_be_converted(arguments, python, command, tmp_path, capsys):
    run, _ = workdir(tmp_path / "run", "", SQUARE)
    with pytest.raises(ConfigError) as refused:
        convert(run, tmp_path / "out", "timm", **arguments)
    assert str(refused.value).startswith(python)
    ((name, value),) = arguments.items()
    given = [f"--{name.replace('_', '-')}", *([value] if isinstance(value, str) else value)]
    assert main(["convert", str(run), str(tmp_path / "out"), "--format", "timm", *given]) == 2
    assert capsys.readouterr().err.startswith(f"vit-jax: {command}")


def test_a_run_that_was_started_otherwise(trained, copied, capsys):
    config = vit_jax.load_config(trained.config)
    config.optimizer.learning_rate = 0.5
    with pytest.raises(
        ConfigError, match=r"Use another workdir, or allow_change=\['optimizer.learning_rate'\]"
    ):
        vit_jax.train(config, copied)
    command = ["train", "--config", trained.config, "--workdir", str(copied)]
    assert main([*command, "--config.optimizer.learning_rate=0.5"]) == 2
    told = capsys.readouterr().err
    assert "Use another --workdir, or --allow-change optimizer.learning_rate" in told
