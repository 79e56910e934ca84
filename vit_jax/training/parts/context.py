"""What is around a run: where it writes, what watches it, who is told."""

from dataclasses import dataclass
from pathlib import Path

from vit_jax.training.guard.peers import Peers
from vit_jax.training.guard.stopping import StopRequest
from vit_jax.training.report.callbacks import Callbacks
from vit_jax.training.report.metrics import Clock
from vit_jax.training.report.profiling import Profile


@dataclass(frozen=True)
class Context:
    """What a run has beside its experiment.

    Attributes:
      workdir: where it leaves its files.
      clock: divides its time.
      stop: says whether it is asked to stop.
      callbacks: told of steps and evaluations.
      traced: the steps to trace with the profiler.
      peers: watches this process and the others, if anybody does.
    """

    workdir: Path
    clock: Clock
    stop: StopRequest
    callbacks: Callbacks
    traced: Profile
    peers: Peers | None
