"""Classify images by the names of classes, without training: an image belongs to the text that is most like it.

Source: CLIP (Radford et al. 2021, arXiv 2103.00020), section 3.1; SigLIP (Zhai et al. 2023, arXiv 2303.15343).
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.compiler_options import jit, prediction_options
from vit_jax.data.sources.pictures import Pictures
from vit_jax.errors import ConfigError
from vit_jax.evaluation.preprocess import Preprocessor, preprocessing
from vit_jax.inference.predictions import ImagePredictor
from vit_jax.inference.stream import in_batches, stacked, stream
from vit_jax.inference.text.tokenizer import Tokenizer, text_config
from vit_jax.models.families import part_config
from vit_jax.models.functional import parameters
from vit_jax.models.registry import model_functions
from vit_jax.models.text.model import ImageTextModel
from vit_jax.objectives.images import inputs
from vit_jax.objectives.outputs.classes import Classes
from vit_jax.weights.load import open_pretrained

TEMPLATES = ("a photo of a {}.",)


class ZeroShotClassifier(ImagePredictor):
    """Images to probabilities of classes that are only named.

    CLIP's sum to 1 in every row. Each of SigLIP's stands for itself: that the text describes the image.

    Args:
      model: an image and a text encoder, as `vit_jax.load` returns of CLIP and SigLIP.
      tokenizer: of its texts.
      class_names: what the images may show, each one once.
      templates: texts with `{}` for the class. The embeddings of a class's texts, each of length 1, are averaged.
      batch_size: images or texts computed at once; the last batch of images is padded, so that one program serves
        all.

    Attributes:
      output: the names.
      class_embeddings: float32 `(classes, e)`, of length 1.

    Raises:
      ConfigError: there is no class, one comes twice, or a template has no place for it.
    """

    def __init__(
        self,
        model: ImageTextModel,
        tokenizer: Tokenizer,
        class_names: Sequence[str],
        templates: str | Sequence[str] = TEMPLATES,
        *,
        batch_size: int = 32,
    ):
        names, self.templates = _checked(class_names, templates)
        self.output = Classes(names)
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        texts = [template.replace("{}", name) for name in names for template in self.templates]
        encode = _jitted(_encode_text, model.config.text.dtype)
        encoded = in_batches(
            lambda tokens: encode(model, tokens), tokenizer(texts), min(batch_size, len(texts))
        )
        mean = encoded.reshape(len(names), len(self.templates), -1).mean(axis=1)
        self.class_embeddings = mean / np.linalg.norm(mean, axis=-1, keepdims=True)

    @classmethod
    def load(
        cls,
        source: str | Path,
        class_names: Sequence[str],
        templates: str | Sequence[str] = TEMPLATES,
        *,
        tokenizer: str | Path | Tokenizer | None = None,
        batch_size: int = 32,
        weights: str | None = None,
    ) -> "ZeroShotClassifier":
        """Return the classifier of a published checkpoint.

        Args:
          source: whatever `vit_jax.load` takes, of CLIP, SigLIP or SigLIP 2.
          class_names, templates, batch_size: see the class.
          tokenizer: where the tokenizer is, see `Tokenizer.load`; None for beside the weights.
          weights: which set of a file that holds several, see `vit_jax.load`.

        Raises:
          CheckpointError: the weights or the tokenizer cannot be read, or do not belong to each other.
          ConfigError: see the class; or the checkpoint is not of two towers.
        """
        _checked(class_names, templates)
        pretrained = open_pretrained(source, weights=weights)
        config = pretrained.config
        text = text_config(config, source)
        if part_config(config, "image") is None:
            raise ConfigError(
                f"checkpoint {str(source)!r} has no image encoder; use a CLIP or SigLIP checkpoint."
            )
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = Tokenizer.load(source if tokenizer is None else tokenizer, text)
        model = model_functions(config).bind(pretrained.params())
        return cls(model, tokenizer, class_names, templates, batch_size=batch_size)

    def logits(
        self, images: Pictures, *, bad: str = "error", max_megapixels: float | None = None
    ) -> np.ndarray:
        """Return the scaled similarity of images with classes, float32 `(b, classes)`.

        Args:
          images, bad, max_megapixels: see `probabilities`.
        """
        preprocessor = self._preprocessor.limited(max_megapixels)
        rows = stream(self._compare, preprocessor, images, self.batch_size, bad=bad)
        return stacked(rows, len(self.class_names))

    def _compare(self, images: np.ndarray) -> jax.Array:
        return _jitted(_compare, self.model.config.image.dtype)(self.model, images, self.class_embeddings)

    def _compute(self, images: np.ndarray) -> dict[str, jax.Array]:
        activation = jax.nn.softmax if self.model.logit_bias is None else jax.nn.sigmoid
        return {"probabilities": activation(self._compare(images))}

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        return preprocessing(self.model)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"model": (self.model.config, parameters(self.model))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        config, params = state["model"]
        vars(self).update(state, model=model_functions(config).bind(params))


@functools.cache
def _jitted(function: Callable[..., jax.Array], dtype: str) -> Any:
    """Return a function of this module compiled for its dtype, once, however often it is asked for."""
    return jit(function, prediction_options(jax.default_backend(), dtype))


def _encode_text(model: ImageTextModel, tokens: jax.Array) -> jax.Array:
    return model.encode_text(tokens)


def _compare(model: ImageTextModel, pixels: Any, classes: jax.Array) -> jax.Array:
    return model.compare(model.encode_image(inputs({"image": pixels}, model.config.image)), classes)


def _checked(
    class_names: Sequence[str], templates: str | Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names and the templates if they are some."""
    if isinstance(class_names, str):
        raise ConfigError(f"class_names is {class_names!r}, a single string; give a list of names.")
    names = tuple(class_names)
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"a class is named {name!r}; give words that describe what the image shows.")
    if not names:
        raise ConfigError("class_names is empty; give at least one class.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"class {twice[0]!r} is given twice; give each class once.")
    if not templates:
        raise ConfigError("templates is empty; give at least one prompt with {}, such as 'a photo of a {}.'.")
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise ConfigError(
                f"template {template!r} has no place for the class; write {{}} there, as in 'a photo of a {{}}.'."
            )
    return names, templates
