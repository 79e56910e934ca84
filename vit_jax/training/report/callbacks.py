"""What users hang into the loop: told of steps and evaluations, and able to end the run."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax

from vit_jax.errors import ConfigError, PeerError, nearest
from vit_jax.processes import from_main, is_main
from vit_jax.training.guard.stopping import StopRequest
from vit_jax.training.report.metrics import Clock

if TYPE_CHECKING:
    from vit_jax.training.report.result import TrainResult


class StopTraining(Exception):
    """Raised by a callback to end the run here, as if its duration were over; the text says why."""


class Callback:
    """What a run tells; override what is of interest. Process 0 alone is told, in the order of steps.

    Raising `StopTraining` ends the run after the step being made: it is evaluated, saved and reported, and done. Any
    other exception ends it too: the state is saved, and `train` raises the exception; the same call goes on from there.
    """

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Be told of a step, while the next one is computed.

        Args:
          step: its number, from 1.
          metrics: means over its batch, such as `loss`, `accuracy`, `gradient_norm` and `learning_rate`.
        """

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Be told of an evaluation.

        Args:
          step: after which it was made.
          metrics: over all records of the evaluation split.
        """

    def on_end(self, result: "TrainResult") -> None:
        """Be told what `train` is about to return; not if it raises."""


WORDS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class Callbacks:
    """The callbacks of a run.

    Args:
      callbacks: objects with some methods of `Callback`.
      stop: is asked to stop the run, in all processes, where one of them wants it.
      clock: their time is charged to `other`.

    Raises:
      ConfigError: one of them has nothing that could be told, or a method `on_...` that nobody calls.
    """

    def __init__(self, callbacks: Iterable[Any], stop: StopRequest, clock: Clock):
        if not isinstance(callbacks, Iterable):
            raise ConfigError(
                f"callbacks is of type {type(callbacks).__name__}; give a sequence of callbacks: "
                f"[{type(callbacks).__name__}(...)]."
            )
        self._callbacks, self._stop, self._clock = tuple(callbacks), stop, clock
        self._wish: str | None = None
        self._error: Exception | None = None
        for callback in self._callbacks:
            name = type(callback).__name__
            theirs = [word for word in dir(callback) if word.startswith("on_")]
            for word in theirs:
                if word not in WORDS:
                    raise ConfigError(
                        f"callback {name} has {word}, which is never called; there are {', '.join(WORDS)}."
                        f"{nearest(word, WORDS)}"
                    )
            if not theirs or isinstance(callback, type):
                raise ConfigError(
                    f"callback {name!r} has no methods that could be called; give an object with "
                    f"{', '.join(WORDS)}, such as a "
                    "vit_jax.Callback."
                )

    def tell(self, word: str, *what: Any) -> None:
        """Call a method of every callback that has it; what it raises waits for `ending` or `raise_error`."""
        if not is_main() or self._error is not None:
            return
        # Users may compute with arrays as they like.
        with self._clock("other"), jax.transfer_guard("allow"):
            for callback in self._callbacks:
                try:
                    getattr(callback, word, _nothing)(*what)
                except StopTraining as wish:
                    self._wish = self._wish or str(wish) or f"{type(callback).__name__} stopped it"
                except Exception as error:
                    self._error = error
        if self._wish is not None or self._error is not None:
            self._stop.ask()

    @property
    def wish(self) -> str | None:
        """Why process 0 wants the run to end, or None; the same in all processes, which must all ask."""
        return from_main("callbacks", self._wish)

    @property
    def failed(self) -> bool:
        """Whether a callback of process 0 raised an error; the same in all processes, which must all ask."""
        return from_main("failed callbacks", self._error is not None)

    def raise_error(self, saved: str) -> None:
        """Raise what a callback raised, in all processes, which must all ask.

        Args:
          saved: what was saved, in words, for the processes that were not told.
        """
        error = self._error
        told = from_main("errors of callbacks", None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        if told is not None:
            raise PeerError(f"process 0 stopped the run because a callback raised {told}; {saved}.")


def _nothing(*_: Any) -> None:
    """Stand for a method that a callback does not have."""
