"""What a writer is, and how it runs: in a thread of its own, so that no service slows, holds or ends a run."""

import importlib
import importlib.util
import json
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from vit_jax.errors import ConfigError

# Whoever adds one adds `writers/NAME.py` with `open_run`, and a line here: the name, which is also that of the module
# it gets, and what pip calls that.
WRITERS = {"wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
FOLDER = "writers"  # of the workdir: by which name each service knows the run
PATIENCE = 60.0  # seconds that the end of a run waits for a service to take the last numbers
HURRY = 5.0  # the same, when the run ends by an error or a signal


@dataclass(frozen=True)
class About:
    """What a service is told of a run.

    Attributes:
      name: of the run, for people.
      project: what it belongs to; empty for the service's own choice.
      config: of the run, as JSON values.
      folder: the workdir, where the service may keep files.
      run: the service's own name of the run, from an earlier attempt; None begins one.
    """

    name: str
    project: str
    config: dict[str, Any]
    folder: Path
    run: str | None = None


class Writer(Protocol):
    """A run at a service, as `open_run(module, about)` of `writers/NAME.py` returns it.

    Attributes:
      run: by which it can be opened again.
    """

    run: str

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step, named `train/loss`, `eval/accuracy` and so on."""
        ...

    def close(self) -> None:
        """Say that the run has ended, for now; whatever was written has been sent when this returns."""
        ...


def check_writers(names: Iterable[str]) -> None:
    """Raise `ConfigError` for a writer whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"log.writers has {name!r}, which is not installed; pip install {WRITERS[name]}, or leave it out."
            )


class Writers:
    """The writers of a run; none of them can fail, which is told once by those that do.

    Args:
      names: which; they are opened in the background when there is something to write.
      about: the run.
      report: told of a writer that is left out from there on, from any thread.
      open_run: opens the run at a service, by its name.
    """

    def __init__(
        self,
        names: Iterable[str],
        about: About,
        report: Callable[[str], None],
        open_run: Callable[[str, About], Writer] | None = None,
    ):
        self._names, self._about, self._report = tuple(names), about, report
        self._open_run = open_run or _open_run
        self._threads: list[_Thread] = []

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(PATIENCE if kind is None else HURRY)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand metrics over; returns at once."""
        if not self._threads:
            self._threads = [_Thread(name, self._about, self._report, self._open_run) for name in self._names]
        for thread in self._threads:
            thread.waiting.put((step, dict(metrics)))

    def close(self, patience: float = PATIENCE) -> None:
        """End all of them.

        Args:
          patience: seconds to wait for each to send what it has.
        """
        for thread in self._threads:
            thread.waiting.put(None)
        for thread in self._threads:
            thread.finish(patience)
        self._names, self._threads = (), []


class _Thread:
    def __init__(
        self, name: str, about: About, report: Callable[[str], None], open_run: Callable[[str, About], Writer]
    ):
        self.waiting: queue.SimpleQueue[tuple[int, dict[str, float]] | None] = queue.SimpleQueue()
        self._name, self._about, self._report, self._open_run = name, about, report, open_run
        self._doing = "opening it"
        self._thread = threading.Thread(target=self._work, name=f"writer {name}", daemon=True)
        self._thread.start()

    def finish(self, patience: float) -> None:
        self._thread.join(patience)
        if self._thread.is_alive():
            self._tell(f"was still {self._doing} after {patience:.0f} s")

    def _work(self) -> None:
        try:
            path = self._about.folder / FOLDER / f"{self._name}.json"
            writer = self._open_run(self._name, replace(self._about, run=_known(path)))
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"run": writer.run}) + "\n", encoding="utf-8")
            while (item := self.waiting.get()) is not None:
                self._doing = f"writing step {item[0]}"
                writer.write(*item)
            self._doing = "closing it"
            writer.close()
        except BaseException as error:  # Services raise anything, also SystemExit.
            self._tell(f"failed at {self._doing}, {type(error).__name__}: {error}")

    def _tell(self, what: str) -> None:
        self._report(
            f"log.writers: {self._name} {what}; the run continues without it, and metrics.jsonl has everything"
        )


def _known(path: Path) -> str | None:
    """Return by which name the service knows the run, or None where no attempt before this one told it."""
    try:
        return str(json.loads(path.read_bytes())["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_run(name: str, about: About) -> Writer:
    module = importlib.import_module(f"vit_jax.training.report.writers.{name}")
    return module.open_run(importlib.import_module(name), about)
