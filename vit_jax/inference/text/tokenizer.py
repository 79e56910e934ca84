"""Texts to the tokens that the text encoders of CLIP, SigLIP and SigLIP 2 know.

What the published libraries do with a text before their tokenizer sees it, and with its tokens afterwards, is done
here: SigLIP's texts are lower-cased without punctuation, SigLIP 2's are lower-cased, and both are padded to the full
length, because it is the last position that stands for a text. CLIP's padding comes after the end token, which is
what stands for a text, and its attention is causal, so that nothing depends on it.
"""

import os
import re
import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.errors import CheckpointError, ConfigError, VitError
from vit_jax.inference.text.sentencepiece import parse_unigram
from vit_jax.models.families import part_config
from vit_jax.models.text.config import TextConfig
from vit_jax.paths import read_file
from vit_jax.weights.formats.tensors import parse_json, reading, short
from vit_jax.weights.remote.fetch import fetch

FILES = ("tokenizer.json", "spiece.model")
MAX_SIZE = 100_000_000  # Gemma's has 34 million bytes
# Where the tokenizer of a model lies whose weights are published without one, by the size of its vocabulary.
PUBLISHED = {
    49_408: "openai/clip-vit-base-patch32",
    32_000: "google/siglip-base-patch16-224",
    250_000: "google/siglip-base-patch16-256-multilingual",
    256_000: "google/siglip2-base-patch16-224",
}
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Tokenizer:
    """Texts to tokens `(b, n)`, all of the encoder's full length.

    Attributes:
      config: the text encoder.
      pad_token: what fills the positions behind a text.
      origin: where it was read from, for messages.
    """

    config: TextConfig
    pad_token: int
    origin: str
    _library: Any = field(repr=False)
    _clean: Callable[[str], str] = field(repr=False)

    @classmethod
    def load(cls, source: str | Path, config: TextConfig | None = None) -> "Tokenizer":
        """Return the tokenizer published with a checkpoint.

        Args:
          source: whatever `vit_jax.load` takes, with `tokenizer.json` (or SigLIP's `spiece.model`) beside the weights;
            or such a file, or a folder or repository with one.
          config: the text encoder; None for that of the same checkpoint.

        Raises:
          CheckpointError: there is no tokenizer, it cannot be read, or it is another model's.
          ConfigError: the checkpoint has no text encoder.
        """
        if config is None:
            # Here because reading checkpoints takes imports that a tokenizer alone does not need.
            from vit_jax.weights.load import open_pretrained

            config = text_config(open_pretrained(source).config, source)
        file = _find(source, config)
        with _understanding(file):
            library = _open(file)
            ending = library.encode("").ids
        kind = _kind(library, config)
        if config.causal and (not ending or ending[-1] != _end_token(config)):
            raise CheckpointError(
                f"{file} ends texts with {f'token {ending[-1]}' if ending else 'no token'}, the model with token "
                f"{_end_token(config)}; give the tokenizer of this model."
            )
        documents = _documents(file.parent)
        pad_token = _pad_token(library, kind, documents, ending[-1] if ending else 0)
        library.no_padding()
        library.enable_truncation(config.context_length)  # keeps the end token
        return cls(config, pad_token, str(file), library, _cleaning(kind, documents))

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """Return tokens, int32 `(b, n)`; texts that are too long lose their end, but not the end token.

        Raises:
          CheckpointError: the tokenizer gives tokens that the model does not have.
          ConfigError: something is no text.
        """
        texts = [texts] if isinstance(texts, str) else texts
        rows = np.full((len(texts), self.config.context_length), self.pad_token, np.int64)
        for row, text in zip(rows, texts):
            with _understanding(self.origin):
                ids = self._library.encode(self._clean(_checked(text))).ids
            row[: len(ids)] = ids
        if rows.size and rows.max() >= self.config.vocab_size:
            raise CheckpointError(
                f"{self.origin} gives token {rows.max()}, the model has {self.config.vocab_size}; "
                "give the tokenizer of this model."
            )
        return rows.astype(np.int32)


def text_config(config: Any, source: str | Path) -> TextConfig:
    """Return the text encoder of a checkpoint.

    Args:
      config: of the whole model.
      source: the checkpoint's name, for the message.

    Raises:
      ConfigError: there is no text encoder.
    """
    found = part_config(config, "text")
    if found is None:
        raise ConfigError(
            f"checkpoint {str(source)!r} has no text encoder; use a CLIP or SigLIP checkpoint, such as "
            "openai/clip-vit-base-patch32 or google/siglip-base-patch16-224."
        )
    return found


def _find(source: str | Path, config: TextConfig) -> Path:
    """Return the file of a tokenizer: the source itself, or beside the weights."""
    path = fetch(source, weights=False)
    if os.path.isfile(path) and path.suffix in (".json", ".model"):
        return path
    folder = path if os.path.isdir(path) else path.parent
    for name in FILES:
        if os.path.isfile(folder / name):
            return folder / name
    known = PUBLISHED.get(config.vocab_size)
    advice = f"tokenizer={known!r} takes that of this model" if known else "give tokenizer=FILE or REPOSITORY"
    raise CheckpointError(f"{str(source)!r} has no {' or '.join(FILES)} beside its weights; {advice}.")


def _open(file: Path) -> Any:
    with reading(file):
        content = read_file(file, MAX_SIZE)
    if file.suffix == ".model":
        return parse_unigram(content, file)
    # Here because only texts need it.
    from tokenizers import Tokenizer as Library

    return Library.from_buffer(content)


@contextmanager
def _understanding(origin: object) -> Iterator[None]:
    """Turn what the library says about a damaged tokenizer, at once or when it meets a text, into one line."""
    try:
        yield
    except VitError:
        raise
    except BaseException as error:
        # The library raises plain exceptions, and where it fails itself one that is not even an `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        why = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{origin} is not a working tokenizer: {short(why)}; download it again."
        ) from None


def _kind(library: Any, config: TextConfig) -> str:
    """Return whose tokenizer it is; SigLIP's splits texts by probability, SigLIP 2's (Gemma's) merges pairs."""
    if config.causal:
        return "clip"
    return "siglip" if type(library.model).__name__ == "Unigram" else "siglip2"


def _end_token(config: TextConfig) -> int:
    return config.eos_token if config.pool == "eos" else config.vocab_size - 1


def _documents(folder: Path) -> dict[str, Any]:
    """Return what lies beside a tokenizer."""
    documents = {}
    for name in ("tokenizer_config.json", "open_clip_config.json", "config.json"):
        file = folder / name
        if os.path.isfile(file):
            with reading(file):
                document = parse_json(read_file(file, MAX_SIZE), file)
            documents[name] = document if isinstance(document, dict) else {}
    return documents


def _pad_token(library: Any, kind: str, documents: dict[str, Any], end: int) -> int:
    if kind == "clip" and "open_clip_config.json" in documents and "config.json" not in documents:
        return 0  # as OpenCLIP's own code
    said = documents.get("tokenizer_config.json", {}).get("pad_token")
    said = said.get("content") if isinstance(said, dict) else said
    said = said or ("<pad>" if kind == "siglip2" else None)
    token = library.token_to_id(said) if isinstance(said, str) else None
    if token is None and library.padding:
        token = library.padding["pad_id"]
    return end if token is None else token


def _cleaning(kind: str, documents: dict[str, Any]) -> Callable[[str], str]:
    if kind == "clip":
        return str  # as it is: its tokenizer.json says it all
    if kind == "siglip":
        lower = documents.get("tokenizer_config.json", {}).get("do_lower_case", True)
        return partial(_canonical, lower=lower)
    from tokenizers import normalizers

    return normalizers.Lowercase().normalize_str


def _canonical(text: str, lower: bool) -> str:
    """Return a text without punctuation, perhaps in small letters, its words one space apart."""
    return re.sub(r"\s+", " ", (text.lower() if lower else text).translate(_PUNCTUATION)).strip()


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"a text is {text!r}, a {type(text).__name__}; give strings.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"text {text!r} is not valid Unicode; write it in UTF-8.") from None
    return text
