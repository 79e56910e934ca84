"""What a configuration says of probes. Needs no jax."""

from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.evaluation.probes.names import parse_probes
from vit_jax.training.config.durations import check
from vit_jax.training.config.rules import COUNTS, TYPES


def check_probes(flat: dict[str, Any]) -> None:
    """Raise `ConfigError` for a probe, an interval or a number of neighbours or shots that there is not."""
    for interval in parse_probes(flat["evaluation.probes"], "evaluation.probes").values():
        if interval:
            check(interval, "an interval in evaluation.probes")
    for key in COUNTS:
        good = all(TYPES[int][1](count) and 1 <= count <= 1_000_000 for count in flat[key])
        if not (good and flat[key]) or len(set(flat[key])) < len(flat[key]):
            raise ConfigError(
                f"{key} is {flat[key]!r}; it must be different whole numbers, for example (1, 5)."
            )
