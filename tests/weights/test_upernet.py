"""Segmentation models go through transformers' files and ours and come back bit for bit."""

import jax
import numpy as np
import pytest

from tests.models.test_upernet import BARE, PIXELS
from tests.tiny import functions, parameters, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.functional import buffers_of
from vit_jax.models.functional import parameters as parameters_of
from vit_jax.models.heads.upernet.config import UperNetConfig
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.vit.config import replace
from vit_jax.trees import flatten, unflatten
from vit_jax.weights.load import load, open_pretrained
from vit_jax.weights.save import save

# transformers has no central crop of images that are not square.
MODEL = replace(PIXELS, encoder=replace(BARE, preprocessing=Preprocessing(crop=1.0, crop_mode="squash")))


@pytest.mark.parametrize("format", ["hf", "orbax"])
def test_round_trip(tmp_path, format):
    params = parameters(MODEL)
    names = [f"thing {i}" for i in range(MODEL.num_classes)]
    save(functions(MODEL).bind(params), tmp_path / "model", format, class_names=names)
    opened = open_pretrained(tmp_path / "model")
    assert opened.class_names == tuple(names)
    assert not opened.report.dropped
    model = load(tmp_path / "model")
    assert isinstance(model.config, UperNetConfig)
    assert replace(model.config, encoder=MODEL.encoder) == MODEL
    found = unflatten(flatten(parameters_of(model)) | flatten(buffers_of(model)))
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize("format", ["timm", "npz"])
def test_libraries_without_such_models(tmp_path, format):
    with pytest.raises(ConfigError, match=r"has no UperNet; load one part"):
        save(functions(MODEL).bind(parameters(MODEL)), tmp_path / "model", format)


def test_encoders_without_a_final_norm_are_written_or_refused_by_name(tmp_path):
    config = tiny(pool_norm="none", activation="gelu_tanh")
    with pytest.raises(ConfigError, match="cannot express pool_norm none"):
        save(functions(config).bind(parameters(config)), tmp_path / "model", "npz")
    config = tiny(pool_norm="none")
    params = parameters(config)
    save(functions(config).bind(params), tmp_path / "timm", "timm")
    again = open_pretrained(tmp_path / "timm")
    assert again.config.pool_norm == "none"
    jax.tree.map(np.testing.assert_array_equal, again.params(), params)
