"""Lets the file operations of a process fail, one by one; the C source beside says how."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("file_faults.c")
COMPILER = shutil.which("cc") or shutil.which("gcc")


def compile_library(folder):
    """The path of the library, compiled into a folder."""
    library = Path(folder) / "file_faults.so"
    command = [COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


def environment(library, under, at=0, action="", log=""):
    """The environment of a process in which the operation `at` below a folder goes wrong; see the C source."""
    return os.environ | {
        "LD_PRELOAD": str(library),
        "GLIBC_TUNABLES": "",  # set already: the command would start itself again, without the library
        "FILE_FAULTS_UNDER": str(under),
        "FILE_FAULTS_AT": str(at),
        "FILE_FAULTS_ACTION": action,
        "FILE_FAULTS_LOG": str(log),
    }


class Faults:
    """The library from inside of a process into which it is preloaded."""

    def __init__(self):
        self._library = ctypes.CDLL(None)

    def arm(self, under, at, error):
        """Count operations below a folder from now on; fail with an errno from the given one on."""
        self._library.file_faults_set(str(under).encode(), ctypes.c_long(at), str(error).encode())

    def disarm(self):
        """Let everything succeed, and count nothing."""
        self._library.file_faults_set(b"", ctypes.c_long(0), b"")

    @property
    def count(self):
        """Operations since arming."""
        return self._library.file_faults_count()

    @property
    def hits(self):
        """How many of them failed."""
        return self._library.file_faults_hits()
