"""One run per workdir, by a lock that dies with its holder.

The kernel locks a file in the workdir (flock) and lets go of it when the process ends, however it ends. Some network
and FUSE file systems keep such a lock to one machine, or have none. So the holder also writes who it is and,
every few seconds, a number that grows. A run that gets the lock, but finds another machine's entry in the file,
watches that number: if it grows, the other is alive.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vit_jax.errors import ResourceError, WorkdirBusy, argument

FILE = "run.lock"
BEAT = 10.0  # seconds between two entries
WATCH = 35.0  # seconds after which the entry of a living holder must have changed
NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)  # of a file system that has none


class WorkdirLock:
    """Holds a workdir while it is open.

    Args:
      workdir: created if missing.
      beat, watch: seconds, see the module.

    Raises:
      WorkdirBusy: on entering, if another run holds it.
      ResourceError: on entering, if the file cannot be written.
    """

    def __init__(self, workdir: Path, *, beat: float = BEAT, watch: float = WATCH) -> None:
        self._path = workdir / FILE
        self._beat, self._watch = beat, watch
        self._file: int | None = None
        self._entry: dict[str, Any] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="workdir-lock", daemon=True)

    def __enter__(self) -> "WorkdirLock":
        workdir = self._path.parent
        if workdir.exists() and not workdir.is_dir():
            raise ResourceError(
                f"workdir {workdir} is a file, not a folder; give another {argument('workdir')}."
            )
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._take(self._file)
        except OSError as error:
            self._close()
            raise ResourceError(
                f"{self._path} cannot be written: {os.strerror(error.errno or 0)}; check the workdir and its "
                "permissions."
            ) from error
        except WorkdirBusy:
            self._close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(self._beat)  # a disk that does not answer holds nobody up
        try:
            assert self._file is not None
            os.ftruncate(self._file, 0)
        except OSError:
            pass  # The disk has gone away. What stays in the file costs the next machine a moment of watching.
        self._close()

    def _take(self, file: int) -> None:
        locked = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._busy(_read(file)) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            locked = False
        found, machine = _read(file), _machine()
        if found is not None and not (locked and found.get("machine") == machine):
            until = time.monotonic() + self._watch
            while time.monotonic() < until:
                time.sleep(min(0.5, self._watch / 10))
                now = _read(file)
                if now != found:
                    raise self._busy(now)
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        self._entry = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": since,
            "machine": machine,
            "beat": 0,
        }
        _write(file, self._entry)

    def _busy(self, holder: dict[str, Any] | None) -> WorkdirBusy:
        who = "another run"
        if holder is not None:
            who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
        return WorkdirBusy(
            f"workdir {self._path.parent} is in use by {who}; wait until that run has ended, or give another "
            f"{argument('workdir')}."
        )

    def _keep_beating(self) -> None:
        assert self._file is not None
        while not self._ended.wait(self._beat):
            self._entry["beat"] += 1
            try:
                _write(self._file, self._entry)
            except OSError:
                # A disk that has gone away concerns the run where it writes something; the lock outlives that.
                continue

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _machine() -> str:
    """Return what names the running kernel: names of hosts may be equal, or new in every container of one machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()  # not Linux


def _read(file: int) -> dict[str, Any] | None:
    """Return the entry of the holder, or None if there is none or it is just being written."""
    try:
        entry = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _write(file: int, entry: dict[str, Any]) -> None:
    # One write over the old entry, of growing length, so that a reader finds a whole one.
    os.pwrite(file, json.dumps(entry).encode() + b"\n", 0)
