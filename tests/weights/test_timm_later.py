"""Files of timm's later plain ViTs are written back as they were, and other libraries' formats refuse the models."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.parity.sources import prepare
from tests.reference.cases import load_case, weights_file
from vit_jax.errors import ConfigError
from vit_jax.models.functional import buffers_of, parameters
from vit_jax.models.registry import create_model
from vit_jax.trees import flatten
from vit_jax.weights.differences import differences
from vit_jax.weights.load import load
from vit_jax.weights.save import save

CASES = (
    "vit_timm_aimv2", "vit_timm_regpos", "vit_timm_prefix", "vit_timm_unnormed", "vit_timm_respost",
    "vit_timm_diff", "vit_timm_parallel", "vit_timm_diff_parallel",
    "eva_timm_pe_core", "eva_timm_pe_lang", "eva_timm_rope_ape", "eva_timm_rope_mixed", "eva_timm_sapiens2",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_written_back(name, tmp_path):
    about, _, theirs = load_case(name)
    source, options = prepare(about, weights_file(name), tmp_path)
    model = load(source, verbose=False, **options)
    save(model, tmp_path / "again", "timm")
    ours = load_file(tmp_path / "again" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    assert not [*differences(model.config, load(tmp_path / "again", verbose=False).config)]
    for format in ("hf", "npz", "torchvision"):
        with pytest.raises(ConfigError):
            save(model, tmp_path / format, format)


def test_statistics_of_a_stem_travel(tmp_path):
    model = create_model("vit_base_mci_224", width=32, depth=1, heads=4, mlp_dim=64)
    model.stem[1].norm.mean[...] += 1.5
    save(model, tmp_path, "timm")
    again = load(tmp_path, verbose=False)
    assert not [*differences(model.config, again.config)]
    for part in (parameters, buffers_of):
        ours, theirs = flatten(part(model)), flatten(part(again))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[path], theirs[path]) for path in ours)
