"""From what people write to a file or folder on this machine: paths, hub names, addresses."""

import os
import re
from pathlib import Path

from vit_jax.errors import CheckpointError
from vit_jax.paths import expanded
from vit_jax.weights.formats.tensors import short
from vit_jax.weights.remote import download, hub

GCS_ENDPOINT = (
    "VIT_JAX_GCS_ENDPOINT"  # environment: another server for gs:// addresses, as HF_ENDPOINT for the hub
)
CACHE = "VIT_JAX_CACHE"  # environment: another folder for downloads
ACCEPTED = (
    "a file or folder, a Hugging Face name such as timm/vit_base_patch16_224.augreg_in21k_ft_in1k, "
    "hf-hub:google/vit-base-patch16-224 or facebook/dinov2-base@main, or a URL gs://, https:// or http://"
)
_HUB_NAME = re.compile(
    r"(?:hf-hub:|https://huggingface\.co/)?([\w-][\w.-]*/[\w-][\w.-]*?)/?(?:@([\w./-]+))?", re.ASCII
)
_FILE_ENDINGS = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".pkl", ".json")


def fetch(
    source: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    progress: bool = True,
    weights: bool = True,
) -> Path:
    """Return the path of weights, downloaded first if they are not on this machine.

    What was downloaded once is taken from the cache; the hub is asked whether there is something newer.

    Args:
      source: a path; `ORG/NAME`, `ORG/NAME@REVISION` or `hf-hub:...` on the Hugging Face hub; `gs://bucket/path` of
        a public bucket; an `https://` or `http://` address, checked if it ends with `#sha256=DIGEST`.
      cache: folder for downloads; by default `$VIT_JAX_CACHE` or `~/.cache/vit_jax` for addresses and the hub's own
        cache for the hub.
      revision: branch, tag or commit on the hub, instead of that in `source`.
      progress: whether to show a bar on stderr if it is a terminal.
      weights: whether a hub repository's weights are wanted; False downloads only the documents beside them.

    Returns:
      A file, or for the hub a folder.

    Raises:
      CheckpointError: there is no such thing, it may not be had, or it arrived damaged.
      ResourceError: the disk is full or the cache may not be written.
    """
    text = os.fspath(source)
    path = Path(expanded(text))
    if text and os.path.exists(path):
        return path
    if text.startswith("gs://"):
        text = _public_address(text)
    name = _HUB_NAME.fullmatch(text)
    if name and not text.endswith(_FILE_ENDINGS):
        folder = Path(expanded(cache)) if cache else None
        return hub.snapshot(name[1], revision or name[2], folder, progress, weights)
    if text.startswith(("https://", "http://")):
        return download.download(text, Path(expanded(cache)) if cache else default_cache(), progress)
    raise CheckpointError(f"{short(text)} does not exist and is not the name of weights; give {ACCEPTED}.")


def default_cache() -> Path:
    """Return the folder in which downloads are kept: `$VIT_JAX_CACHE`, or `vit_jax` in the user's cache."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vit_jax"


def _public_address(text: str) -> str:
    """The address at which Google Cloud Storage serves an object of a public bucket."""
    bucket, _, name = text.removeprefix("gs://").partition("/")
    if not bucket or not name:
        raise CheckpointError(f"{short(text)} names no object; write gs://bucket/path.")
    endpoint = os.environ.get(GCS_ENDPOINT, "https://storage.googleapis.com").rstrip("/")
    return f"{endpoint}/{bucket}/{name}"
