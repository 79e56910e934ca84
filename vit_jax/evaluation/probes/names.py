"""Which probes there are, and how a configuration asks for them. Needs no jax."""

from collections.abc import Sequence

from vit_jax.errors import ConfigError, choose

# Name to module and class, imported when it is used. Who adds a probe adds a file and a line.
PROBES = {
    "knn": "vit_jax.evaluation.probes.knn:Knn",
    "linear": "vit_jax.evaluation.probes.linear:Linear",
    "linear_sgd": "vit_jax.evaluation.probes.linear_sgd:LinearSgd",
    "fewshot": "vit_jax.evaluation.probes.fewshot:FewShot",
    "rank": "vit_jax.evaluation.probes.rank:Rank",
}


def parse_probes(entries: Sequence[object], key: str) -> dict[str, str]:
    """Return `{name: interval}` of entries like `"knn"` and `"linear:10 epochs"`; no interval is empty.

    Args:
      entries: what the configuration or the command says.
      key: where, for messages.

    Raises:
      ConfigError: there is no such probe, or one is named twice.
    """
    found: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, str):
            raise ConfigError(
                f"{key} has {entry!r}; a probe must be a string, for example 'knn' or 'linear:10 epochs'."
            )
        name, colon, interval = (word.strip() for word in entry.partition(":"))
        choose(name, PROBES, key)
        if colon and not interval:
            raise ConfigError(f"{key} has {entry!r}, which is not an interval; write '{name}:10 epochs'.")
        if name in found:
            raise ConfigError(f"{key} has {name!r} twice; leave out one of them.")
        found[name] = interval
    return found
