"""Loading: what is missing, unknown or of the wrong shape is said in one line; parameters go where they belong."""

import json
import random

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.tiny import functions, parameters, pixels
from tests.weights.checks import line_of, refused
from tests.weights.models import (
    BEIT,
    CLIP_PAIR,
    DINOV2,
    DINOV3,
    MAE,
    PLAIN,
    SIGLIP_PAIR,
    assert_same,
    flat,
    opened,
    write,
)
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.text.config import ImageTextConfig
from vit_jax.weights import target
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.load import load, open_pretrained
from vit_jax.weights.understand import understand


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """One file for all tests that read the same model."""
    folder = tmp_path_factory.mktemp("plain")
    write(PLAIN, folder / "model", "timm")
    return folder / "model"


def edited(source, folder, change):
    """The file with arrays changed by a function of them all."""
    raw = open_checkpoint(source)
    arrays = {name: tensor.read() for name, tensor in raw.tensors.items()}
    change(arrays)
    folder.mkdir()
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    safetensors_format.write(folder / "model.safetensors", specs, lambda name: arrays[name], {})
    (folder / "config.json").write_text(json.dumps(raw.documents["config.json"]))
    return folder


def test_a_model_computes_what_it_was_made_from(source, capsys):
    images = pixels()
    model = load(source)
    assert capsys.readouterr().out == ""  # nothing changed
    assert np.allclose(model(images), functions(PLAIN).bind(parameters(PLAIN))(images), atol=1e-5)
    load(source, num_classes=2)
    assert "new      head/bias, head/kernel" in capsys.readouterr().out


def test_missing_arrays(source, tmp_path):
    folder = edited(source, tmp_path / "x", lambda arrays: arrays.pop("blocks.1.mlp.fc1.bias"))
    line = refused(
        lambda: open_pretrained(folder), "lacks blocks.1.mlp.fc1.bias, needed for blocks/mlp/fc1/bias"
    )
    assert "ignore=['blocks/mlp/fc1/bias']" in line
    for pattern in ("blocks/mlp/fc1/bias", "blocks.*.fc1.bias"):
        pretrained = open_pretrained(folder, ignore=[pattern])
        assert pretrained.report.new == {"blocks/mlp/fc1/bias": "missing in the checkpoint, ignored"}
        assert pretrained.report.dropped.keys() == {"blocks.0.mlp.fc1.bias"}
        assert not np.any(trees.flatten(pretrained.params())["blocks/mlp/fc1/bias"])


def test_unknown_arrays(source, tmp_path):
    folder = edited(source, tmp_path / "x", lambda arrays: arrays.update(extra=np.zeros(3, np.float32)))
    line = refused(lambda: open_pretrained(folder), "holds 'extra' (3,), which the model does not have")
    assert "ignore=['extra']" in line
    assert open_pretrained(folder, ignore="ex*").report.dropped == {"extra": "unknown, ignored"}
    with pytest.raises(ConfigError, match="ignore has 'head', which matches no unknown or missing array"):
        open_pretrained(folder, ignore=("extra", "head"))


@pytest.mark.parametrize(
    "name", ["blocks.1.attn.qkv.weight", "pos_embed", "patch_embed.proj.weight", "head.bias"]
)
def test_arrays_of_another_shape(source, name, tmp_path):
    def change(arrays):
        arrays[name] = arrays[name][..., :-1]

    folder = edited(source, tmp_path / "x", change)
    refused(lambda: open_pretrained(folder).params(), f"{name} has shape")


def test_nothing_of_the_model(tmp_path):
    safetensors_format.write(
        tmp_path / "a.safetensors", [("a", (1,), np.dtype("f4"))], lambda _: np.zeros(1, np.float32), {}
    )
    refused(lambda: load(tmp_path / "a.safetensors"), "whose names no known library uses, such as 'a'")


def test_a_model_for_files_that_do_not_say_theirs(source, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    config, params = opened(tmp_path, model=PLAIN)
    assert config == PLAIN
    assert_same(flat(PLAIN), params)
    refused(lambda: open_pretrained(tmp_path, model="vit_base_patch16_224"), "blocks")
    with pytest.raises(ConfigError, match="model is a ImageTextConfig"):
        open_pretrained(tmp_path, model=CLIP_PAIR)
    write(PLAIN, tmp_path / "hf", "hf", ignore=())
    with pytest.raises(ConfigError, match="itself tells what model it holds"):
        open_pretrained(tmp_path / "hf", model=PLAIN)


def test_parameters_go_to_their_shards(source, monkeypatch):
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(8), ("x",))
    pretrained = open_pretrained(source, num_classes=8, image_size=24)
    plain = trees.flatten(pretrained.params())

    def place(shape):
        axis = max((i for i, size in enumerate(shape) if size % 8 == 0), default=None, key=lambda i: shape[i])
        return NamedSharding(mesh, P(*("x" if i == axis else None for i in range(len(shape)))))

    shardings = {path: place(array.shape) for path, array in plain.items()}
    whole, original = [], target.Whole.__init__
    monkeypatch.setattr(
        target.Whole,
        "__init__",
        lambda self, shape, sharding=None: whole.append(shape) or original(self, shape, sharding),
    )
    found = trees.flatten(pretrained.params(shardings))
    assert_same(plain, found)
    for path, array in found.items():
        assert array.sharding.is_equivalent_to(shardings[path], array.ndim), path
    # Kernels of blocks, which are what is large, are never whole.
    blocks = {array.shape for path, array in plain.items() if path.startswith("blocks/") and "kernel" in path}
    assert not blocks & set(whole)


# Descriptions that are damaged.

KINDS = {
    "timm": (replace(PLAIN, layer_scale=0.1), "timm"),
    "timm beit": (BEIT, "timm"),
    "vit": (PLAIN, "hf"),
    "beit": (BEIT, "hf"),
    "dinov2": (DINOV2, "hf"),
    "dinov3": (DINOV3, "hf"),
    "mae": (MAE, "hf"),
    "clip": (CLIP_PAIR, "hf"),
    "siglip": (SIGLIP_PAIR, "hf"),
}
VALUES = [
    None, True, False, 0, 1, -1, 3, 7.5, -0.1, 1e400, float("nan"), 10**12, 10**400, "", "gelu", "x\ny", [], [1, 2],
    ["a"], {}, {"a": 1}, {"shortest_edge": "x"}, {"height": 16}, [[1]], 2**31, 1e-300,
]  # fmt: skip


def damaged(document, rng):
    """A copy of a document with one value, at any depth, replaced or left out."""
    copy = json.loads(json.dumps(document))
    places = []

    def walk(value):
        for key, item in value.items():
            places.append((value, key))
            if isinstance(item, dict):
                walk(item)

    walk(copy)
    parent, key = rng.choice(places)
    if rng.random() < 0.1:
        del parent[key]
    else:
        parent[key] = rng.choice(VALUES)
    return copy


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_descriptions_are_one_line_errors(kind, tmp_path):
    config, format = KINDS[kind]
    write(config, tmp_path, format, ignore=())
    raw = open_checkpoint(tmp_path)
    rng = random.Random(kind)
    refusals = 0
    for _ in range(40):
        name = rng.choice(list(raw.documents))
        documents = {**raw.documents, name: damaged(raw.documents[name], rng)}
        line = line_of(lambda documents=documents: understand(replace(raw, documents=documents)))
        refusals += bool(line)
        assert not line or line.isprintable(), documents[name]
        assert len(line) < 700
    assert refusals > 5


def test_damaged_descriptions_of_openclip():
    rng = random.Random(0)
    about = {
        "model_cfg": {
            "embed_dim": 16, "quick_gelu": True, "vision_cfg": {"layers": 2, "width": 32, "head_width": 16},
            "text_cfg": {"heads": 2, "width": 32, "layers": 2, "context_length": 8},
        },
        "preprocess_cfg": {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
    }  # fmt: skip
    shapes = {
        "visual.conv1.weight": (32, 3, 4, 4), "visual.class_embedding": (32,), "visual.positional_embedding": (17, 32),
        "visual.proj": (32, 16), "text_projection": (32, 16), "token_embedding.weight": (50, 32),
        "positional_embedding": (8, 32), "visual.transformer.resblocks.0.mlp.c_fc.weight": (64, 32),
        "visual.transformer.resblocks.0.ln_1.weight": (32,), "transformer.resblocks.0.mlp.c_fc.weight": (64, 32),
        "transformer.resblocks.0.ln_1.weight": (32,),
    }  # fmt: skip
    tensors = {name: Tensor(shape, np.dtype(np.float32), lambda: None) for name, shape in shapes.items()}
    raw = RawCheckpoint("clip", "safetensors", tensors, {"open_clip_config.json": about})
    assert isinstance(understand(raw)[1].config, ImageTextConfig)
    for _ in range(60):
        documents = {"open_clip_config.json": damaged(about, rng)}
        line = line_of(lambda documents=documents: understand(replace(raw, documents=documents)))
        assert not line or line.isprintable(), documents
