"""Which of several sets of weights in a file is meant, and names without what a wrapper of the model put before them.

Training programs leave more than one set behind: raw and averaged parameters, teacher and student. What their own
programs evaluate and publish is taken: of timm the average (`load_checkpoint` has use_ema=True), of DeiT and MAE
`model`, of DINO and its successors the teacher, of I-JEPA the target encoder, of MoCo v3 the base encoder. In nested
files a set is a dictionary, in flat ones (safetensors) what begins with its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from vit_jax.errors import CheckpointError, nearest
from vit_jax.weights.formats.tensors import short

T = TypeVar("T")

PREFERRED = (
    "teacher", "target_encoder", "state_dict_ema", "model", "state_dict", "module", "model_state", "model_state_dict",
    "encoder", "base_encoder", "student", "momentum_encoder", "model_ema", "ema_model", "ema_state_dict", "ema",
)  # fmt: skip
# What programs put a model into: parallel, compiled and averaged modules, and people's own classes.
WRAPPERS = ("module", "_orig_mod", "net", "network", "backbone", "trunk", "base_model", *PREFERRED)
# With one of these, a name is of an encoder and not of something beside it.
_ENCODER = (
    "patch_embed.",
    "blocks.0.",
    "cls_token",
    "embeddings.",
    "conv_proj.",
    "visual.",
    "vision_model.",
    "features.0.0.",
)
_COUNTERS = ("n_averaged",)  # of torch's AveragedModel; no weight


class Chosen(NamedTuple, Generic[T]):
    """A set of weights.

    Attributes:
      tensors: name -> tensor.
      name: of the set; empty where it has none.
      others: names of the other sets in the file.
      left_out: names of tensors of no set.
    """

    tensors: dict[str, T]
    name: str = ""
    others: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def preferred(names: Iterable[str], wanted: str | None, origin: str) -> str | None:
    """Return which set is meant, or None if none is wanted and none of these names is known.

    Args:
      names: of the sets; a nested one has those of the sets it is in before its own, with slashes.
      wanted: the name that a user gave, of which the last or first part is enough; None for what its writer evaluates.
      origin: for messages.

    Raises:
      CheckpointError: there is no such set, or there are several.
    """
    names = list(names)
    if wanted is None:
        ranked = [(tuple(map(_rank, name.split("/"))), name) for name in names]
        known = [entry for entry in ranked if entry[0][0] < len(PREFERRED)]
        return min(known)[1] if known else None
    found = [name for name in names if name == wanted] or [
        name for name in names if wanted in name.split("/")
    ]
    if len(found) != 1:
        raise no_such(origin, wanted, names)
    return found[0]


def no_such(origin: str, wanted: str, names: Sequence[str]) -> CheckpointError:
    """Return the error of a set of weights that is not there, with those that are."""
    known = ", ".join(map(short, names[:10])) or "one set without a name; leave it out"
    return CheckpointError(f"{origin} has no weights {wanted!r}; it has {known}.{nearest(wanted, names)}")


def chosen(found: Chosen[T], wanted: str | None, origin: str, beside: bool = True) -> Chosen[T]:
    """Return the weights of a file that are meant, under their model's own names.

    Args:
      found: the set that the file itself tells apart, or all there is.
      wanted: the name of a set that a user gave.
      origin: for messages.
      beside: whether a wrapper goes that only some names begin with.

    Raises:
      CheckpointError: there is no such set, or there are several.
    """
    tensors, name, others, left_out = found
    if wanted is not None and wanted in (name, *name.split("/")):
        wanted = None
    tensors = _unwrapped(tensors, beside=False)
    sets = _prefixed_sets(tensors)
    if wanted is not None and not any(wanted in (one, *one.split("/")) for one in sets):
        raise no_such(origin, wanted, [*filter(None, [name]), *others, *sets])
    within = preferred(sets, wanted, origin)
    if within is not None:
        inside = {own for own in tensors if own.startswith(f"{within}.")}
        left_out += tuple(own for own in tensors if own.partition(".")[0] not in sets)
        others += tuple(one for one in sets if one != within)
        name = f"{name}/{within}" if name else within
        tensors = {own.removeprefix(f"{within}."): tensors[own] for own in tensors if own in inside}
    return Chosen(_unwrapped(tensors, beside), name, others, left_out)


def _prefixed_sets(names: Iterable[str]) -> list[str]:
    """Return the sets that names tell apart by their beginnings, `teacher.` and `student.`, if there are several."""
    parts = (name.partition(".") for name in names)
    found = {first for first, _, rest in parts if first in PREFERRED and _is_encoder(rest)}
    return sorted(found, key=_rank) if len(found) > 1 else []


def _unwrapped(tensors: Mapping[str, T], beside: bool) -> dict[str, T]:
    """Return tensors under names without what wrappers put before them, in any nesting.

    A wrapper that all names begin with goes; one's own class may call it as it likes. With `beside`, one that only some
    begin with goes too if an encoder is in it and no name is there twice then; what is beside it keeps its name. But
    DINO's projection head beside a backbone, `head.`, would have the name of a classifier, and gets one of its own.
    """
    found = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in _COUNTERS}
    while found:
        firsts = {name.partition(".")[0] for name in found}
        inside = firsts & set(WRAPPERS) or (firsts if beside and _is_attribute(found) else set())
        step = next(filter(None, (_without(found, f"{one}.", beside) for one in sorted(inside))), None)
        if step is None:
            break
        found = step
    return found


def _is_attribute(names: Iterable[str]) -> bool:
    """Return whether names are of one encoder that somebody's own class holds under whatever name, `self.vit`."""
    names = list(names)
    alike = len({name.partition(".")[0] for name in names}) == 1
    return alike and not _is_encoder(names[0]) and any(".patch_embed." in name for name in names)


def _without(tensors: dict[str, T], prefix: str, beside: bool) -> dict[str, T] | None:
    """Return tensors without a prefix, or None if it is to stay."""
    rest = {name: name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}
    if len(rest) < len(tensors):
        if not beside or not any(map(_is_encoder, rest.values())):
            return None
        heads = {name for name in tensors if name.startswith("head.")}
        if not heads <= {"head.weight", "head.bias"}:
            rest |= {name: f"projection_{name}" for name in heads}
    renamed = {rest.get(name, name): tensor for name, tensor in tensors.items()}
    return renamed if len(renamed) == len(tensors) else None


def _is_encoder(name: str) -> bool:
    """Return whether a name, or what is left of it without wrappers, is of an encoder."""
    first, _, rest = name.partition(".")
    return name.startswith(_ENCODER) or (first in WRAPPERS and _is_encoder(rest))


def _rank(name: str) -> int:
    return PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)
