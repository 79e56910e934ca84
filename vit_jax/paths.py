"""Files that users name: only ordinary ones are opened, none is waited for, and none is read without a bound.

What is wrong with a path is an `OSError`, whatever it is; whoever reads says which kind of error of ours that is.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from vit_jax.errors import ConfigError, is_printable

Named = str | os.PathLike[str]


def expanded(path: Named) -> str:
    """Return a path with a leading `~` or `~user` as that home folder, as shells write it; other text as it is.

    A shell does this before a program sees the path, but not in `--config.data.path=~/images`, in a configuration, or
    in Python: every path that a user gives goes through here once. Addresses (`gs://...`) stay as they are.
    """
    return os.path.expanduser(os.fspath(path))


def open_file(path: Named) -> BinaryIO:
    """Open an ordinary file for reading, unbuffered.

    A pipe would be waited for, and a device has no end. A leading `~` is the home folder.

    Raises:
      OSError: there is no such file, it may not be read, or it is something else.
    """
    try:
        # Opening a pipe that nobody writes to would otherwise wait; ordinary files are not changed by it.
        descriptor = os.open(expanded(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:  # a NUL character
        raise OSError(errno.EINVAL, "not a valid name of a file") from error
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, "a pipe or device, not an ordinary file")
    return open(descriptor, "rb", buffering=0)


def read_file(path: Named, limit: int) -> bytes:
    """Return the contents of an ordinary file.

    Args:
      path: the file.
      limit: how many bytes it may have.

    Raises:
      OSError: as `open_file`, or the file is larger.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes, more than the {limit} that such a file may have")
        # One byte more than it has now tells whether it grows while it is read.
        return file.read(size + 1)


def check_output(path: Named, what: str) -> Path:
    """Return the path of something to be written, with a leading `~` as the home folder.

    Args:
      path: the file or folder.
      what: names it in the message, for example `--workdir`.

    Raises:
      ConfigError: its name cannot be printed on one line, or is too long for a file system.
    """
    text = expanded(path)
    if not is_printable(text):
        raise ConfigError(f"{what} is {text!r}; choose a name that can be printed on one line.")
    if any(len(os.fsencode(part)) > 255 for part in Path(text).parts):
        raise ConfigError(f"{what} is {text[:80]!r}...; no part of a path may have more than 255 bytes.")
    return Path(text)
