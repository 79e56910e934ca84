"""npz files agree with numpy both ways; pickles, damage and exaggerated sizes are refused with one line."""

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from tests.weights.checks import damages, refused, same
from vit_jax.weights.formats import npz_format
from vit_jax.weights.formats.zip_archive import Archive

NUMBERS = ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


def arrays():
    rng = np.random.default_rng(0)
    named = {f"params/{name}": (rng.normal(size=(2, 3)) * 9).astype(name) for name in NUMBERS}
    named |= {"scalar": np.array(3.0, np.float32), "empty": np.zeros((0, 4), np.float32)}
    return named | {"long": rng.normal(size=(300, 500)).astype(np.float32)}


def open_npz(path):
    return npz_format.read(Archive(path))


def member(path, header, data=b"", name="a.npy", version=b"\x01\x00", method=zipfile.ZIP_STORED):
    text = header.encode()
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data)
    return path


def header(descr="<f4", fortran=False, shape="(2,)"):
    return f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path, save):
    save(tmp_path / "x.npz", **arrays())
    same(open_npz(tmp_path / "x.npz"), arrays())
    assert list(open_npz(tmp_path / "x.npz")) == list(arrays())


def test_writes_what_numpy_reads_the_same_each_time(tmp_path):
    specs = [(name, array.shape, array.dtype) for name, array in arrays().items()]
    for name in ("x.npz", "y.npz"):
        npz_format.write(tmp_path / name, specs, arrays().__getitem__)
    with np.load(tmp_path / "x.npz") as loaded:
        assert list(loaded) == list(arrays())
        assert all(np.array_equal(loaded[name], array) for name, array in arrays().items())
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


def test_bfloat16_is_stored_as_raw_elements(tmp_path):
    array = np.linspace(-3, 3, 12).reshape(3, 4).astype(ml_dtypes.bfloat16)
    npz_format.write(tmp_path / "x.npz", [("a", array.shape, array.dtype)], lambda _: array)
    same(open_npz(tmp_path / "x.npz"), {"a": array})
    with np.load(tmp_path / "x.npz") as loaded:
        assert loaded["a"].dtype == np.dtype("V2")
        assert loaded["a"].tobytes() == array.tobytes()


def test_orders_of_dimensions_and_bytes(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.savez(tmp_path / "x.npz", f=np.asfortranarray(array), big=array.astype(">f4"))
    same(open_npz(tmp_path / "x.npz"), {"f": array, "big": array})


def test_headers_of_other_writers(tmp_path):
    text = "{'shape': (2L, 1L), 'descr': '<f4', 'fortran_order': False}\n"
    same(open_npz(member(tmp_path / "x", text, b"\0" * 8)), {"a": np.zeros((2, 1), np.float32)})


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{"a": 1}], object))
    refused(lambda: open_npz(tmp_path / "x.npz"), "pickled")


@pytest.mark.parametrize(
    ("text", "data", "why"),
    [
        (header(shape="(281474976710656,)"), b"", "shape"),
        (header(shape="(100000000,)"), b"\0" * 8, "declares 400000000 bytes but has 8"),
        (header(), b"\0" * 7, "declares 8"),
        (header(shape="(2"), b"\0" * 8, "header"),
        (header(shape="(2,,)"), b"\0" * 8, "header"),
        (header(shape="(-2,)"), b"\0" * 8, "header"),
        (header(shape="(" + "1," * 40 + ")"), b"\0" * 4, "shape"),
        (header(descr="<c8"), b"\0" * 16, "c8"),
        (header(descr="<U2"), b"\0" * 16, "U2"),
        (header(descr="|V3"), b"\0" * 6, "V3"),
        (header(fortran="__import__('os')"), b"\0" * 8, "header"),
        (header() * 2, b"\0" * 8, "header"),
        ("", b"", "header"),
    ],
)
def test_headers_that_say_no_array_of_numbers(tmp_path, text, data, why):
    refused(lambda: open_npz(member(tmp_path / "x", text, data)), why)


def test_other_members_are_refused(tmp_path):
    refused(lambda: open_npz(member(tmp_path / "x", header(), b"\0" * 8, name="a.txt")), "not an array")
    refused(lambda: open_npz(member(tmp_path / "x", header(), b"\0" * 8, version=b"\x09\x00")), "header")
    refused(
        lambda: open_npz(member(tmp_path / "x", header(), b"\0" * 8, method=zipfile.ZIP_BZIP2)), "deflated"
    )


def test_twice_the_same_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("a.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", b"")
    refused(lambda: open_npz(tmp_path / "x"), "twice")


def test_members_larger_than_their_bytes_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * 1000)
    content = buffer.getvalue()
    for place in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        content = content[:place] + (2**31).to_bytes(4, "little") + content[place + 4 :]
    (tmp_path / "x").write_bytes(content)
    refused(lambda: open_npz(tmp_path / "x"), "declares more bytes")


def test_flipped_bits_are_noticed(tmp_path):
    array = np.zeros(1000, np.float32)
    np.savez(tmp_path / "x.npz", a=array)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[2000] ^= 1
    (tmp_path / "x.npz").write_bytes(bytes(content))
    refused(open_npz(tmp_path / "x.npz")["a"].read, "CRC")


def test_every_damage_is_refused_or_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **arrays())
    for damaged in damages((tmp_path / "x.npz").read_bytes(), 60):
        (tmp_path / "y.npz").write_bytes(damaged)
        refused(lambda: [t.read() for t in open_npz(tmp_path / "y.npz").values()], "", may_pass=True)


def test_arrays_are_read_from_several_threads_at_once(tmp_path):
    named = {f"a{i}": np.full((50, 1000), i, np.float32) for i in range(40)}
    np.savez(tmp_path / "many.npz", **named)
    tensors = npz_format.read(Archive(tmp_path / "many.npz"))
    with ThreadPoolExecutor(8) as pool:
        read = dict(zip(tensors, pool.map(lambda tensor: tensor.read(), tensors.values())))
    for name, array in named.items():
        np.testing.assert_array_equal(read[name], array)
