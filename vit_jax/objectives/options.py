"""What a configuration may say about each objective; needs no jax, so mistakes are found at once.

An objective is a folder: its options in `options.py`, which is read with the configuration, and `build` in
`objective.py`, which is imported when a run is put together.
"""

import dataclasses
import importlib
from typing import Any

from vit_jax.errors import ConfigError, choose, nearest
from vit_jax.objectives.option_checks import is_number

# By the name that configurations call it: where the dataclass of its options is.
OBJECTIVES = {
    "barlow_twins": "vit_jax.objectives.views.options:BarlowTwinsOptions",
    "byol": "vit_jax.objectives.views.options:ByolOptions",
    "beit": "vit_jax.objectives.beit.options:BeitOptions",
    "classification": "vit_jax.objectives.classification.options:ClassificationOptions",
    "dino": "vit_jax.objectives.dino.options:DinoOptions",
    "distillation": "vit_jax.objectives.distillation.options:DistillationOptions",
    "feature_distillation": "vit_jax.objectives.feature_distillation.options:FeatureDistillationOptions",
    "ijepa": "vit_jax.objectives.ijepa.options:IJepaOptions",
    "lejepa": "vit_jax.objectives.views.options:LejepaOptions",
    "mae": "vit_jax.objectives.mae.options:MaeOptions",
    "moco_v3": "vit_jax.objectives.views.options:MocoV3Options",
    "multi_label": "vit_jax.objectives.multi_label.options:MultiLabelOptions",
    "regression": "vit_jax.objectives.regression.options:RegressionOptions",
    "segmentation": "vit_jax.objectives.segmentation.options:SegmentationOptions",
    "simclr": "vit_jax.objectives.views.options:SimclrOptions",
    "simmim": "vit_jax.objectives.simmim.options:SimmimOptions",
    "simsiam": "vit_jax.objectives.views.options:SimsiamOptions",
    "vicreg": "vit_jax.objectives.views.options:VicregOptions",
    "visreg": "vit_jax.objectives.views.options:VisregOptions",
    "vq_tokenizer": "vit_jax.objectives.vq_tokenizer.options:VqTokenizerOptions",
}


def options_of(name: str) -> Any:
    """Return the dataclass of an objective's options.

    Raises:
      ConfigError: there is no such objective; the nearest is named.
    """
    choose(name, OBJECTIVES, "objective.name")
    return _imported(OBJECTIVES[name])


def training_options(name: str) -> tuple[str, ...]:
    """Return the options of an objective that concern training alone, and may need its data.

    Raises:
      ConfigError: there is no such objective; the nearest is named.
    """
    return getattr(options_of(name), "training", ())


def parse_options(section: dict[str, Any]) -> Any:
    """Return the options dataclass for a config's `objective` section, `{"name": ..., option: value}`.

    Raises:
      ConfigError: unknown objective or option (the nearest are named), or a value out of range.
    """
    values = dict(section)
    name = values.pop("name", None)
    kind = options_of(name)
    own, parts = _own_fields(kind), _parts(kind)
    known = dict(own)
    for option in parts:
        value = values.get(option, own[option].default)
        choose(value, parts[option], f"objective.{option}")
        known |= _fields(parts[option][value])
    for key, value in values.items():
        if key not in known:
            for option, others in parts.items():
                owner = next((which for which, part in others.items() if key in _fields(part)), None)
                if owner is not None:
                    raise ConfigError(
                        f"objective.{key} is {value!r}, but objective.{option} is "
                        f"{values.get(option, own[option].default)!r}; leave it out, or set "
                        f"objective.{option}={owner!r}."
                    )
            raise ConfigError(f"objective.{key} is not an option of {name!r}.{nearest(key, known)}")
        _check_type(key, value, known[key])
    given = {key: value for key, value in values.items() if key in own}
    for option, others in parts.items():
        part = others[values.get(option, own[option].default)]
        fields = _fields(part)
        given[f"{option}_options"] = part(**{key: values[key] for key in values if key in fields})
    return kind(**given)


def option_fields(name: str) -> list[Any]:
    """Return the fields of all options that an objective may have, whatever is chosen.

    Raises:
      ConfigError: there is no such objective; the nearest is named.
    """
    kind = options_of(name)
    found = _own_fields(kind)
    for others in _parts(kind).values():
        for part in others.values():
            found |= _fields(part)
    return list(found.values())


def _parts(kind: Any) -> dict[str, dict[str, Any]]:
    """Return, by options that choose a dataclass of further ones, these dataclasses by value."""
    tables = getattr(kind, "chosen", {})
    return {
        option: {value: _imported(place) for value, place in table.items()}
        for option, table in tables.items()
    }


def _own_fields(kind: Any) -> dict[str, Any]:
    made = {f"{option}_options" for option in getattr(kind, "chosen", {})}
    return {name: field for name, field in _fields(kind).items() if name not in made}


def _fields(kind: Any) -> dict[str, Any]:
    return {field.name: field for field in dataclasses.fields(kind)}


def _imported(place: str) -> Any:
    module, _, kind = place.partition(":")
    return getattr(importlib.import_module(module), kind)


def _check_type(key: str, value: Any, field: Any) -> None:
    default = field.default
    if isinstance(default, bool):
        expected, good = "True or False", isinstance(value, bool)
    elif isinstance(default, int):
        expected, good = "an integer", is_number(value) and isinstance(value, int)
    elif isinstance(default, float) and "None" in str(field.type):
        expected, good = "a number or None", value is None or is_number(value)
    elif field.type is float:
        expected, good = "a number", is_number(value)
    else:
        return  # what is text or more is checked where it is chosen from
    if not good:
        raise ConfigError(f"objective.{key} is {value!r}; it must be {expected}.")
