"""Writes what `torch.save` writes, without PyTorch: pickles put together by hand, and both containers."""

import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from vit_jax.weights.formats.pickle_reader import KINDS
from vit_jax.weights.formats.torch_format import MAGIC, PROTOCOL


@dataclass
class Global:
    """A name that the pickle mentions."""

    module: str
    name: str


@dataclass
class Call:
    """A call of a name, and the attributes then given to the object."""

    function: Global
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass
class Stored:
    """A reference to a storage."""

    identity: tuple[Any, ...]


@dataclass
class Raw:
    """Instructions as they are."""

    code: bytes


def encode(value):
    """The instructions that make a value."""
    match value:
        case Raw():
            return value.code
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            build = b"" if value.state is None else encode(value.state) + b"b"
            return encode(value.function) + encode(value.arguments) + b"R" + build
        case Stored():
            return encode(value.identity) + b"Q"
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int() if 0 <= value < 256:
            return b"K" + bytes([value])
        case int():
            content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(content)]) + content
        case str():
            content = value.encode("utf-8", "surrogatepass")
            return b"X" + len(content).to_bytes(4, "little") + content
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            empty = (
                encode(Call(Global("collections", "OrderedDict"), ())) if type(value) is OrderedDict else b"}"
            )
            return empty + b"(" + b"".join(encode(key) + encode(item) for key, item in value.items()) + b"u"
    raise TypeError(type(value))


def pickled(value):
    """A whole pickle of protocol 2."""
    return b"\x80\x02" + encode(value) + b"."


def view(key, kind, stored, offset, shape, strides, function="_rebuild_tensor_v2"):
    """A tensor within a storage of `stored` elements."""
    storage = Stored(("storage", Global("torch", f"{kind}Storage"), key, "cpu", stored))
    arguments = (storage, offset, tuple(shape), tuple(strides), False, OrderedDict())
    return Call(Global("torch._utils", function), arguments[: 4 if function == "_rebuild_tensor" else 6])


def whole(key, array):
    """A contiguous tensor that fills its storage."""
    kind = KINDS[np.dtype(array.dtype).name]
    return view(key, kind, array.size, 0, array.shape, [s // array.itemsize for s in array.strides])


def state_dict(arrays, first=0):
    """A state dict of contiguous tensors, and the storages they need, numbered from `first`."""
    tensors = OrderedDict(
        (name, whole(str(i), array)) for i, (name, array) in enumerate(arrays.items(), first)
    )
    return tensors, {str(i): array.tobytes() for i, array in enumerate(arrays.values(), first)}


def save_zip(path, content, storages, prefix="archive/", method=zipfile.ZIP_STORED, members=()):
    """The container of PyTorch 1.6 and later."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{prefix}data.pkl", content if isinstance(content, bytes) else pickled(content))
        for name, data in {"version": b"3\n", ".data/serialization_id": b"1", **dict(members)}.items():
            archive.writestr(prefix + name, data)
        for key, data in storages.items():
            archive.writestr(f"{prefix}data/{key}", data)
    return path


def save_legacy(path, content, storages, counts):
    """The older container; `counts` are the elements of each storage."""
    system = {"protocol_version": PROTOCOL, "little_endian": True}
    parts = [pickled(value) for value in (MAGIC, PROTOCOL, system, content, list(storages))]
    parts += [counts[key].to_bytes(8, "little") + data for key, data in storages.items()]
    path.write_bytes(b"".join(parts))
    return path


def arrays():
    """Arrays of every type, with unusual shapes."""
    rng = np.random.default_rng(0)
    types = [ml_dtypes.bfloat16 if name == "bfloat16" else name for name in KINDS]
    named = {f"w.{np.dtype(t).name}": (rng.normal(size=(2, 3)) * 9).astype(t) for t in types}
    return named | {"scalar": np.array(3.5, np.float32), "empty": np.zeros((0, 3), np.float32)}
