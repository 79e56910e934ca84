"""What became of a checkpoint: a short table."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Report:
    """What was loaded, changed, left out and newly made.

    Attributes:
      source: name of the checkpoint.
      loaded: our parameters that hold what the file says.
      changed: our parameters that hold it in another size: path -> what happened.
      new: our parameters that the file says nothing of: path -> how they start.
      dropped: arrays of the file that were not needed: name -> why.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded) + len(self.changed)} parameters loaded"]
        for title, entries in (("changed", self.changed), ("new", self.new), ("dropped", self.dropped)):
            lines += [f"  {title:<8} {names:<40} {text}" for names, text in _grouped(entries)]
        return "\n".join(lines)


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
