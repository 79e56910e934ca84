"""One check of a configuration on every way in: what is misspelled in Python is refused as on the command line."""

import jax
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

import vit_jax
from vit_jax.errors import ConfigError
from vit_jax.planning.plan import planned_experiment
from vit_jax.training.config.load import checked, default_config
from vit_jax.training.experiment import build
from vit_jax.training.report.samples import samples


def misspelled(config):
    config.optimizer.learning_rat = 3.0


WAYS_IN = {
    "train": lambda config, folder: vit_jax.train(config, folder / "run"),
    "build": lambda config, folder: build(config),
    "samples": lambda config, folder: samples(config),
    "plan": lambda config, folder: planned_experiment(config, jax.devices()),
}
FILE = """
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    {}
    return config
"""


@pytest.mark.parametrize("way", WAYS_IN)
def test_every_way_in_checks(way, tmp_path):
    config = default_config()
    misspelled(config)
    with pytest.raises(
        ConfigError, match=r"'optimizer\.learning_rat' is not a .* 'optimizer\.learning_rate'"
    ):
        WAYS_IN[way](config, tmp_path)
    assert not any(tmp_path.iterdir())  # refused before anything was made


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.optimizer.learning_rat = 3.0", "'optimizer.learning_rat' is not a configuration key"),
        ("config.optimzer = {'name': 'sgd'}", "'optimzer.name' is not a configuration key"),
        ("config.optimzer = {}", "optimzer is a section without keys.* Did you mean 'optimizer'"),
        ("config.data.augment = {}", "data.augment is a section without keys"),
        ("config.model.backbon = {}", "model.backbon is a section without keys"),
        ("config.stop = 3", "'stop' is not a configuration key"),
        ("config.model.image_siz = 64", "'image_siz' is not a model option. Did you mean 'image_size'"),
        ("config.objective.mixupp = 0.1", "objective.mixupp is not an option of 'classification'"),
        ("config.seed = '1'", "seed is '1'; it must be an integer"),
        ("config.optimizer = 'sgd'", "optimizer is 'sgd'; it must be a section with"),
        ("del config.optimizer.b1", "optimizer.b1 is missing"),
    ],
)
def test_python_and_files_alike(line, message, tmp_path):
    config = default_config()
    exec(line, {"config": config})
    with pytest.raises(ConfigError, match=message):
        checked(config)
    (tmp_path / "file.py").write_text(FILE.format(line))
    with pytest.raises(ConfigError, match=message):
        vit_jax.load_config(str(tmp_path / "file.py"))


@pytest.mark.parametrize("given", [{"seed": 1}, "configs/digits.py", None])
def test_what_is_no_configuration(given, tmp_path):
    with pytest.raises(ConfigError, match=r"config is a .*; it must come from load_config or default_config"):
        vit_jax.train(given, tmp_path)


def test_lists_and_whole_numbers_are_normalised():
    config = default_config()
    config.optimizer.decay, config.optimizer.learning_rate = ["kernel$"], 1
    for given in (config, FrozenConfigDict(config)):
        values = checked(given)
        assert values.optimizer.decay == ("kernel$",)
        assert isinstance(values.optimizer.learning_rate, float)
        assert type(values) is ConfigDict
