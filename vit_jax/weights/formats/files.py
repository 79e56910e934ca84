"""Opening whatever holds weights: a file, known by its content, or a folder as libraries publish them."""

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vit_jax.errors import CheckpointError
from vit_jax.paths import read_file
from vit_jax.weights.formats import npz_format, safetensors_format, torch_format
from vit_jax.weights.formats.tensors import MAX_TENSORS, RawCheckpoint, Tensor, parse_json, reading, short
from vit_jax.weights.formats.which import Chosen, chosen
from vit_jax.weights.formats.zip_archive import Archive

DOCUMENTS = ("config.json", "preprocessor_config.json", "open_clip_config.json", "tokenizer_config.json")
MAX_DOCUMENT = 10_000_000
# What a folder is searched for; the first kind that is there counts. Of one kind there must be one.
FOLDER_FILES = (
    ("model.safetensors",),
    ("model.safetensors.index.json",),
    ("open_clip_model.safetensors",),
    ("*.safetensors",),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json",),
    ("*.npz",),
    ("model.pth", "model.pt"),
    ("*.pth", "*.pt", "*.bin"),
)
INDEX = ".index.json"
_NOT_WEIGHTS = (
    (b"\x93NUMPY", "is a single numpy array or a pickled dictionary; save arrays by name with numpy.savez"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights; run git lfs pull in its folder"),
    (b"<", "is a web page, not weights; download the file itself"),
    (b"\x89HDF", "is an HDF5 file; save the weights as safetensors with the library that wrote them"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
)


def open_checkpoint(path: Path, weights: str | None = None) -> RawCheckpoint:
    """Describe the weights in a file or folder, without reading them.

    Args:
      path: a safetensors, npz or PyTorch file, recognized by its content; or a folder with one of them (also in
        several files with an index) and JSON documents beside it.
      weights: the set that is meant, of a file that holds several; None for the one that its writer evaluates.

    Returns:
      The weights, under names without what wrappers of their model put before them.

    Raises:
      CheckpointError: nothing there holds weights, several files could be meant, or a file is damaged.
      ResourceError: a file may not be read.
    """
    path = Path(path)
    file = _file_in(path) if os.path.isdir(path) else path
    if file.name.endswith(INDEX):
        kind, found = _open_sharded(file, weights)
    else:
        kind, found = _open_file(file, weights)
    if not found.tensors:
        raise CheckpointError(f"{file} holds no tensors.")
    documents = _documents(file.parent)
    # transformers puts heads beside `vit.`, `model.` and others itself; its layouts know which.
    found = chosen(found, weights, str(path), beside="model_type" not in documents.get("config.json", {}))
    return RawCheckpoint(str(path), kind, found.tensors, documents, found.name, found.others, found.left_out)


def _file_in(folder: Path) -> Path:
    """The file that holds a folder's weights."""
    with reading(folder):
        there = sorted(folder.iterdir())
    for names in FOLDER_FILES:
        found = [file for file in there if any(fnmatchcase(file.name, name) for name in names)]
        found = [file for file in found if os.path.isfile(file)]
        if len(found) > 1:
            candidates = ", ".join(repr(file.name) for file in found[:6])
            raise CheckpointError(f"{folder} holds {candidates}; give the path of one of them.")
        if found:
            return found[0]
    wanted = ", ".join(name for names in FOLDER_FILES for name in names)
    raise CheckpointError(f"{folder} holds no weights; it must contain one of {wanted}.")


def _open_file(file: Path, weights: str | None) -> tuple[str, Chosen[Tensor]]:
    """Format and tensors of a single file."""
    with reading(file), open(file, "rb") as stream:
        start = stream.read(64)
    if start.startswith(b"PK"):
        archive = Archive(file)
        if any(name.endswith(".npy") for name in archive.names()):
            return "npz", Chosen(npz_format.read(archive))
        return "torch", torch_format.read_zip(archive, weights)
    if start[8:9] == b"{":
        return "safetensors", Chosen(safetensors_format.read(file))
    if start.startswith(b"\x80"):
        return "torch", torch_format.read_legacy(file, weights)
    for magic, what in _NOT_WEIGHTS:
        if start.startswith(magic):
            raise CheckpointError(f"{file} {what}.")
    raise CheckpointError(
        f"{file} is not a safetensors, npz or PyTorch file; give one of these or a folder with one."
    )


def _open_sharded(index: Path, weights: str | None) -> tuple[str, Chosen[Tensor]]:
    """Format and tensors of a model in several files; the index names the file of each tensor."""
    document = _parse(index)
    places = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(places, dict) or not 0 < len(places) <= MAX_TENSORS:
        raise CheckpointError(f"{index} has no weight_map from tensors to files; download it again.")
    for name, file in places.items():
        if (
            not isinstance(file, str)
            or file != Path(file).name
            or file in ("", "..")
            or "\\" in file
            or not file.isprintable()
        ):
            raise CheckpointError(
                f"{index} places {short(name)} in {short(file)}, which is not a file in its folder."
            )
    shards = {file: _open_file(index.parent / file, weights) for file in dict.fromkeys(places.values())}
    for name, file in places.items():
        if name not in shards[file][1].tensors:
            raise CheckpointError(
                f"{index.parent / file} lacks {short(name)}, which {index.name} places there."
            )
    kinds = {kind for kind, _ in shards.values()}
    first = next(iter(shards.values()))[1]
    tensors = {name: shards[file][1].tensors[name] for name, file in places.items()}
    return kinds.pop(), first._replace(tensors=tensors)


def _documents(folder: Path) -> dict[str, Any]:
    """The JSON files beside the weights that say what they are."""
    found = {name: _parse(folder / name) for name in DOCUMENTS if os.path.isfile(folder / name)}
    for name, document in found.items():
        if not isinstance(document, dict):
            raise CheckpointError(f"{folder / name} holds no values by name; download it again.")
    return found


def _parse(file: Path) -> Any:
    """A JSON document of bounded size."""
    with reading(file):
        text = read_file(file, MAX_DOCUMENT)
    return parse_json(text, file)
