"""Makes damaged and malicious weight files from small valid ones, each from a seed of its own."""

import io
import json
import pickletools
import random
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vit_jax.weights.formats import npz_format, safetensors_format

TORCH_FILES = Path(__file__).parent.parent / "tests" / "reference" / "torch"
LENGTHS = (0, 1, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
VALUES = (
    None,
    True,
    -1,
    0,
    0.5,
    2**31,
    2**63,
    2**64,
    1e300,
    "",
    "F8_E4M3",
    "x" * 10_000,
    "\n\x1b",
    [],
    {},
    [[]],
    [2**40] * 3,
)
HEADERS = ("|O", "O", "<f8", "|V2", "|V9", "<c16", "<U9", "|S100000", ">f4", "<f4'", "(('a', 'O'),)")
OPCODES = [op.code.encode("latin-1") for op in pickletools.opcodes]


def valid_files() -> dict[str, list[bytes]]:
    """Return small valid files of every format, by format."""
    arrays = {
        "cls_token": np.ones((1, 1, 8), np.float32),
        "blocks.0.attn.qkv.weight": np.arange(192, dtype=np.float32).reshape(24, 8),
        "head.bias": np.arange(10, dtype=np.float16),
        "steps": np.array(3, np.int64),
    }
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        safetensors_format.write(path, specs, arrays.__getitem__, {"format": "pt"})
        safetensors = path.read_bytes()
        npz_format.write(path, specs, arrays.__getitem__)
        npz = path.read_bytes()
    compressed = io.BytesIO()
    np.savez_compressed(compressed, **arrays)  # pyright: ignore[reportArgumentType]
    torch = [path.read_bytes() for path in sorted(TORCH_FILES.glob("*.pth"))]
    return {"safetensors": [safetensors], "npz": [npz, compressed.getvalue()], "torch": torch}


def attacks(canary: Path) -> list[bytes]:
    """Return pickles that create the file `canary` if anything in them is executed, in many ways of saying so."""
    command = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    calls = [
        ("os", "system", command),
        ("posix", "system", command),
        ("subprocess", "getoutput", command),
        ("builtins", "eval", code),
        ("builtins", "exec", code),
        ("__builtin__", "eval", code),
        ("numpy.testing._private.utils", "runstring", code),
        ("torch.serialization", "load", code),
    ]
    made = []
    for module, name, content in calls:
        named = f"c{module}\n{name}\n".encode()
        stacked = b"".join(_text(part, b"\x8c", "B") for part in (module, name)) + b"\x93"
        text = _text(content)
        arguments = text + (b"}\x86" if name == "runstring" else b"\x85")
        called, replaced = named + arguments + b"R", named + b"sb" + text
        made += [
            b"\x80\x02" + called + b".",
            b"\x80\x04" + stacked + arguments + b"R.",
            b"\x80\x02}" + _text("model") + called + b"s.",
            b"\x80\x02N" + called + b"0.",
            f"(S{content!r}\ni{module}\n{name}\n.".encode(),
            b"(" + named + text + b"o.",
            b"\x80\x02" + named + arguments + b"\x81.",
            b"\x80\x04" + named + arguments + b"}\x92.",
            # A method of a harmless object replaced by the dangerous name, and then used.
            b"\x80\x02ccollections\nOrderedDict\n)R}" + _text("__setitem__") + replaced + text + b"s.",
            b"\x80\x02cargparse\nNamespace\n)\x81}" + _text("__setstate__") + replaced + b"b.",
        ]
    nested = b"c_codecs\nencode\n" + _text(made[0].decode("latin-1")) + _text("latin-1") + b"\x86R\x85R."
    return [
        *made,
        b"\x80\x02cpickle\nloads\n" + nested,
        b"\x80\x02ctorch.storage\n_load_from_bytes\n" + nested,
    ]


def _text(content: str, opcode: bytes = b"X", length: str = "<I") -> bytes:
    return opcode + struct.pack(length, len(content)) + content.encode("latin-1")


class Damage:
    """All choices for one file, drawn from its seed.

    Args:
      seed: decides everything.
      files: valid files by format.
      attacks: pickles that would execute something.
    """

    def __init__(self, seed: str, files: dict[str, list[bytes]], attacks: list[bytes]):
        self._random = random.Random(seed)
        self._files = files
        self._attacks = attacks

    def make(self) -> tuple[str, str, bytes]:
        """Return the format, the kind of damage and the file."""
        kind = self._random.choice(list(self._files))
        content = self._random.choice(self._files[kind])
        ways: list[Callable[[bytes], bytes]] = [self.flip, self.cut, self.splice, self.lengths]
        if kind == "safetensors":
            ways += [self.header, self.header, self.nested]
        elif content.startswith(b"PK"):
            ways += [self.member, self.member, self.archive]
        if kind == "torch":
            ways += [self.attack]
        way = self._random.choice(ways)
        for _ in range(self._random.choice((1, 1, 1, 2, 4)) if way in ways[:4] else 1):
            content = way(content) or b"\0"
        return kind, way.__name__, content

    def flip(self, content: bytes) -> bytes:
        """Change bits."""
        changed = bytearray(content)
        for _ in range(self._random.choice((1, 1, 2, 8, 64))):
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def cut(self, content: bytes) -> bytes:
        """Lose the end or a part."""
        start, end = self._span(content)
        return content[:start] + (content[end:] if self._random.random() < 0.6 else b"")

    def splice(self, content: bytes) -> bytes:
        """Put in part of any file, or noise."""
        other = self._random.choice(
            [file for files in self._files.values() for file in files] + self._attacks
        )
        first, last = self._span(other)
        piece = (
            other[first:last]
            if self._random.random() < 0.8
            else self._random.randbytes(self._random.randrange(100))
        )
        start, end = self._span(content)
        return content[:start] + piece + content[start if self._random.random() < 0.5 else end :]

    def lengths(self, content: bytes) -> bytes:
        """Write an extreme number of 1 to 8 bytes somewhere, rather at the beginning or end."""
        width = self._random.choice((1, 2, 4, 8))
        number = (self._random.choice(LENGTHS) % 2 ** (8 * width)).to_bytes(width, "little")
        near = self._random.randrange(min(len(content), 64))
        place = self._random.choice((near, len(content) - near, self._random.randrange(len(content))))
        return content[:place] + number + content[place + width :]

    def header(self, content: bytes) -> bytes:
        """Change a value of a safetensors header, whose length stays right."""
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        name = self._random.choice(list(header))
        value = self._random.choice(VALUES)
        place = header if self._random.random() < 0.3 else header[name]
        key = self._random.choice(list(place))
        if isinstance(place[key], list) and self._random.random() < 0.7:
            place[key][self._random.randrange(len(place[key])) if place[key] else 0 :] = [value]
        else:
            place[key] = value
        text = json.dumps(header)
        if self._random.random() < 0.2:
            text = text.replace("head.bias", "cls_token").replace('"shape": [10]', '"shape": [10, 1e999]')
        return struct.pack("<Q", len(text.encode())) + text.encode() + content[8 + size :]

    def nested(self, content: bytes) -> bytes:
        """A header of brackets, numbers without end or a name that fills it."""
        text = self._random.choice((b"[", b'{"a":', b'{"a":[', b"9", b'{"a":1', b'"')) * self._random.choice(
            (9, 100_000)
        )
        text = self._random.choice((b"", b"{", b'{"a":')) + text
        return struct.pack("<Q", len(text)) + text + content[8:]

    def member(self, content: bytes) -> bytes:
        """Change a member of an archive, whose checksums stay right."""
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = self._random.choice(list(members))
        pickles = [name for name in members if name.endswith(".pkl")]
        if pickles and self._random.random() < 0.8:
            name = pickles[0]
            members[name] = self._instructions(members[name])
        elif name.endswith(".npy") and self._random.random() < 0.7:
            members[name] = self._numpy_header(members[name])
        else:
            members[name] = self._random.choice((self.flip, self.cut, self.splice))(members[name] or b"\0")
        return self._zipped(members)

    def archive(self, content: bytes) -> bytes:
        """Rename, double, lose or blow up members, or lie in the archive's directory."""
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = self._random.choice(list(members))
        match self._random.randrange(6):
            case 0:
                members[
                    self._random.choice(("../" + name, "/etc/x.npy", name + "\n", "a" * 60_000, "a\0b", ""))
                ] = members.pop(name)
            case 1:
                del members[name]
            case 2:
                members[name] = members[name] + b"\0" * 20_000_000  # deflates a thousand times
                return self._zipped(members, zipfile.ZIP_DEFLATED)
            case 3:
                return self._zipped(members, self._random.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
            case 4:
                return self._zipped(members) + content
            case _:
                mark = self._random.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
                start = content.find(mark) + self._random.randrange(4, 46)
                number = self._random.choice(LENGTHS) % 2**32
                return content[:start] + number.to_bytes(4, "little") + content[start + 4 :]
        return self._zipped(members, twice=self._random.random() < 0.3)

    def attack(self, content: bytes) -> bytes:
        """A pickle that would execute something, in either container, sometimes inside a valid one."""
        evil = self._random.choice(self._attacks)
        if content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            name = next(name for name in members if name.endswith(".pkl"))
            place = self._random.choice(self._boundaries(members[name]))
            inside = members[name][:place] + evil[2:-1] + members[name][place:]
            members[name] = self._random.choice((evil, evil, inside))
            return self._zipped(members)
        place = self._random.choice((0, content.find(b".", 10) + 1, self._random.randrange(len(content))))
        return content[:place] + evil + content[place if self._random.random() < 0.5 else place + len(evil) :]

    def _instructions(self, content: bytes) -> bytes:
        """A pickle with instructions changed, put in, doubled or repeated very often."""
        start, end = sorted(self._random.choice(self._boundaries(content)) for _ in range(2))
        opcode = self._random.choice(OPCODES)
        match self._random.randrange(6):
            case 0:
                return content[:start] + opcode + content[start + 1 :]
            case 1:
                return (
                    content[:start]
                    + opcode
                    + self._random.randbytes(self._random.randrange(5))
                    + content[start:]
                )
            case 2:
                return content[:start] + content[start:end] * self._random.choice((0, 2, 50)) + content[end:]
            case 3:
                bomb = (
                    self._random.choice((b"(", b"]", b"}", b")\x85", b"N\x85", b"h\0", b"\x94", b"2"))
                    * 100_000
                )
                return content[:start] + bomb + content[start:]
            case 4:
                number = self._random.choice(
                    (
                        b"J\xff\xff\xff\xff",
                        b"\x8a\x09" + b"\xff" * 8 + b"\x7f",
                        b"N",
                        b"\x88",
                        b"G" + b"\x7f" * 8,
                    )
                )
                return content[:start] + number + content[end if self._random.random() < 0.5 else start + 2 :]
            case _:
                return self.flip(content)

    def _boundaries(self, content: bytes) -> list[int]:
        """Where the instructions of a valid pickle begin."""
        return [position for _, _, position in pickletools.genops(content) if position]

    def _numpy_header(self, content: bytes) -> bytes:
        """A member whose header says something else."""
        size = int.from_bytes(content[8:10], "little")
        header, data = content[10 : 10 + size].decode("latin-1"), content[10 + size :]
        old, new = self._random.choice(
            (
                ("'<f4'", repr(self._random.choice(HEADERS))),
                ("(", f"({self._random.choice(LENGTHS)}, "),
                ("(", "(" * 5000),
                ("False", self._random.choice(("True", "1", "__import__('os').system('x')", "[" * 500))),
                ("shape", "descr"),
                ("}", "}" * 9),
            )
        )
        header = header.replace(old, new)
        return content[:8] + struct.pack("<H", len(header) % 2**16) + header.encode("latin-1") + data

    def _zipped(
        self, members: dict[str, bytes], method: int = zipfile.ZIP_STORED, twice: bool = False
    ) -> bytes:
        """An archive of the members, its last one there twice if asked for."""
        buffer = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
            warnings.simplefilter("ignore")
            for name, data in [*members.items()] + [*members.items()][-1:] * twice:
                archive.writestr(zipfile.ZipInfo(name), data, method)
        return buffer.getvalue()

    def _span(self, content: bytes) -> tuple[int, int]:
        """Where a part of a file begins and ends."""
        start = self._random.randrange(len(content) + 1)
        length = self._random.choice((1, 2, 8, 64, 512, len(content)))
        return start, min(len(content), start + self._random.randrange(length + 1))
