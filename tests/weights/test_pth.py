"""The authors' own files of PyTorch, written: read again bit by bit, and refused in one line."""

import pickletools
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tests.models.swin.models import FIRST, SECOND
from tests.models.test_hiera import TINY as HIERA
from tests.weights import test_cvt, test_mvit, test_swin, torch_writer
from tests.weights.checks import same
from tests.weights.models import BEIT, CLIP_PAIR, MAE, PLAIN, assert_same, flat, opened, write
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.hiera.mae_config import HieraMaeConfig
from vit_jax.models.layers.encoder_config import replace
from vit_jax.weights.differences import differences
from vit_jax.weights.formats import torch_writing
from vit_jax.weights.formats.files import open_checkpoint

# Files without a description say nothing of heads and windows: here they are as published.
NARROW = replace(HIERA, depths=(1, 1, 2), windowed_stages=2)
CONFIGS = {
    "vit": PLAIN,
    "distilled": replace(PLAIN, distillation_token=True),
    "averaged": replace(PLAIN, pool="mean", pool_norm="after", num_classes=0),
    "mae": replace(MAE, decoder=replace(MAE.decoder, heads=1)),
    "swin": FIRST,
    "swin, no head": replace(FIRST, num_classes=0),
    "swin v2": SECOND,
    "swin v2, pretrained": replace(SECOND, window_size=4, pretrained_windows=(3, 2)),
    "cvt": test_cvt.AUTHORS,
    "mvit": test_mvit.TINY,
    "mvit, mlp": test_mvit.WIDE,
    "hiera": NARROW,
    "hiera, no head": replace(NARROW, num_classes=0),
    "hiera mae": HieraMaeConfig(replace(NARROW, num_classes=0), 32, 1, 1, 64),
}  # fmt: skip
INSIDE = {"vit": "model", "swin": "model", "cvt": "", "mvit": "model_state", "hiera": "model_state"}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_is_read_as_it_was_written(name, tmp_path):
    config, path = CONFIGS[name], tmp_path / "model.pth"
    said = write(config, path, "pth")
    read, params = opened(path)
    differing = {field for field, *_ in differences(config, read)}
    assert all(f"not expressed by the authors' format: {field}" in said for field in differing)
    assert all(
        field.rpartition(".")[0].endswith("preprocessing") or field == "image_size" for field in differing
    )
    assert_same(flat(config), params)
    if name in INSIDE:
        assert open_checkpoint(path).weights == INSIDE[name]


@pytest.mark.parametrize("config", [FIRST, SECOND], ids=["first", "second"])
def test_microsofts_tables_are_beside_the_weights(config, tmp_path):
    theirs = open_checkpoint(test_swin.authors(config, tmp_path / "theirs")).tensors
    write(config, tmp_path / "ours.pth", "pth")
    ours = open_checkpoint(tmp_path / "ours.pth").tensors
    assert {name: (t.shape, t.dtype) for name, t in ours.items()} == {
        name: (t.shape, t.dtype) for name, t in theirs.items()
    }
    tables = [name for name in ours if name.endswith("relative_coords_table")]
    for name in tables:
        np.testing.assert_array_equal(ours[name].read(), theirs[name].read())
    # Of four windows, moved by half of one: the last holds what was at all four corners.
    mask = ours["layers.0.blocks.1.attn_mask"].read()
    n = mask.shape[-1]
    assert set(np.unique(mask)) == {0.0, -100.0}
    assert not mask[0].any()
    assert (mask[-1] == 0).sum() == 4 * (n // 4) ** 2 or n % 4


def test_batches_are_counted(tmp_path):
    write(test_cvt.AUTHORS, tmp_path / "cvt.pth", "pth", dtype="bfloat16")
    tensors = open_checkpoint(tmp_path / "cvt.pth").tensors
    counts = [name for name in tensors if name.endswith("num_batches_tracked")]
    assert len(counts) == 3 * sum(test_cvt.AUTHORS.depths)
    assert {(tensors[name].shape, tensors[name].dtype.name) for name in counts} == {((), "int64")}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_arrays_of_fewer_bits(dtype, tmp_path):
    write(PLAIN, tmp_path / "model.pth", "pth", dtype=dtype)
    short = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[dtype]
    for path, array in opened(tmp_path / "model.pth")[1].items():
        rounded = np.asarray(flat(PLAIN)[path]).astype(short).astype(np.float32)
        assert np.array_equal(array, rounded), path


@pytest.mark.parametrize(
    ("config", "name", "why"),
    [
        (PLAIN, "model", "model is to be a file of PyTorch; give it a name that ends with .pth"),
        (CLIP_PAIR, "a.pth", "the authors' format has no ImageText; load one part of it"),
        (BEIT, "a.pth", "DeiT's and MAE's code, whose files 'pth' is for, have no "),
        (replace(PLAIN, class_token=False, pool="mean"), "a.pth", "have no class_token False"),
        (replace(PLAIN, pool="cls_mean"), "a.pth", "cannot express pool cls_mean"),
        (replace(PLAIN, heads=1), "a.pth", "cannot express heads 1, which becomes 2"),
        (replace(FIRST, window_fit="pad"), "a.pth", "windows no larger than their maps"),
        (replace(FIRST, window_size=3), "a.pth", "and its window 3; choose"),
        (replace(FIRST, mask_token=True), "a.pth", "has no place for mask_token"),
        (replace(test_cvt.AUTHORS, activation="gelu"), "a.pth", "cannot express activation gelu"),
        (replace(test_cvt.AUTHORS, final_norm=False, num_classes=0), "a.pth", "a norm after its last stage"),
        (replace(test_mvit.TINY, depths=(2, 1)), "a.pth", "holds 1 layers that widen"),
        (replace(NARROW, layer_scale=0.1), "a.pth", "no layer scale; choose 'timm' or 'hf'"),
        (replace(NARROW, position="window", position_grid=(3, 5)), "a.pth", "has a position for each token"),
        (replace(NARROW, image_size=(32, 64)), "a.pth", "says nothing of images that are not square"),
        (replace(PLAIN, image_size=(16, 24)), "a.pth", "says nothing of images that are not square"),
    ],
)  # fmt: skip
def test_what_the_authors_code_has_not_is_refused(config, name, why, tmp_path):
    with pytest.raises(ConfigError) as raised:
        write(config, tmp_path / name, "pth")
    assert why in str(raised.value)
    assert str(raised.value).isprintable()
    assert not list(tmp_path.iterdir())


def test_every_type_and_shape_comes_back(tmp_path):
    arrays = {
        name: array for name, array in torch_writer.arrays().items() if ".uint" not in name or "8" in name
    }
    arrays |= {"counts": np.array(7), "long": np.zeros((1, 0, 2), np.int64)}
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    torch_writing.write(tmp_path / "all.pth", specs, arrays.__getitem__)
    same(open_checkpoint(tmp_path / "all.pth").tensors, arrays)
    for dtype in ("complex64", "uint16"):  # the second is no type of `torch.load(weights_only=True)`
        with pytest.raises(CheckpointError, match=f"w is {dtype}; PyTorch holds float32"):
            torch_writing.write(tmp_path / "no.pth", [("w", (), np.dtype(dtype))], arrays.__getitem__)


def test_the_file_is_torchs(tmp_path):
    """A small case that `torch.load(weights_only=True)` of torch 2.13 reads as written."""
    path, arrays = tmp_path / "small.pth", {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    torch_writing.write(path, [("w", (2, 3), np.dtype("float32"))], arrays.__getitem__)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            f"archive/{name}" for name in ("data.pkl", "byteorder", "version", "data/0")
        ]
        assert archive.read("archive/data/0") == arrays["w"].tobytes()
        pickle = archive.read("archive/data.pkl")
        assert path.read_bytes().index(arrays["w"].tobytes()) % 64 == 0
    assert [(op.name, arg) for op, arg, _ in pickletools.genops(pickle)] == [
        ("PROTO", 2), ("EMPTY_DICT", None), ("BINUNICODE", "model"), ("GLOBAL", "collections OrderedDict"),
        ("EMPTY_TUPLE", None), ("REDUCE", None), ("MARK", None), ("BINUNICODE", "w"),
        ("GLOBAL", "torch._utils _rebuild_tensor_v2"), ("MARK", None), ("MARK", None), ("BINUNICODE", "storage"),
        ("GLOBAL", "torch FloatStorage"), ("BINUNICODE", "0"), ("BINUNICODE", "cpu"), ("BININT", 6), ("TUPLE", None),
        ("BINPERSID", None), ("BININT", 0), ("MARK", None), ("BININT", 2), ("BININT", 3), ("TUPLE", None),
        ("MARK", None), ("BININT", 3), ("BININT", 1), ("TUPLE", None), ("NEWFALSE", None),
        ("GLOBAL", "collections OrderedDict"), ("EMPTY_TUPLE", None), ("REDUCE", None), ("TUPLE", None),
        ("REDUCE", None), ("SETITEMS", None), ("SETITEM", None), ("STOP", None),
    ]  # fmt: skip


def test_large_storages_have_sizes_of_64_bits(tmp_path):
    shape = (2**31 + 1,)
    assert b"\x8a\x05" + (2**31 + 1).to_bytes(5, "little") in torch_writing.pickled(
        [("w", shape, np.dtype("float32"))], ""
    )
