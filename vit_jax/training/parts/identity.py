"""Which records a run is trained and judged on, kept with it: so it does not go on with others unnoticed."""

from collections.abc import Collection, Mapping
from typing import Any

from vit_jax.data.base import Source
from vit_jax.data.section import COLUMNS
from vit_jax.errors import CheckpointError, DataError, argument

# Keys whose change is a change of records; `data.path` is not, because a folder may have moved.
CHOOSING = tuple(
    f"data.{key}" for key in ("source", "name", "size", "mixture", "train_split", "eval_split", *COLUMNS)
)
ALLOW = "data"
_SHOWN = 5


def data_identity(train_source: Source, eval_source: Source, *, given: bool) -> dict[str, Any]:
    """Return what tells the records of a run from others, as JSON.

    Args:
      train_source, eval_source: as they were opened, before classes are balanced.
      given: whether they came from outside instead of from the configuration.
    """
    return {"given": given, "training": _identity(train_source), "evaluation": _identity(eval_source)}


def _identity(source: Source) -> dict[str, Any]:
    return {
        "records": len(source),
        "class_names": list(source.class_names),
        "fingerprint": source.fingerprint(),
    }


def data_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what is other about the records than when a run began, in words.

    Args:
      saved: the metadata of its checkpoint; what an earlier version did not save is not compared.
      now: the `data_identity` of the records it is to go on with.

    Raises:
      CheckpointError: the metadata say something else there; only files made by hand do.
    """
    before = saved.get("data", {"training": {"class_names": saved.get("class_names")}})
    if not isinstance(before, dict) or not all(isinstance(value, dict | bool) for value in before.values()):
        raise CheckpointError(f"a checkpoint is damaged: its 'data' is {str(before)[:80]!r}.")
    return [
        f"{use} data: {change}"
        for use in ("training", "evaluation")
        for change in _changes(before.get(use, {}), now[use])
    ]


def check_data_changes(changes: list[str], allow: Collection[str], where: object) -> None:
    """Raise `DataError` unless changes are intended.

    Args:
      changes: see `data_changes`.
      allow: keys of the configuration whose change is; `data`, or one in `CHOOSING`, is that of the records.
      where: the run, for the message.
    """
    if changes and {ALLOW, *CHOOSING}.isdisjoint(allow):
        raise DataError(
            f"{where} was started with different data: {'; '.join(changes)}. Use another {argument('workdir')}, "
            f"or resume with the data as it is now: {argument('allow_change', [ALLOW])}."
        )


def check_outputs(class_names: Any, source: Source, where: object) -> None:
    """Raise `DataError` if a run's outputs would mean other classes than those they have learned, allowed or not.

    Args:
      class_names: those of the run, in order of its outputs; None where it did not note them.
      source: the records to train on.
      where: the run, for the message.
    """
    if isinstance(class_names, list) and class_names != list(source.class_names):
        raise DataError(
            f"the outputs of {where} are the classes {_listed(list(map(str, class_names)))}, in this order, and the "
            f"data has {_listed(list(source.class_names))}; train in another workdir with model.checkpoint={where}, "
            "which matches the head by name."
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what is not as before, in words; what was not saved is not compared."""
    changes = []
    old, new = before.get("class_names"), now["class_names"]
    if isinstance(old, list) and old != new:
        changes.append(_class_changes(list(map(str, old)), new))
    if "records" in before and before["records"] != now["records"]:
        changes.append(f"{before['records']} records before, {now['records']} now")
    elif "fingerprint" in before and before["fingerprint"] != now["fingerprint"] and not changes:
        changes.append(
            f"{now['records']} records as before, but with other contents (files, images, labels or their order)"
        )
    return changes


def _class_changes(old: list[str], new: list[str]) -> str:
    gone = [name for name in old if name not in set(new)]
    added = [name for name in new if name not in set(old)]
    if not gone and not added:
        index = next(index for index, name in enumerate(new) if name != old[index])
        return f"class {index} was {old[index]!r} and is {new[index]!r}"
    return " and ".join(
        f"class{'es' * (len(names) > 1)} {_listed(names)} {what}"
        for names, what in ((gone, "missing"), (added, "new"))
        if names
    )


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {more:,} more" if more > 0 else "")
