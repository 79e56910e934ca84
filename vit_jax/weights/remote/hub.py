"""Weights on the Hugging Face hub: only the files that are needed, in the hub's own cache."""

import os
from pathlib import Path
from typing import Any

from vit_jax.errors import CheckpointError, ResourceError

DOCUMENTS = [
    "config.json",
    "preprocessor_config.json",
    "open_clip_config.json",
    "tokenizer*.json",
    "spiece.model",
]
# Repositories often hold the same weights in several formats; the first that is there is downloaded.
WEIGHTS = (
    ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"],
    ["*.safetensors", "*.safetensors.index.json"],
    ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"],
    ["*.bin", "*.pth", "*.pt", "*.npz"],
)


def snapshot(
    name: str, revision: str | None, cache: Path | None, progress: bool, weights: bool = True
) -> Path:
    """Return the folder with a repository's weights and documents, downloaded as far as needed.

    Args:
      name: `ORG/NAME`.
      revision: branch, tag or commit; None is the main branch.
      cache: folder for downloads; None is the hub's own.
      progress: whether to show bars.
      weights: whether the weights are wanted; False downloads only the documents.

    Raises:
      CheckpointError: the repository does not exist, may not be read, holds no weights or cannot be reached.
      ResourceError: the disk is full or the cache may not be written.
    """
    if not weights:
        return _download(name, revision, DOCUMENTS, cache, progress)
    for patterns in WEIGHTS:
        folder = _download(name, revision, DOCUMENTS + patterns, cache, progress)
        if any(next(folder.glob(pattern), None) for pattern in patterns):
            return folder
    raise CheckpointError(
        f"{name} on the Hugging Face hub holds no weights in safetensors, PyTorch or npz; name another repository."
    )


def _download(
    name: str, revision: str | None, patterns: list[str], cache: Path | None, progress: bool
) -> Path:
    # Imported here because it takes a second that most commands need not wait for.
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    try:
        if shown and not progress:
            disable_progress_bars()
        endpoint = os.environ.get("HF_ENDPOINT")
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=patterns, cache_dir=cache, endpoint=endpoint
            )
        )
    except errors.GatedRepoError:
        why = f"is gated; request access at https://huggingface.co/{name}, then set HF_TOKEN to a token of yours"
    except errors.RepositoryNotFoundError:
        why = "does not exist (nor does such a path here) or is private: check the name, or set HF_TOKEN"
    except errors.RevisionNotFoundError:
        why = f"has no revision {revision!r}; name a branch, tag or commit that it has"
    except errors.LocalEntryNotFoundError:
        why = (
            "is not in the cache and the hub cannot be reached; connect to the internet or give a local path"
        )
    except errors.HFValidationError:
        why = "is not a valid repository name; write ORG/NAME"
    except errors.HfHubHTTPError as error:
        why = f"cannot be downloaded, the hub answers {_status(error)}; try again later, or set HF_TOKEN"
    except PermissionError as error:
        raise ResourceError(
            f"{error.filename} may not be written; set HF_HOME to a folder that you own."
        ) from None
    except Exception as error:  # of the transport, whose library differs between versions of huggingface_hub
        why = f"cannot be downloaded ({type(error).__name__}); trying again resumes where it stopped"
    finally:
        if shown and not progress:
            enable_progress_bars()
    raise CheckpointError(f"{name} on the Hugging Face hub {why}.")


def _status(error: Any) -> str:
    return str(error.response.status_code) if error.response is not None else "with an error"
