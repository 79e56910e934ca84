"""Every published file of timm is understood from its header and its config.json, or refused as not here yet.

`timm_headers.json.gz` holds what timm 1.0.31 writes into `config.json` and the names and shapes of the arrays, for 161
tags; the bytes of the arrays say nothing about what a file is, and are left as a hole in the file.
"""

import gzip
import json
import re
import struct
from pathlib import Path

import pytest

from tests.models.test_timm_names import KNOWN
from vit_jax.errors import CheckpointError
from vit_jax.models.names.resolve import resolve
from vit_jax.weights.adapt import adapted
from vit_jax.weights.layouts.timm import config as timm_config
from vit_jax.weights.layouts.timm.document import document
from vit_jax.weights.load import open_pretrained

HEADERS = json.loads(
    gzip.decompress((Path(__file__).parent.parent / "reference" / "timm_headers.json.gz").read_bytes())
)


def headers_only(folder, tensors, document=None):
    """Write a file of which only the header takes space on the disk."""
    header, position = {}, 0
    for name, shape in tensors.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + position)
    if document is not None:
        (folder / "config.json").write_text(json.dumps(document))
    return folder


def test_the_headers_are_whole():
    assert len(HEADERS) == 161
    assert sum(name in KNOWN for name in HEADERS) > 100


@pytest.mark.parametrize("name", HEADERS)
def test_file(name, tmp_path):
    document, tensors = HEADERS[name]["config"], HEADERS[name]["tensors"]
    headers_only(tmp_path, tensors, document)
    if name not in KNOWN:
        with pytest.raises(CheckpointError) as caught:
            open_pretrained(tmp_path)
        said = f"config.json says architecture '{name.split('.')[0]}', which this library does not have yet"
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    found = open_pretrained(tmp_path)
    assert found.config == resolve(f"timm/{name}")[1]
    assert (found.report.changed, found.report.new, found.report.dropped) == ({}, {}, {})
    (tmp_path / "config.json").unlink()
    assert open_pretrained(tmp_path, model=name).config == found.config


@pytest.mark.parametrize(
    "name", ["vit_base_patch16_siglip_gap_224.v2_webli", "vit_large_patch16_dinov3.lvd1689m"]
)
def test_the_pool_does_not_move_the_norm(name, tmp_path):
    """`global_pool` says how the model pools; the norm stands where the architecture has it."""
    document, tensors = HEADERS[name]["config"], HEADERS[name]["tensors"]
    assert document["global_pool"] == "avg"
    config = open_pretrained(headers_only(tmp_path, tensors, document)).config
    assert (config.pool, config.pool_norm) == ("mean", "before")


def test_a_pool_changed_after_training_leaves_the_norm(tmp_path):
    """`reset_classifier(10, "avg")` of timm keeps `norm`; a model made with the mean has `fc_norm`."""
    name = "deit3_small_patch16_224.fb_in22k_ft_in1k"
    document, tensors = HEADERS[name]["config"] | {"global_pool": "avg"}, dict(HEADERS[name]["tensors"])
    config = open_pretrained(headers_only(tmp_path, tensors, document)).config
    assert (config.pool, config.pool_norm) == ("mean", "before")
    moved = {re.sub("^norm", "fc_norm", name): shape for name, shape in tensors.items()}
    config = open_pretrained(headers_only(tmp_path, moved, document)).config
    assert (config.pool, config.pool_norm) == ("mean", "after")
    # What a later version writes as arguments, the class itself follows.
    args = {"model_args": {"global_pool": "avg", "fc_norm": False}}
    config = open_pretrained(headers_only(tmp_path, tensors, document | args)).config
    assert (config.pool, config.pool_norm) == ("mean", "before")


def test_what_patches_leave_out_is_written_as_timm_has_it():
    """So400m/14 at 384: timm's patches cover 378 pixels of the 384 that it crops."""
    for name in ("vit_so400m_patch14_siglip_384.webli", "vit_so400m_patch14_siglip_gap_384.webli"):
        config = resolve(name)[1]
        assert (config.image_size, config.preprocessing.uncovered) == ((378, 378), (6, 6))
        written = document(config)[0]
        assert written["model_args"]["img_size"] == [384, 384]
        assert written["pretrained_cfg"]["input_size"] == [3, 384, 384]
        crop = written["pretrained_cfg"]["crop_pct"]
        assert int(384 / crop + 1e-6) == config.preprocessing.resized((378, 378))[0]
        larger = adapted(config, image_size=448)
        assert larger.preprocessing.uncovered == (0, 0)
        assert larger.preprocessing.crop == crop


@pytest.mark.parametrize("part", ["vit_pe_core", "_rope_224"])
def test_positions_that_no_array_shows_are_not_guessed(part, tmp_path):
    name = next(name for name in HEADERS if part in name)
    with pytest.raises(CheckpointError, match="does not tell what model it is; give its name"):
        open_pretrained(headers_only(tmp_path, HEADERS[name]["tensors"]))


def test_learned_rotations_are_not_dropped_as_computed(tmp_path):
    """RoPE-ViT's mixed frequencies are parameters, under the name that elsewhere begins computed tables."""
    name = next(name for name in HEADERS if "rope_mixed_224" in name)
    with pytest.raises(CheckpointError):
        open_pretrained(headers_only(tmp_path, HEADERS[name]["tensors"]))
    tensors = HEADERS["vit_base_patch16_224.sam_in1k"]["tensors"]
    found = headers_only(tmp_path, tensors | {"rope.freqs": [2, 12, 12, 16]})
    with pytest.raises(CheckpointError, match=r"holds 'rope\.freqs'"):
        open_pretrained(found, model="vit_base_patch16_224.sam_in1k")
    open_pretrained(
        headers_only(tmp_path, tensors | {"rope.freqs_cos": [196, 64], "rope.freqs_sin": [196, 64]})
    )


def test_gated_mlps_are_rounded_up_as_their_architecture_has_it(tmp_path):
    """LingBot's, to a multiple of 8: of 1536, 2.67 make 4101, and the arrays have 4104."""
    name = "vit_giant_patch16_lingbot.robbyant"
    tensors = {
        name: [4104 if side == 4096 else side for side in shape]
        for name, shape in HEADERS[name]["tensors"].items()
    }
    document = HEADERS[name]["config"] | {"model_args": {"mlp_ratio": 2.67}}
    found = open_pretrained(headers_only(tmp_path, tensors, document))
    assert (found.config.mlp_dim, found.report.changed) == (4104, {})


def test_names_that_are_no_list_are_refused():
    for about in ({"label_names": {"0": "cat"}}, {"pretrained_cfg": {"label_names": "cat"}}):
        with pytest.raises(
            CheckpointError, match=r"label_names .*cat.*; it must be a list, in order of outputs"
        ):
            timm_config.class_names(about)
    assert timm_config.class_names({"label_names": ["cat", 3]}) == ("cat", "3")
    assert timm_config.class_names({}) == timm_config.class_names({"label_names": None}) == ()
