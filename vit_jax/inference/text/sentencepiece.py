"""Vocabularies as the library `sentencepiece` writes them, read without it.

The file is a protocol buffer: fields, each a number and a value. Of the model, field 1 is a piece (repeated; in it 1
is the text, 2 its score, 3 its kind), field 2 how it was trained (3: the kind of model), field 3 how texts are
normalised (2: a table of characters).

Source: Kudo 2018, arXiv 1804.10959 (unigram language model); Kudo and Richardson 2018, arXiv 1808.06226.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit_jax.errors import CheckpointError

_UNIGRAM = 1
_UNKNOWN = 2  # kind of the piece that stands for what is not in the vocabulary
_END = "</s>"


def parse_unigram(content: bytes, file: Path) -> Any:
    """Return a tokenizer (of the library `tokenizers`) that splits texts as `sentencepiece` and adds the end token.

    Args:
      content: of the file.
      file: its path, for messages.

    Raises:
      CheckpointError: the file is damaged, or its model is not a unigram language model with an end token.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    try:
        pieces, kind, characters = _parse(content)
        texts = [text for text, _, _ in pieces]
        if kind != _UNIGRAM or _END not in texts:
            raise CheckpointError(
                f"{file} is no unigram model with the token {_END}, as SigLIP's is; give a tokenizer.json instead."
            )
        unknown = next(i for i, (_, _, kind) in enumerate(pieces) if kind == _UNKNOWN)
        library = Tokenizer(models.Unigram([(text, score) for text, score, _ in pieces], unknown, False))
        table = [normalizers.Precompiled(characters)] if characters else []
    except CheckpointError:
        raise
    except Exception:  # of what is read here, and of the library, which raises nothing more special
        raise CheckpointError(f"{file} is not a sentencepiece vocabulary; download it again.") from None
    library.normalizer = normalizers.Sequence([*table, normalizers.Replace(Regex(" {2,}"), " ")])
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, texts.index(_END))]
    )
    return library


def _parse(content: bytes) -> tuple[list[tuple[str, float, int]], int, bytes]:
    """Return the pieces (text, score, kind), the kind of the model, and the table of characters."""
    pieces, model, characters = [], _UNIGRAM, b""
    for number, value in _fields(content):
        if number == 1:
            piece = {1: b"", 2: bytes(4), 3: 1, **dict(_fields(value))}
            pieces.append((piece[1].decode(), struct.unpack("<f", piece[2])[0], piece[3]))
        elif number == 2:
            model = dict(_fields(value)).get(3, _UNIGRAM)
        elif number == 3:
            characters = dict(_fields(value)).get(2, b"")
    return pieces, model, characters


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field: an integer, or the bytes of anything else."""
    position = 0
    while position < len(content):
        key, position = _integer(content, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _integer(content, position)
            yield number, value
            continue
        if wire == 2:
            size, position = _integer(content, position)
        else:
            size = {1: 8, 5: 4}[wire]
        if position + size > len(content):
            raise ValueError("a field ends behind the file")
        yield number, content[position : position + size]
        position += size


def _integer(content: bytes, position: int) -> tuple[int, int]:
    """Return an integer written in groups of seven bits, and where it ends."""
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 127) << shift
        shift, position = shift + 7, position + 1
        if byte < 128:
            return value, position
        if shift > 63:
            raise ValueError("an integer has more than 64 bits")
