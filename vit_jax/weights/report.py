"""What became of a checkpoint: a short table."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from vit_jax.errors import argument, printable


@dataclass
class Report:
    """What was loaded, changed, left out and newly made.

    Attributes:
      source: name of the checkpoint.
      loaded: our parameters that hold what the file says.
      changed: our parameters that hold it in another size: path -> what happened.
      new: our parameters that the file says nothing of: path -> how they start.
      dropped: arrays of the file that were not needed: name -> why.
      weights: which of several sets of weights in the file this is.
      other_weights: names of the other sets.
      head: what became of the head, where the classes of the data decided it.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    weights: str = ""
    other_weights: Sequence[str] = ()
    head: str = ""

    def lines(self) -> list[str]:
        """Return the table, line by line; what stands in the file cannot break them."""
        found = [f"{self.source}: {len(self.loaded) + len(self.changed)} arrays loaded"]
        if self.other_weights:
            taken, other = self.weights or "those without a name", self.other_weights[0]
            those = argument("weights", other, key="model.weights")
            found.append(
                f"  {'weights':<8} {taken:<40} beside {few(self.other_weights)}; {those} takes those"
            )
        for title, entries in (("changed", self.changed), ("new", self.new), ("dropped", self.dropped)):
            found += [f"  {title:<8} {names:<40} {text}" for names, text in _grouped(entries)]
        found += [f"  {'head':<8} {self.head}"] * bool(self.head)
        return [printable(line) for line in found]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _grouped(entries: dict[str, str]) -> list[tuple[str, str]]:
    """Return (names, text); entries with the same text share a line."""
    by_text: dict[str, list[str]] = {}
    for name, text in entries.items():
        by_text.setdefault(text, []).append(name)
    return [(few(names), text) for text, names in by_text.items()]


def few(names: Sequence[str], most: int = 3) -> str:
    """Return some names in words."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
