"""PyTorch files are read like PyTorch reads them, and no pickle in them is ever executed.

The files in `tests/reference/torch` were written by PyTorch 2.13 with these lines:

    import argparse
    from collections import OrderedDict
    import torch
    def ramp(*shape, dtype=torch.float32):
        return torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
    base = ramp(4, 6)
    model = OrderedDict(
        weight=torch.nn.Parameter(base), transposed=base.t(), part=base[1:3, ::2], scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3), half=ramp(5, dtype=torch.float16), bf16=ramp(5, dtype=torch.bfloat16),
        double=ramp(3, dtype=torch.float64), long=ramp(3, dtype=torch.int64), flags=torch.tensor([True, False]),
    )
    model._metadata = OrderedDict(version=1)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    args = argparse.Namespace(lr=0.1, betas=(0.9, 0.95), device=torch.device("cpu"))
    file = {"model": model, "optimizer": optimizer.state_dict(), "epoch": 3, "args": args, "size": torch.Size([2])}
    torch.save(file, "tests/reference/torch/zip.pth")
    torch.save(file, "tests/reference/torch/legacy.pth", _use_new_zipfile_serialization=False)
    names = ("backbone.cls_token", "backbone.norm.weight", "head.mlp.0.weight", "head.last_layer.weight_v")
    teacher = {name: ramp(i + 2) for i, name in enumerate(names)}
    student = {f"module.{name}": -value for name, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "args": args, "epoch": 1}, "tests/reference/torch/dino.pth")
"""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.weights.checks import damages, refused, same
from tests.weights.torch_writer import (
    Call,
    Global,
    Raw,
    arrays,
    encode,
    pickled,
    save_legacy,
    save_zip,
    state_dict,
    view,
    whole,
)
from vit_jax.errors import CheckpointError
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.formats.pickle_reader import read_pickle

FILES = Path(__file__).parent.parent / "reference" / "torch"
EIGHT = np.arange(8, dtype=np.float32)


def ramp(*shape, dtype="f4"):
    return np.arange(np.prod(shape), dtype="f4").reshape(shape).astype(dtype)


def tensors(path, part=None):
    return open_checkpoint(path, part).tensors


def opened(path, tensor, storages=None):
    """The single tensor of a file that holds it under the name `a`."""
    return tensors(save_zip(path, {"a": tensor}, storages or {"0": EIGHT.tobytes()}))["a"]


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_reads_what_pytorch_writes(name):
    base = ramp(4, 6)
    expected = {
        "weight": base,
        "transposed": base.T,
        "part": base[1:3, ::2],
        "scalar": np.array(2.5, "f4"),
        "empty": np.zeros((0, 3), "f4"),
        "half": ramp(5, dtype="f2"),
        "bf16": ramp(5, dtype=ml_dtypes.bfloat16),
        "double": ramp(3, dtype="f8"),
        "long": ramp(3, dtype="i8"),
        "flags": np.array([True, False]),
    }
    same(tensors(FILES / name), expected)
    assert list(tensors(FILES / name)) == list(expected)
    assert open_checkpoint(FILES / name).format == "torch"


def test_of_a_dino_file_the_teacher_counts():
    found = tensors(FILES / "dino.pth")
    names = [
        "cls_token",
        "norm.weight",
        "projection_head.mlp.0.weight",
        "projection_head.last_layer.weight_v",
    ]
    same(found, {name: ramp(i + 2) for i, name in enumerate(names)})
    same(tensors(FILES / "dino.pth", "student"), {name: -ramp(i + 2) for i, name in enumerate(names)})
    refused(lambda: tensors(FILES / "dino.pth", "teachr"), "Did you mean 'teacher'")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("prefix", ["archive/", "", "my model/"])
def test_archives(tmp_path, method, prefix):
    content, storages = state_dict(arrays())
    same(tensors(save_zip(tmp_path / "x", content, storages, prefix, method)), arrays())


def test_old_files(tmp_path):
    content, storages = state_dict(arrays())
    counts = {str(i): array.size for i, array in enumerate(arrays().values())}
    same(tensors(save_legacy(tmp_path / "x", content, storages, counts)), arrays())


def test_the_order_of_bytes(tmp_path):
    other = "big" if sys.byteorder == "little" else "little"
    content, storages = state_dict({"a": EIGHT.astype(ml_dtypes.bfloat16), "b": EIGHT})
    storages = {
        "0": EIGHT.astype(ml_dtypes.bfloat16).view("u2").byteswap().tobytes(),
        "1": EIGHT.byteswap().tobytes(),
    }
    path = save_zip(tmp_path / "x", content, storages, members={"byteorder": other.encode()})
    same(tensors(path), {"a": EIGHT.astype(ml_dtypes.bfloat16), "b": EIGHT})


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (2, 4), (4, 1)),
        (0, (4, 2), (1, 4)),
        (1, (2, 3), (4, 1)),
        (7, (), ()),
        (0, (2, 2), (2, 3)),
        (8, (0,), (1,)),
    ],
)
def test_views(tmp_path, offset, shape, strides):
    expected = np.lib.stride_tricks.as_strided(EIGHT[offset:], shape, [4 * step for step in strides])
    same({"a": opened(tmp_path / "x", view("0", "Float", 8, offset, shape, strides))}, {"a": expected})


def test_other_ways_of_rebuilding(tmp_path):
    old = view("0", "Float", 8, 2, (3,), (1,), "_rebuild_tensor")
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (old, True, OrderedDict()))
    same({"a": opened(tmp_path / "x", parameter)}, {"a": EIGHT[2:5]})
    bits = view("0", "Byte", 32, 0, (16,), (1,))
    typed = bits.arguments + (Global("torch", "uint16"), None)
    untyped = Call(Global("torch._utils", "_rebuild_tensor_v3"), typed)
    same({"a": opened(tmp_path / "x", untyped)}, {"a": EIGHT.view("u2")})


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (8,), (1,)),
        (0, (9,), (1,)),
        (0, (3, 2), (4, 1)),
        (0, (10**6,), (0,)),
        (0, (2**40, 2**40), (0, 0)),
        (-1, (2,), (1,)),
        (2**47, (), ()),
        (0, (2,), (-1,)),
        (0, (2,), (2**60,)),
        (0, (2,), (1, 1)),
        (0, (True,), (1,)),
        (None, (2,), (1,)),
    ],
)
def test_views_beyond_their_storage(tmp_path, offset, shape, strides):
    refused(lambda: opened(tmp_path / "x", view("0", "Float", 8, offset, shape, strides)), "'a'")


def test_storages_of_another_size(tmp_path):
    tensor = view("0", "Float", 8, 0, (8,), (1,))
    refused(lambda: opened(tmp_path / "x", tensor, {"0": b"\0" * 31}), "does not have 32 bytes")
    refused(lambda: opened(tmp_path / "x", tensor, {"1": b"\0" * 32}), "missing")
    content = {"a": tensor}
    refused(lambda: tensors(save_legacy(tmp_path / "x", content, {"0": b"\0" * 31}, {"0": 8})), "ends before")
    refused(lambda: tensors(save_legacy(tmp_path / "x", content, {"0": b"\0" * 32}, {"0": 9})), "not where")
    refused(lambda: tensors(save_legacy(tmp_path / "x", content, {"1": b"\0" * 32}, {"1": 8})), "not where")
    refused(lambda: tensors(save_legacy(tmp_path / "x", content, {}, {})), "ends before")


def nested(names):
    """A file's dictionary with different tensors under each of the paths."""
    content = {}
    for i, name in enumerate(names):
        place = content
        *parents, last = name.split("/")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = view("0", "Float", 8, i, (), ())
    return content


@pytest.mark.parametrize(
    ("names", "part", "found"),
    [
        (["w", "v"], None, {"w": 0, "v": 1}),
        (["model/w", "model_ema/w"], None, {"w": 0}),
        (["model/w", "model_ema/w"], "model_ema", {"w": 1}),
        (["state_dict/module.w", "state_dict/module.v"], None, {"w": 0, "v": 1}),
        (["model/state_dict/w"], None, {"w": 0}),
        (["loss", "encoder/module.w", "target_encoder/module.w"], None, {"w": 2}),
        (["model/_orig_mod.module.w"], None, {"w": 0}),
        (["model/module.w", "model/v"], None, {"module.w": 0, "v": 1}),
        (["module/w"], None, {"w": 0}),
        (["backbone.w", "w"], None, {"backbone.w": 0, "w": 1}),
        (["head.weight", "norm.weight"], None, {"head.weight": 0, "norm.weight": 1}),
    ],
)
def test_which_tensors_and_under_which_names(tmp_path, names, part, found):
    content = nested(names) | {"epoch": 3, "optimizer": {"lr": 1}, 7: None}
    read = tensors(save_zip(tmp_path / "x", content, {"0": EIGHT.tobytes()}), part)
    assert {name: int(tensor.read()) for name, tensor in read.items()} == found


def test_files_without_weights(tmp_path):
    refused(lambda: tensors(save_zip(tmp_path / "x", {"epoch": 1}, {})), "it has 'epoch'")
    refused(lambda: tensors(save_zip(tmp_path / "x", [1], {})), "no dictionary")
    refused(
        lambda: tensors(save_zip(tmp_path / "x", {"model": whole("0", EIGHT)}, {"0": EIGHT.tobytes()}), "m"),
        "has",
    )
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("a.txt", b"")
    refused(lambda: tensors(tmp_path / "x"), "data.pkl")


def test_programs_are_refused_with_the_remedy(tmp_path):
    content, storages = state_dict({"a": EIGHT})
    for member in ("constants.pkl", "code/__torch__.py"):
        path = save_zip(tmp_path / "x", content, storages, members={member: b""})
        refused(lambda path=path: tensors(path), "openai/clip-vit-base-patch32")


class Evil:
    """Creates a file if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


NAMES = [
    ("os", "system"),
    ("posix", "system"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("torch", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("numpy.testing._private.utils", "runstring"),
    ("collections", "OrderedDict.fromkeys"),
    ("torch.nn.modules.linear", "Linear"),
    ("", ""),
    ("os\x1b[31m", "x"),
]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_names_that_are_not_listed(tmp_path, module, name):
    for content in (Global(module, name), Call(Global(module, name), ("touch ran",))):
        for path in (
            save_zip(tmp_path / "x", {"a": content}, {}),
            save_legacy(tmp_path / "y", {"a": content}, {}, {}),
        ):
            line = refused(lambda path=path: tensors(path), "harmless")
            assert "Nothing in it was executed" in line
            assert repr(f"{module}.{name}") in line


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_executed(tmp_path, protocol):
    evil = pickle.dumps({"model": Evil(tmp_path / "ran")}, protocol)
    refused(lambda: tensors(save_zip(tmp_path / "x", evil, {})), "")
    (tmp_path / "x").write_bytes(evil if protocol > 1 else b"\x80\x01" + evil)
    refused(lambda: tensors(tmp_path / "x"), "")
    assert not (tmp_path / "ran").exists()
    pickle.loads(evil)["model"].close()
    assert (tmp_path / "ran").exists(), "the test would not notice an execution"


def call(name, arguments=b")"):
    module, _, last = name.rpartition(".")
    return encode(Global(module, last)) + arguments + b"R"


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b"N",
        b"0.",
        b"\x80\x02.",
        b"\x80\x02(.",
        b"\x80\x02t.",
        b"\x80\x02u.",
        b"\x80\x02}K\x01s.",
        b"\x80\x02}](s.",
        b"\x80\x02}]Ns.",
        b"\x80\x02}))Ns.",
        b"\x80\x02Nb.",
        b"\x80\x02)R.",
        b"\x80\x02h\x05.",
        b"\x80\x02NQ.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x02\x8b\xff\xff\xff\x7fa.",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x02" + b"(" * 1_000_001,
        b"\x80\x02" + b"]" * 999_999 + b".",
        b"\x80\x02N" + b"\x85" * 999_000 + b".",
        b"\x80\x02N2.",
        b"\x80\x02S'\\x'\n.",
        b"cos",
        b"\x80\x02c" + b"a" * 1000,
        pickled({"a": Raw(call("torch.FloatStorage"))}),
        pickled({"a": Raw(call("torch._utils._rebuild_tensor_v2"))}),
        pickled({"a": Raw(call("torch._utils._rebuild_parameter"))}),
        pickled({"a": Raw(call("collections.OrderedDict", encode(([1],))))}),
        pickled({"a\nb": view("0", "Float", 8, 0, (8,), (1,))}),
        pickled({"\ud800": view("0", "Float", 8, 0, (8,), (1,))}),
        pickled({3: view("0", "Float", 8, 0, (8,), (1,))}),
        pickled({"a": view("0", "Float", 2**60, 0, (8,), (1,))}),
        pickled({"a": view("0", "Float", -8, 0, (8,), (1,))}),
        pickled({"a": view(7, "Float", 8, 0, (8,), (1,))}),
        pickled({"a": view("0", "ComplexFloat", 8, 0, (8,), (1,))}),
    ],
    ids=lambda code: repr(code[:20]),
)
def test_pickles_that_say_nothing(tmp_path, code):
    refused(lambda: tensors(save_zip(tmp_path / "x", code, {"0": EIGHT.tobytes()})), "")


def test_dictionaries_that_hold_themselves(tmp_path):
    inner = b"}q\x00X\x05\0\0\0modelh\x00s"
    refused(lambda: tensors(save_zip(tmp_path / "x", b"\x80\x02" + inner + b".", {})), "holds no weights")
    doubled = b"}q\x00" + b"".join(
        b"}(X\x05\0\0\0modelh%cX\x07\0\0\0teacherh%cuq%c" % (i, i, i + 1) for i in range(99)
    )
    refused(lambda: tensors(save_zip(tmp_path / "x", b"\x80\x02" + doubled + b".", {})), "holds no weights")


def test_what_training_leaves_beside_the_weights(tmp_path):
    namespace = Raw(encode(Global("argparse", "Namespace")) + b")\x81" + encode({"lr": 1}) + b"b")
    dtype = Call(Global("numpy", "dtype"), ("f8", False, True), (3, "<", None, None, None))
    text = Call(Global("_codecs", "encode"), ("abc", "latin1"))
    number = Call(Global("numpy.core.multiarray", "scalar"), (dtype, text))
    content, storages = state_dict({"a": EIGHT})
    content = {"model": content, "args": namespace, "best": number, "dtype": Global("torch", "float32")}
    same(tensors(save_zip(tmp_path / "x", content, storages)), {"a": EIGHT})


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "dino.pth", "dalle_module.pkl"])
def test_every_damage_is_refused_or_read(tmp_path, name):
    for damaged in damages((FILES / name).read_bytes(), 100):
        (tmp_path / "x").write_bytes(damaged)
        refused(lambda: [t.read() for t in tensors(tmp_path / "x").values()], "", may_pass=True)


@pytest.mark.filterwarnings("default")
def test_names_with_escapes_that_there_are_not():
    # Python's own reader warns and goes on.
    with pytest.raises(CheckpointError, match="holds a damaged pickle"):
        read_pickle(io.BytesIO(b"c\\q\nx\n."), Path("weights.pth"))
