"""Which checkpoints stay: the newest and the best."""

from collections.abc import Callable, Iterable


def kept(
    steps: Iterable[int], keep_last: int, keep_best: int, score: Callable[[int], float | None]
) -> set[int]:
    """Return which steps stay.

    Args:
      steps: what there is.
      keep_last: how many of the newest stay.
      keep_best: how many of those with the highest score stay; of equal ones, the newest.
      score: of a step, larger is better; None for a step that cannot be among the best.
    """
    ordered = sorted(steps)
    scores = {step: score(step) for step in ordered}
    ranked = sorted((value, step) for step, value in scores.items() if value is not None)
    best = [step for _, step in ranked[-keep_best:]] if keep_best else []
    return {*ordered[-keep_last:], *best}
