"""transformers' word for what a classifier's outputs mean, `problem_type` in `config.json`.

transformers reads it in the descriptions of its own models and in those of timm's, where timm itself ignores it.
"""

from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError
from vit_jax.models.registry import ModelConfig

_WORDS = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
_PROBLEMS = {word: problem for problem, word in _WORDS.items()}


def read_problem(document: Mapping[str, Any], origin: str) -> str:
    """Return our word for what a description says of the outputs; of one that says nothing, `single_label`.

    Raises:
      CheckpointError: it says something that transformers does not know.
    """
    word = document.get("problem_type")
    if word is None:
        return "single_label"
    if word not in _PROBLEMS:
        raise CheckpointError(
            f"{origin}: config.json says problem_type {word!r:.60}; it must be one of {', '.join(_PROBLEMS)}."
        )
    return _PROBLEMS[word]


def problem_type(config: ModelConfig) -> dict[str, str]:
    """Return what a description of a classifier says of its outputs."""
    return {"problem_type": _WORDS[config.problem]} if config.num_classes else {}
