"""Compiled programs are kept between runs: a run that starts again does not compile again.

The cache is JAX's own. It is by content: a program is found again if its code, shapes, shardings, compiler options,
devices and versions are the same, and it is compiled otherwise. Programs that call oneDNN are compiled by every run
(`onednn.py`).
"""

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from vit_jax.processes import is_main
from vit_jax.weights.remote.fetch import default_cache

FOLDER = "compiled"
_DIRECTORY = "jax_compilation_cache_dir"
_COMPLAINT = r"Error (reading|writing) persistent compilation cache"


@contextmanager
def kept_programs(
    setting: str, workdir: Path, report: Callable[[str], None] | None = None
) -> Iterator[Path | None]:
    """Keep what is compiled inside, and take what is there already; afterwards everything is as before.

    A cache that cannot be read or written costs time and no more: it is told in one line.

    Args:
      setting: a folder; `auto`: the one that JAX was told of (`JAX_COMPILATION_CACHE_DIR`), else, so that every host
        can read it, `compiled` in the workdir of a run on several hosts, else `compiled` beside the downloads of this
        user; `off`: none.
      workdir: of the run.
      report: called with what is to be told; by default the first process prints it to stderr.

    Yields:
      The folder, or None where JAX does as it was told before.
    """
    report = _print if report is None else report
    given = getattr(jax.config, _DIRECTORY)
    folder = None if setting == "off" or (setting == "auto" and given) else _folder(setting, workdir)
    if folder is not None:
        folder = _writable(folder, report)
    changes: dict[str, object] = {}
    if setting == "off":
        changes = {_DIRECTORY: None}
    elif folder is not None:
        # All programs, also small ones: a restart on many hosts waits for each of them.
        changes = {
            _DIRECTORY: str(folder),
            "jax_persistent_cache_min_compile_time_secs": 0.0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
    with _settings(changes), _one_line(folder or given, report):
        yield folder


def _folder(setting: str, workdir: Path) -> Path:
    if setting != "auto":
        return Path(setting).expanduser().absolute()
    return (workdir if jax.process_count() > 1 else default_cache()).absolute() / FOLDER


def _writable(folder: Path, report: Callable[[str], None]) -> Path | None:
    try:
        # JAX makes the folder with the first program: what is refused before leaves nothing behind.
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        report(
            f"compiled programs are not cached: {folder} cannot be written: {error.strerror or error}; set "
            "compilation.cache, or JAX_COMPILATION_CACHE_DIR, to another folder."
        )
        return None
    return folder


@contextmanager
def uncached() -> Iterator[None]:
    """Compile without looking into the cache or adding to it, also where JAX was told of one.

    Of a program that is compiled to be read and not to be run.
    """
    with _settings({"jax_enable_compilation_cache": False}):
        yield


@contextmanager
def _settings(changes: dict[str, object]) -> Iterator[None]:
    """Change settings of JAX for a while."""
    before = {name: getattr(jax.config, name) for name in changes}
    for name, value in changes.items():
        jax.config.update(name, value)
    if changes:
        compilation_cache.reset_cache()  # JAX looks at the folder's name only once
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        if changes:
            compilation_cache.reset_cache()


@contextmanager
def _one_line(folder: object, report: Callable[[str], None]) -> Iterator[None]:
    """Replace JAX's warnings about the cache, one for each program, by one line in all."""
    told = []
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=_COMPLAINT, category=UserWarning)
        show = warnings.showwarning

        def showwarning(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: object = None,
            line: str | None = None,
        ) -> None:
            if "persistent compilation cache" not in str(message):
                show(message, category, filename, lineno, file, line)  # pyright: ignore[reportArgumentType]
            elif not told:
                told.append(message)
                reason = str(message).partition(": ")[2].splitlines()[0]
                report(
                    f"compiled programs in {folder} are partly unusable and are recompiled: {reason}. Remove the "
                    "folder to stop this message."
                )

        warnings.showwarning = showwarning
        yield


def _print(line: str) -> None:
    if is_main():
        print(line, file=sys.stderr)
