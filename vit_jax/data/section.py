"""What a configuration may say about data, as data. Imports nothing, so that mistakes are told at once."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from vit_jax.errors import ConfigError, choose, nearest


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
      opens: `module:function` that opens a whole split of one, called with the section `data` (or a `Part`), the name
        of the split and the `Shape` of images that are made up.
      needs: keys of which one must be set.
      columns: the keys of columns, `data.image_column` and the like, that it looks at.
      classes: whether it has label maps, whose numbers the table `data.classes` explains.
      sliced: whether it is called with parts and sums of splits too, because it counts records its own way.
    """

    opens: str
    needs: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    classes: bool = False
    sliced: bool = False


class Shape(NamedTuple):
    """What images are like that have no size of their own: height, width and channels, and the number of classes."""

    image: tuple[int, int, int]
    num_classes: int


COLUMNS = (
    "image_column",
    "label_column",
    "split_column",
    "label_columns",
    "value_columns",
    "label_separator",
)
# By what `data.source` says. A new source is a module with such a function, and a line here.
SOURCES = {
    "digits": Kind("vit_jax.data.sources.digits:open_section"),
    "digit_scenes": Kind("vit_jax.data.sources.digit_scenes:open_section"),
    "framed_digits": Kind("vit_jax.data.sources.composed_digits:open_framed"),
    "digit_sets": Kind("vit_jax.data.sources.composed_digits:open_sets"),
    "turned_digits": Kind("vit_jax.data.sources.composed_digits:open_turned"),
    "arrays": Kind("vit_jax.data.sources.arrays:open_section"),
    "folder": Kind("vit_jax.data.sources.folder:open_section", needs=("path",)),
    "masks": Kind("vit_jax.data.sources.masks:open_section", needs=("path",), classes=True),
    "table": Kind("vit_jax.data.sources.table:open_section", needs=("path",), columns=COLUMNS),
    "huggingface": Kind(
        "vit_jax.data.sources.huggingface:open_section", needs=("path", "name"), columns=COLUMNS
    ),
    "tfds": Kind(
        "vit_jax.data.sources.tfds_source:open_section",
        needs=("name", "path"),
        columns=("label_column", "label_columns", "value_columns"),
        sliced=True,
    ),
    "synthetic": Kind("vit_jax.data.sources.synthetic:open_section"),
}
CACHES = ("none", "encoded", "decoded")
POLICIES = ("skip", "error")
LABELS = ("by-name", "by-position")  # how labels of a data set mean classes of a model


@dataclass(frozen=True)
class Part:
    """One source of a mixture.

    Attributes:
      source, path, name, size, classes: as in the section `data`.
      image_column, label_column, split_column, label_columns, value_columns, label_separator: as there.
      split: which part of it, as `data.train_split`.
      weight: how often it is drawn from, relative to the others.
    """

    source: str = "folder"
    path: str = ""
    name: str = ""
    size: int = 1024
    classes: str = ""
    image_column: str = ""
    label_column: str = ""
    split_column: str = ""
    label_columns: tuple[str, ...] = ()
    value_columns: tuple[str, ...] = ()
    label_separator: str = ""
    split: str = "train"
    weight: float = 1.0

    @property
    def train_split(self) -> str:
        """The split that has the classes."""
        return self.split


def mixture_parts(mixture: Any) -> list[Part]:
    """Return the parts that `data.mixture` describes.

    Args:
      mixture: a sequence of dicts with fields of `Part`.

    Raises:
      ConfigError: not such a sequence; the part and the key are named.
    """
    known, parts = {field.name: field for field in fields(Part)}, []
    for number, values in enumerate(mixture):
        name = f"data.mixture[{number}]"
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{name} is {values!r}; it must be a dict such as dict(path='folder', weight=2.0)."
            )
        for key, value in values.items():
            if key not in known:
                raise ConfigError(
                    f"{name} has no key {key!r}; it takes {', '.join(known)}.{nearest(key, known)}"
                )
            kind = (int, float) if key == "weight" else type(known[key].default)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ConfigError(f"{name}: {key} is {value!r}; it must be like {known[key].default!r}.")
        part = Part(**values)
        choose(part.source, SOURCES, f"{name}: source")
        if not 0 < part.weight < float("inf"):
            raise ConfigError(f"{name}: weight is {part.weight}; it must be a positive number.")
        check_source(part.source, vars(part), f"{name}: ")
        parts.append(part)
    return parts


def check_source(source: str, values: Mapping[str, Any], prefix: str = "data.") -> None:
    """Raise `ConfigError` unless a source has what it needs and nothing that it would not look at.

    Args:
      source: its name.
      values: of the keys of the section.
      prefix: what messages write before a key.
    """
    kind, short = SOURCES[source], prefix.rpartition(" ")[2]
    if kind.needs and not any(values[key] for key in kind.needs):
        needed = " or ".join(f"{prefix}{key}" for key in kind.needs)
        raise ConfigError(f"{needed} is empty; {short}source {source!r} needs it.")
    for key in COLUMNS:
        if values[key] and key not in kind.columns:
            have = ", ".join(name for name, other in SOURCES.items() if key in other.columns)
            lacks = f"takes only {', '.join(kind.columns)}" if kind.columns else "has no columns"
            raise ConfigError(
                f"{prefix}{key} is {values[key]!r}, but {short}source {source!r} {lacks}; those that have it "
                f"are {have}."
            )
    if values["classes"] and not kind.classes:
        have = ", ".join(name for name, other in SOURCES.items() if other.classes)
        raise ConfigError(
            f"{prefix}classes is {values['classes']!r}, but {short}source {source!r} has no label maps; those that "
            f"have are {have}."
        )
    said = [key for key in ("label_column", "label_columns", "value_columns") if values[key]]
    if len(said) > 1:
        raise ConfigError(f"{prefix}{said[0]} and {prefix}{said[1]} are both given; give only one of them.")
    if values["label_separator"] and len(said) == 1 and said[0] != "label_column":
        raise ConfigError(
            f"{prefix}label_separator is {values['label_separator']!r}, but {prefix}{said[0]} has no lists of "
            "labels; leave it out."
        )
