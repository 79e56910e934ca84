"""Hieras of timm, transformers and their authors: read as what they are, and written as they were."""

import json

import numpy as np
import pytest

from tests.models.test_hiera import TINY, VARIANTS
from tests.parity.sources import prepare
from tests.reference.cases import load_case, weights_file
from tests.weights.checks import refused
from tests.weights.models import assert_same, flat, opened, write
from tests.weights.test_layouts import arrays_of, pth, safetensors
from vit_jax.errors import ConfigError
from vit_jax.models.hiera.names import AUTHORS, TRANSFORMERS
from vit_jax.models.layers.encoder_config import replace
from vit_jax.weights.differences import differences
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.load import load, open_pretrained
from vit_jax.weights.save import save

TIMMS = replace(TINY, preprocessing=replace(AUTHORS, crop=0.9))
HFS = replace(TINY, preprocessing=TRANSFORMERS)


@pytest.mark.parametrize("name", ["hiera_timm", "hiera_timm_abswin", "hiera_hf", "hiera_hf_backbone"])
def test_files_are_written_back_as_they_were(name, tmp_path):
    about, _, arrays = load_case(name)
    (tmp_path / "theirs").mkdir()
    source, options = prepare(about, weights_file(name), tmp_path / "theirs")
    model = load(source, verbose=False, **options)
    format = "timm" if "timm" in name else "hf"
    save(model, tmp_path / "ours", format)
    written = open_checkpoint(tmp_path / "ours")
    assert written.tensors.keys() == arrays.keys()
    for own, array in arrays.items():
        np.testing.assert_array_equal(written.tensors[own].read(), array, own)
    said, theirs = (raw.documents["config.json"] for raw in (written, open_checkpoint(source)))
    for key in said.keys() & theirs.keys() - {"architecture", "model_args", "out_features", "dtype"}:
        assert said[key] == theirs[key], key


ROUND_TRIPS = {
    "timm": [name for name in VARIANTS if name != "backbone"],
    "hf": ["plain", "headless", "less pooling", "backbone", "all windowed", "none windowed"],
}


@pytest.mark.parametrize(
    ("format", "name"), [(format, name) for format, own in ROUND_TRIPS.items() for name in own]
)
def test_what_is_written_is_read_again(format, name, tmp_path):
    base = TIMMS if format == "timm" else HFS
    config = replace(VARIANTS[name], preprocessing=base.preprocessing)
    write(config, tmp_path / "model", format, class_names=[] if not config.num_classes else list("abcde"))
    read, params = opened(tmp_path / "model")
    assert not list(differences(config, read))
    assert_same(flat(config), params)
    assert open_pretrained(tmp_path / "model").class_names == tuple("abcde" if config.num_classes else "")


@pytest.mark.parametrize(
    ("changes", "format", "message"),
    [
        (dict(position="window"), "hf", "transformers has no Hiera with positions by mask unit"),
        (dict(level_norms=(1,)), "hf", "HieraBackbone has norms of its maps, but neither a head"),
        (dict(level_norms=(1,)), "timm", "timm has no place for level_norms"),
        (dict(pool_norm=False), "timm", "timm cannot express pool_norm"),
        (dict(norm_epsilon=1e-5), "timm", "timm cannot express norm_epsilon"),
        (dict(), "npz", "has no Hiera; choose 'timm' or 'hf' or 'pth' or 'orbax'"),
    ],
)
def test_what_a_library_does_not_have_is_refused(changes, format, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        write(replace(TIMMS, **changes), tmp_path / "model", format)


def authors(arrays):
    """Arrays of timm under the names of the authors."""
    names = {"head.norm.weight": "norm.weight", "head.norm.bias": "norm.bias"}
    names |= {"head.fc.weight": "head.projection.weight", "head.fc.bias": "head.projection.bias"}
    return {names.get(name, name): array for name, array in arrays.items()}


# As published, but narrow: files without a description say nothing of heads and windows.
PLAIN = replace(TINY, depths=(1, 1, 2), windowed_stages=2)


def test_the_authors_file(tmp_path):
    arrays = authors(arrays_of(PLAIN, tmp_path, "timm")[0])
    path = pth(tmp_path / "hiera_tiny_224.pth", lambda tensors: {"model_state": tensors, "epoch": 3}, arrays)
    read, params = opened(path)
    assert read == replace(PLAIN, preprocessing=AUTHORS)
    assert_same(flat(PLAIN), params)


def test_the_authors_hub(tmp_path):
    config = replace(TINY, windowed_stages=1, pooled_stages=1, mask_unit=2)
    document = {
        "input_size": [32, 32], "in_chans": 3, "embed_dim": 8, "num_heads": 1, "num_classes": 1000,
        "stages": [1, 2, 2], "q_pool": 1, "q_stride": [2, 2], "mask_unit_size": [2, 2],
        "mask_unit_attn": [True, False, False], "dim_mul": 2.0, "head_mul": 2.0, "patch_kernel": [7, 7],
        "patch_stride": [4, 4], "patch_padding": [3, 3], "mlp_ratio": 2.0, "drop_path_rate": 0.0, "head_dropout": 0.0,
        "head_init_scale": 0.001, "sep_pos_embed": False,
    }  # fmt: skip
    arrays = authors(arrays_of(config, tmp_path, "timm")[0])
    read, params = opened(safetensors(tmp_path / "hub", arrays, {"config.json": document}))
    assert read == replace(config, preprocessing=AUTHORS)
    assert_same(flat(config), params)
    wrong = {**document, "q_stride": [1, 2, 2], "patch_kernel": [3, 7, 7]}
    folder = safetensors(tmp_path / "video", arrays, {"config.json": wrong})
    refused(lambda: open_pretrained(folder), "config.json says q_stride [1, 2, 2]; this library knows [2, 2]")


def test_a_bare_file_of_timm(tmp_path):
    for number, config in enumerate((PLAIN, replace(PLAIN, shortcut="pool", layer_scale=1e-5))):
        arrays, _ = arrays_of(config, tmp_path / str(number), "timm")
        read, params = opened(safetensors(tmp_path / f"bare{number}", arrays))
        assert read == config
        assert_same(flat(config), params)


def test_sizes_classes_and_channels_are_adapted(tmp_path):
    write(TIMMS, tmp_path / "model", "timm")
    found = open_pretrained(tmp_path / "model", image_size=(32, 64), num_classes=3, in_channels=1)
    assert found.report.changed["pos_embed"] == "8x8 -> 8x16, bicubic"
    assert "3 -> 1" in found.report.changed["patch_embed/kernel"]
    assert sorted(found.report.new) == ["head/bias", "head/kernel"]
    assert found.params()["pos_embed"].shape == (128, 8)
    same = open_pretrained(tmp_path / "model", pooled_stages=1)
    assert_same(flat(TIMMS), {**flat(TIMMS), "pos_embed": np.asarray(same.params()["pos_embed"])})
    refused(
        lambda: open_pretrained(tmp_path / "model", depths=(1, 2, 3)), "depths is (1, 2, 3), but (1, 2, 2)"
    )
    write(replace(TIMMS, position="window"), tmp_path / "windows", "timm", ignore=["resample_antialias"])
    refused(
        lambda: open_pretrained(tmp_path / "windows", mask_unit=2, windowed_stages=1),
        "mask_unit is 2, but 4 in the checkpoint",
    )


@pytest.mark.parametrize(
    ("format", "key", "value", "message"),
    [
        ("timm", "model_args", {"dim_mul": 3.0}, "config.json says dim_mul 3.0; this library knows 2.0"),
        ("timm", "model_args", {"attention": 1}, "attention 1, which this library does not know"),
        (
            "timm",
            "model_args",
            {"mask_unit_attn": [False, True, False]},
            "it must be true of the first stages",
        ),
        (
            "timm",
            "model_args",
            {"mask_unit_size": [4, 2]},
            "it must be one whole number for height and width",
        ),
        ("timm", "model_args", {"patch_padding": [2, 2]}, "patch_padding [2, 2]; this library pads by 3"),
        ("timm", "model_args", {"img_size": [40, 40]}, "not divisible by stride"),
        ("timm", "model_args", {"stages": "many"}, "depths is 'many'"),
        ("timm", "architecture", "hiera_giant_224", "which is no Hiera"),
        ("timm", "architecture", "hiera_tiny_100", "not divisible by stride 32"),
        ("hf", "num_heads", [1, 2, 3], "num_heads [1, 2, 3]; this library knows [1, 2, 4]"),
        ("hf", "num_heads", "x", "num_heads 'x'; it must be a list"),
        ("hf", "depths", 5, "depths 5; it must be a list"),
        ("hf", "embed_dim", "wide", "embed_dim 'wide'; it must be a whole number"),
        ("hf", "embed_dim_multiplier", 1.5, "embed_dim_multiplier 1.5; this library knows 2.0"),
        ("hf", "hidden_act", "tanh", "hidden_act 'tanh'; it must be one of"),
        ("hf", "masked_unit_size", [3, 3], "mask_unit is 3"),
    ],
)
def test_descriptions_of_no_model_are_one_line(format, key, value, message, tmp_path):
    arrays, documents = arrays_of(HFS if format == "hf" else TIMMS, tmp_path, format)
    about = json.loads(json.dumps(documents["config.json"]))
    about[key] = {**about[key], **value} if isinstance(value, dict) else value
    folder = safetensors(tmp_path / "changed", arrays, {"config.json": about})
    refused(lambda: open_pretrained(folder), message)


def test_incomplete_files_are_one_line(tmp_path):
    arrays, documents = arrays_of(HFS, tmp_path, "hf")
    lacking = {name: array for name, array in arrays.items() if "stages.1.layers.0.proj" not in name}
    folder = safetensors(tmp_path / "lacking", lacking, documents)
    refused(lambda: open_pretrained(folder), "lacks hiera.encoder.stages.1.layers.0.proj.bias")
    timms = authors(arrays_of(TIMMS, tmp_path / "timm", "timm")[0])
    del timms["blocks.3.norm2.weight"]
    refused(lambda: open_pretrained(safetensors(tmp_path / "broken", timms)), "lacks arrays of a Hiera")
