"""Which checkpoints stay: the newest and the best of ours, and whatever is not ours."""

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies

from vit_jax.checkpoints.files import is_ours


@dataclasses.dataclass(frozen=True)
class Retention:
    """Orbax's rules, applied to our steps only.

    Attributes:
      directory: where the step directories lie.
      keep_last: how many of the newest stay.
      keep_best: how many of those with the highest score stay.
      score: of a step, larger is better; None for a step that cannot be among the best.
    """

    directory: Path
    keep_last: int
    keep_best: int
    score: Callable[[int], float | None]

    def should_preserve(
        self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
    ) -> list[bool]:
        """Return whether to keep each checkpoint; Orbax asks when a save has begun, deletes when it is done."""
        ours = [
            _Info(info.step, info.time, self._metrics(info.step))
            for info in checkpoints
            if self._counts(info.step)
        ]
        rule = policies.AnyPreservationPolicy(
            [
                policies.LatestN(self.keep_last),
                policies.BestN(
                    get_metric_fn=lambda metrics: metrics["score"],
                    n=self.keep_best,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        kept = rule.should_preserve(ours, context=context)
        dropped = {info.step for info, keep in zip(ours, kept) if not keep}
        return [info.step not in dropped for info in checkpoints]

    def _counts(self, step: int) -> bool:
        path = self.directory / str(step)
        return is_ours(path) or not path.exists()  # While it is being written it has another name.

    def _metrics(self, step: int) -> dict[str, Any] | None:
        score = self.score(step)
        return None if score is None else {"score": score}


@dataclasses.dataclass
class _Info:
    """What Orbax's rules look at."""

    step: int
    time: datetime.datetime
    metrics: dict[str, Any] | None
