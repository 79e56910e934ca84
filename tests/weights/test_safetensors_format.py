"""Safetensors files agree with the safetensors library both ways, and broken ones are refused with one line."""

import json
import struct
import weakref

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.weights.checks import damages, refused, same
from vit_jax.errors import ResourceError
from vit_jax.weights.formats import safetensors_format

DTYPES = [dtype.name for dtype in safetensors_format.DTYPES.values()]


def arrays():
    """Tensors of every dtype and of unusual shapes, in an order that is not the file's."""
    rng = np.random.default_rng(0)
    named = {f"{name}.é": (rng.normal(size=(2, 3)) * 9).astype(name) for name in DTYPES}
    named |= {"scalar": np.array(3.0, np.float32), "empty": np.zeros((0, 4), np.float32)}
    return named | {"a": np.arange(5, dtype=ml_dtypes.bfloat16), "odd": np.arange(3, dtype=np.uint8)}


def raw(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def save(path, named, metadata):
    specs = [(name, array.shape, array.dtype) for name, array in named.items()]
    safetensors_format.write(path, specs, named.__getitem__, metadata)


def test_reads_what_the_library_writes(tmp_path):
    save_file(arrays(), tmp_path / "x", {"format": "pt"})
    tensors = safetensors_format.read(tmp_path / "x")
    same(tensors, arrays())
    assert list(tensors)[-1] == "bool.é"


def test_writes_the_bytes_that_the_library_writes(tmp_path):
    save_file(arrays(), tmp_path / "theirs", {"format": "pt"})
    save(tmp_path / "ours", arrays(), {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    loaded = load_file(tmp_path / "ours")
    assert all(np.array_equal(loaded[name], array) for name, array in arrays().items())


def test_holds_one_tensor_at_a_time(tmp_path):
    given = []

    def read(name):
        assert all(reference() is None for reference in given), "one before is still held"
        array = np.zeros(8, np.float32)
        given.append(weakref.ref(array))
        return array

    safetensors_format.write(tmp_path / "x", [(n, (8,), np.dtype("f4")) for n in "abc"], read, {})
    assert len(given) == 3


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    save(tmp_path / "x", {"a": np.ones(3, np.float32)}, {})
    before = (tmp_path / "x").read_bytes()

    def read(name):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        safetensors_format.write(tmp_path / "x", [("a", (3,), np.dtype("f4"))], read, {})
    assert (tmp_path / "x").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_refuses_to_write_what_the_format_lacks(tmp_path):
    refused(lambda: save(tmp_path / "x", {"a": np.zeros(2, np.complex64)}, {}), "complex64")
    with pytest.raises(ValueError, match="announced"):
        safetensors_format.write(
            tmp_path / "x", [("a", (3,), np.dtype("f4"))], lambda _: np.zeros(2, "f4"), {}
        )


def test_names_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        save(tmp_path / "file" / "x", {"a": np.zeros(2, np.float32)}, {})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "header"),
        (b"\x00" * 7, "header"),
        (raw({}, length=2**63), "more than the file"),
        (raw(b"[]"), "not a JSON object"),
        (raw(b"{" * 5000), "JSON"),
        (raw(b'{"a":' * 5000), "JSON"),
        (raw(b'{"\xff": 1}'), "JSON"),
        (raw(b'{"a": 1, "a": 2}'), "JSON"),
        (raw({"a": entry()}, b"\0" * 7), "7 follow"),
        (raw({"a": entry()}, b"\0" * 9), "9 follow"),
        (raw({"a": entry(), "b": entry()}, b"\0" * 16), "overlap"),
        (raw({"a": entry(offsets=(4, 12))}, b"\0" * 12), "hole"),
        (raw({"a": entry(offsets=(0, 4))}, b"\0" * 4), "takes 8 bytes"),
        (raw({"a": entry(offsets=(-8, 0))}), "offsets"),
        (raw({"a": entry(offsets=(0.0, 8.0))}, b"\0" * 8), "offsets"),
        (raw({"a": entry(shape=(-2,))}, b"\0" * 8), "shape"),
        (raw({"a": entry(shape=(2**62, 2**62, 0), offsets=(0, 0))}), "shape"),
        (raw({"a": entry(shape=(True, 2))}, b"\0" * 8), "shape"),
        (raw({"a": entry(shape=(1,) * 33)}, b"\0" * 8), "shape"),
        (raw({"a": entry("F8_E4M3")}, b"\0" * 8), "F8_E4M3"),
        (raw({"a": entry(["F32"])}, b"\0" * 8), "dtype"),
        (raw({"a": {"dtype": "F32"}}), "lacks"),
        (raw({"a": 3}), "lacks"),
        (raw({"a\nb": entry()}, b"\0" * 8), "printable"),
        (raw({"__metadata__": {"a": 1}}), "metadata"),
    ],
)
def test_refuses_what_breaks_the_format(tmp_path, content, why):
    (tmp_path / "x").write_bytes(content)
    refused(lambda: safetensors_format.read(tmp_path / "x"), why)


def test_every_damage_is_refused_or_read(tmp_path):
    save_file(arrays(), tmp_path / "x")
    for damaged in damages((tmp_path / "x").read_bytes(), 100):
        (tmp_path / "x").write_bytes(damaged)
        refused(
            lambda: [t.read() for t in safetensors_format.read(tmp_path / "x").values()], "", may_pass=True
        )


def test_a_file_cut_after_opening_is_refused(tmp_path):
    save_file(arrays(), tmp_path / "x")
    tensors = safetensors_format.read(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"")
    refused(tensors["a"].read, "ends early")
