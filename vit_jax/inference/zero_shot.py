"""Classify images by the names of classes, without training: an image belongs to the text that is most like it.

Source: CLIP (Radford et al. 2021, arXiv 2103.00020), section 3.1; SigLIP (Zhai et al. 2023, arXiv 2303.15343).
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.compiler_options import jit, prediction_options
from vit_jax.errors import ConfigError
from vit_jax.evaluation.preprocess import Picture, preprocessing
from vit_jax.inference.predictions import Prediction, fitting, in_batches, most_probable
from vit_jax.inference.tokenizer import Tokenizer, text_config
from vit_jax.models.registry import model_functions
from vit_jax.models.text import ImageTextModel
from vit_jax.models.text_config import ImageTextConfig
from vit_jax.objectives.images import normalise
from vit_jax.weights.load import open_pretrained

TEMPLATES = ("a photo of a {}.",)


class ZeroShotClassifier:
    """Images to probabilities of classes that are only named.

    Args:
      model: an image and a text encoder, as `vit_jax.load` returns of CLIP and SigLIP.
      tokenizer: of its texts.
      class_names: what the images may show, each one once.
      templates: texts with `{}` for the class. The embeddings of a class's texts, each of length 1, are averaged.
      batch_size: images or texts computed at once; the last batch of images is padded, so that one program serves
        all.

    Attributes:
      class_names: the names.
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
        self.class_names, self.templates = _checked(class_names, templates)
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self._preprocessor = preprocessing(model)
        texts = [template.replace("{}", name) for name in self.class_names for template in self.templates]
        encode = _jitted(_encode_text, model.config.text.dtype)
        encoded = in_batches(
            lambda tokens: encode(model, tokens), tokenizer(texts), min(batch_size, len(texts))
        )
        mean = encoded.reshape(len(self.class_names), len(self.templates), -1).mean(axis=1)
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
    ) -> "ZeroShotClassifier":
        """Return the classifier of a published checkpoint.

        Args:
          source: whatever `vit_jax.load` takes, of CLIP, SigLIP or SigLIP 2.
          class_names, templates, batch_size: see the class.
          tokenizer: where the tokenizer is, see `Tokenizer.load`; None for beside the weights.

        Raises:
          CheckpointError: the weights or the tokenizer cannot be read, or do not belong to each other.
          ConfigError: see the class; or the checkpoint is not of two towers.
        """
        _checked(class_names, templates)
        pretrained = open_pretrained(source)
        config = pretrained.config
        text = text_config(config, source)
        if not isinstance(config, ImageTextConfig):
            raise ConfigError(f"checkpoint {str(source)!r} has no image encoder; take one of CLIP or SigLIP.")
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = Tokenizer.load(source if tokenizer is None else tokenizer, text)
        model = model_functions(config).bind(pretrained.params())
        return cls(model, tokenizer, class_names, templates, batch_size=batch_size)

    def logits(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Return the scaled similarity of images with classes, float32 `(b, classes)`.

        Args:
          images: paths, bytes of image files, or arrays `(h, w, c)` uint8; one or several.
        """
        rows = self._preprocessor.pixels(images)
        if not len(rows):
            return np.zeros((0, len(self.class_names)), np.float32)
        compare = _jitted(_compare, self.model.config.image.dtype)
        return in_batches(
            lambda batch: compare(self.model, batch, self.class_embeddings),
            rows,
            fitting(self.batch_size, len(rows)),
        )

    def probabilities(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Return class probabilities, float32 `(b, classes)`.

        CLIP's sum to 1 in every row. Each of SigLIP's stands for itself: that the text describes the image.
        """
        activation = jax.nn.softmax if self.model.logit_bias is None else jax.nn.sigmoid
        return np.asarray(activation(self.logits(images)))

    def predict(self, images: Picture | Sequence[Picture], top: int = 5) -> list[Prediction]:
        """Return the `top` most probable classes of each image, see `probabilities`."""
        return most_probable(images, self.probabilities(images), self.class_names, top)


@functools.cache
def _jitted(function: Callable[..., jax.Array], dtype: str) -> Any:
    """Return a function of this module compiled for its dtype, once, however often it is asked for."""
    return jit(function, prediction_options(jax.default_backend(), dtype))


def _encode_text(model: ImageTextModel, tokens: jax.Array) -> jax.Array:
    return model.encode_text(tokens)


def _compare(model: ImageTextModel, pixels: jax.Array, classes: jax.Array) -> jax.Array:
    return model.compare(model.encode_image(normalise(pixels, model.config.image.preprocessing)), classes)


def _checked(
    class_names: Sequence[str], templates: str | Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names and the templates if they are some."""
    if isinstance(class_names, str):
        raise ConfigError(f"class_names is {class_names!r}, one text; give a list of names.")
    names = tuple(class_names)
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"a class is called {name!r}; give a text that says what the image shows.")
    if not names:
        raise ConfigError("class_names is empty; give at least one class.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"class {twice[0]!r} is given twice; give each class once.")
    if not templates:
        raise ConfigError("templates is empty; give at least one text with {}, such as 'a photo of a {}.'.")
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise ConfigError(
                f"template {template!r} has no place for the class; write {{}} there, as in 'a photo of a {{}}.'."
            )
    return names, templates
