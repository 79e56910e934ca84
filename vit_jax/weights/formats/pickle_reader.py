"""Reading the pickles inside PyTorch files without executing them.

A pickle is a program that names Python functions and calls them. This is an interpreter of its own for the few
instructions that `torch.save` writes. It builds plain values; a name of a function is only a text, accepted if it
is in a short list and never looked up. Of the listed ones, those that rebuild tensors give `TensorRecord`s,
dictionaries stay dictionaries, and everything else (arguments of the training, numbers of numpy) gives `OPAQUE`.
Of a module that was saved whole, made of a few listed classes, it gives what its state dict would be.
"""

import io
import pickletools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from vit_jax.errors import CheckpointError
from vit_jax.weights.formats.tensors import short

MAX_BYTES = 16_000_000  # the largest training states of published ViTs have about 2 MB
MAX_INSTRUCTIONS = 1_000_000

# All that only make plain values, and those that name, call, change or refer to something.
_ALLOWED = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT MEMOIZE BINGET "
    "LONG_BINGET GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID"
)
_INSTRUCTIONS = {op.code.encode("latin-1"): op for op in pickletools.opcodes if op.name in _ALLOWED.split()}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

DICTIONARY = "collections.OrderedDict"
TENSORS = (
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
)
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
HARMLESS = (
    "argparse.Namespace",
    "collections.Counter",
    "pathlib.PosixPath",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "__builtin__.set",
    "builtins.set",
)
# Classes of modules that were saved whole: those of OpenAI's `encoder.pkl`.
MODULES = (
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.linear.Identity",
    "dall_e.encoder.Encoder",
    "dall_e.encoder.EncoderBlock",
    "dall_e.utils.Conv2d",
)
MAX_NESTED = 50  # modules within modules
# Types of elements, and the classes of storages that hold them.
KINDS = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
    "uint16": "UInt16",
    "uint32": "UInt32",
    "uint64": "UInt64",
}
STORAGES = {f"{m}.{kind}Storage": name for m in ("torch", "torch.cuda") for name, kind in KINDS.items()}
STORAGES |= {"torch.storage.UntypedStorage": "uint8", "torch.UntypedStorage": "uint8"}
_KNOWN = {
    DICTIONARY,
    *TENSORS,
    *PARAMETERS,
    *HARMLESS,
    *MODULES,
    *STORAGES,
    *(f"torch.{name}" for name in KINDS),
}


@dataclass(frozen=True)
class Name:
    """A dotted name that a pickle mentions; only text."""

    text: str


@dataclass(frozen=True)
class Storage:
    """A run of equal elements outside the pickle.

    Attributes:
      key: which one.
      dtype: name of its elements' type.
      size: how many elements it has.
    """

    key: str
    dtype: str
    size: int


@dataclass(frozen=True)
class TensorRecord:
    """A view of a storage as a tensor; all of it unchecked.

    Attributes:
      storage: the elements.
      dtype: name of the tensor's type.
      offset: of the first element, in elements of `dtype`.
      shape: whatever the pickle gives as dimensions.
      strides: whatever it gives as steps between elements.
    """

    storage: Storage
    dtype: str
    offset: Any
    shape: Any
    strides: Any


@dataclass(frozen=True)
class Module:
    """A module that was saved whole: its attributes, as plain values."""

    attributes: dict[Any, Any] = field(default_factory=dict)

    def state(self, prefix: str = "", depth: int = MAX_NESTED) -> Iterator[tuple[str, TensorRecord]]:
        """Yield its tensors, and those of the modules in it, by the names that its state dict has."""
        if not depth:
            raise ValueError
        for kind in ("_parameters", "_buffers", "_modules"):
            for name, value in (self.attributes.get(kind) or {}).items():
                if isinstance(value, TensorRecord):
                    yield f"{prefix}{_text(name)}", value
                elif isinstance(value, Module):
                    yield from value.state(f"{prefix}{_text(name)}.", depth - 1)


class _Opaque:
    """Stands for an object that no caller needs."""


class _Mark:
    """Where a group of values begins on the stack."""


OPAQUE = _Opaque()
_MARK = _Mark()


class _Refused(Exception):
    """Why a pickle is not read."""


class _Bounded(io.RawIOBase):
    """At most `MAX_BYTES` of a stream, whatever lengths the instructions give."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._left = MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            raise _Refused(f"it is longer than {MAX_BYTES} bytes")
        self._left -= size
        return self._stream.read(size)

    def readline(self, size: int | None = -1) -> bytes:
        line = self._stream.readline(200)
        self._left -= len(line)
        return line


def read_pickle(stream: BinaryIO, path: Path, storages: list[Storage] | None = None) -> Any:
    """Return what a pickle describes, as plain values.

    Args:
      stream: placed at the pickle's first byte; left behind its last.
      path: names the file in messages.
      storages: a list to which every storage mentioned is added.

    Raises:
      CheckpointError: the pickle is damaged or needs something that is never executed.
    """
    try:
        with warnings.catch_warnings():
            # Text with escapes that there are not, which Python complains of and reads all the same.
            warnings.simplefilter("error", DeprecationWarning)
            content = _Interpreter(_Bounded(stream), [] if storages is None else storages).run()
            return dict(content.state()) if isinstance(content, Module) else content
    except _Refused as refused:
        raise CheckpointError(
            f"{path} is not read: {refused}. Nothing in it was executed; if its source is trusted, save the weights "
            "alone as safetensors with the library that wrote it."
        ) from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, DeprecationWarning):
        # What the instructions' arguments and the stack raise when they do not fit each other.
        raise CheckpointError(f"{path} holds a damaged pickle; it was not copied completely.") from None


class _Interpreter:
    """The stack machine of pickle, with values that do nothing."""

    def __init__(self, stream: _Bounded, storages: list[Storage]):
        self._stream: Any = stream
        self._storages = storages
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Execute instructions until the end and return the value left."""
        for _ in range(MAX_INSTRUCTIONS):
            code = self._stream.read(1)
            op = _INSTRUCTIONS.get(code)
            if op is None:
                if not code:
                    raise ValueError
                raise _Refused(f"its pickle uses the instruction {code!r}, which no saved weights need")
            if op.name == "STOP":
                return self._stack.pop()
            argument = None
            if op.arg is not None:
                argument = op.arg.reader(self._stream)
            self._step(op.name, argument)
        raise _Refused(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "TUPLE":
            stack.append(tuple(self._group()))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(self._last(_TUPLES[name]))]
        elif name == "APPEND":
            (value,) = self._pop(1)
            self._top(list).append(value)
        elif name == "APPENDS":
            values = self._group()
            self._top(list).extend(values)
        elif name == "SETITEM":
            self._set(self._pop(2))
        elif name == "SETITEMS":
            self._set(self._group())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(_name(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            module, attribute = self._pop(2)
            stack.append(_name(f"{_text(module)}.{_text(attribute)}"))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = self._pop(2)
            stack.append(_call(function, arguments))
        elif name == "BUILD":
            # Attributes: of dictionaries only `_metadata`, of most objects not needed.
            (state,) = self._pop(1)
            built = self._top((dict, _Opaque, TensorRecord, Module))
            if isinstance(built, Module):
                built.attributes.update(_dictionary(state))
        elif name == "BINPERSID":
            (identity,) = self._pop(1)
            if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
                stack.append(identity[1])  # a class, which files before torch 1.6 keep with its source
                return
            stack.append(_storage(identity))
            self._storages.append(stack[-1])
        else:  # the numbers, texts and bytes
            stack.append(argument)

    def _last(self, count: int) -> list[Any]:
        values = self._stack[-count:]
        if len(values) < count or any(value is _MARK for value in values):
            raise IndexError
        return values

    def _pop(self, count: int) -> list[Any]:
        values = self._last(count)
        del self._stack[-count:]
        return values

    def _group(self) -> list[Any]:
        """Remove and return what is above the last mark."""
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError
        values = self._stack[place + 1 :]
        del self._stack[place:]
        return values

    def _top(self, kind: Any) -> Any:
        """The value that an instruction changes."""
        if not isinstance(self._stack[-1], kind):
            raise TypeError
        return self._stack[-1]

    def _set(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError
        self._top(dict).update((_key(key), value) for key, value in zip(items[::2], items[1::2]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _dictionary(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _key(value: Any) -> Any:
    """A key of a dictionary; nested tuples are left out because hashing them can exhaust the stack."""
    if not isinstance(value, str | int | float | bytes | None):
        raise TypeError
    return value


def _name(text: str) -> Name:
    if text not in _KNOWN:
        raise _Refused(f"its pickle needs {short(text)}, which is not among the names known to be harmless")
    return Name(text)


def _call(function: Any, arguments: Any) -> Any:
    """What calling a listed function would give, as a value without behaviour."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise TypeError
    if function.text == DICTIONARY:
        pairs = arguments[-1] if arguments and isinstance(arguments[-1], list) else []
        return {_key(key): value for key, value in pairs}
    if function.text in TENSORS:
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, Storage):
            raise TypeError
        dtype = storage.dtype
        if function.text.endswith("_v3"):
            dtype = arguments[6].text.removeprefix("torch.")
        return TensorRecord(storage, dtype, offset, shape, strides)
    if function.text in PARAMETERS:
        return arguments[0]
    if function.text in HARMLESS:
        return OPAQUE
    if function.text in MODULES:
        return Module()
    raise _Refused(f"its pickle calls {short(function.text)}")


def _storage(identity: Any) -> Storage:
    """A storage from what `torch.save` writes for it: ('storage', type, key, device, size[, view])."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise TypeError
    kind, key, size = identity[1], identity[2], identity[4]
    if (
        not isinstance(kind, Name)
        or kind.text not in STORAGES
        or type(size) is not int
        or not 0 <= size < 2**48
    ):
        raise TypeError
    if identity[5:] not in ((), (None,)):
        raise _Refused("its storages are views of others, as only PyTorch before 0.4 wrote them")
    return Storage(_text(key), STORAGES[kind.text], size)
