"""Downloading a file over HTTP into a cache: resumed where it stopped, checked, safe if two do it at once."""

import base64
import hashlib
import os
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from vit_jax.errors import CheckpointError, ResourceError
from vit_jax.weights.formats.tensors import short

ATTEMPTS = 5
PAUSE = 1.0  # seconds before trying again, doubled with every failure
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 2**20


class _Interrupted(Exception):
    """The transfer stopped for a reason that may pass."""


def download(url: str, cache: Path, progress: bool) -> Path:
    """Return the path of a file in the cache, downloaded if it is not there.

    A part of a file is continued only if the server says that the file is the same; a download by another process
    is waited for.

    Args:
      url: `http://` or `https://`, with `#sha256=DIGEST` to have the content checked.
      cache: folder for downloads.
      progress: whether to show a bar on stderr if it is a terminal.

    Raises:
      CheckpointError: there is no such file, it may not be had, it cannot be reached, or it arrived damaged.
      ResourceError: the disk is full or the cache may not be written.
    """
    from filelock import FileLock

    address, _, fragment = url.partition("#")
    digest = fragment.removeprefix("sha256=").lower()
    if fragment and not (fragment.startswith("sha256=") and re.fullmatch("[0-9a-f]{64}", digest)):
        raise CheckpointError(
            f"{short(url)} ends with {short('#' + fragment)}; only #sha256= and 64 digits may follow."
        )
    # Whoever demands a digest never gets what was stored without one.
    folder = cache / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.+-]", "_", unquote(urlsplit(address).path.rpartition("/")[2]), flags=re.ASCII)
    path = folder / (name[-100:].lstrip(".") or "file")
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if not path.is_file():
                part = _Part(folder / "part", address)
                part.complete(progress)
                part.check(digest)
                os.replace(part.path, path)
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written: {error.strerror or error}; set VIT_JAX_CACHE."
        ) from None
    return path


class _Part:
    """A file of which some may have arrived, with the server's mark of the version it is of."""

    def __init__(self, path: Path, url: str):
        self.path = path
        self._version = path.with_name("version")
        self._url = url
        self._size: int | None = None
        self._md5 = ""

    def complete(self, progress: bool) -> None:
        """Receive what is missing, in as many connections as it takes."""
        failures, most = 0, 0
        while True:
            try:
                return self._receive(progress)
            except _Interrupted as error:
                reached = self.path.stat().st_size if self.path.exists() else 0
                # A connection that brought the file further than ever is no failure.
                failures = 0 if reached > most else failures + 1
                most = max(most, reached)
                if failures == ATTEMPTS:
                    raise CheckpointError(
                        f"{self._url} cannot be downloaded: {error}; check the connection and try again."
                    ) from None
                time.sleep(PAUSE * 2**failures)

    def check(self, digest: str) -> None:
        """Compare the content with the digest demanded and that which the server states.

        Raises:
          CheckpointError: they differ; the file is removed.
        """
        for kind, expected in (("sha256", digest), ("md5", self._md5)):
            if expected:
                with open(self.path, "rb") as file:
                    found = hashlib.file_digest(
                        file, partial(hashlib.new, kind, usedforsecurity=False)
                    ).hexdigest()
                if found != expected:
                    self._forget()
                    raise CheckpointError(
                        f"{self._url} arrived with {kind} {found} instead of {expected}; it was removed; try again."
                    )

    def _receive(self, progress: bool) -> None:
        """One connection: the rest of the file, or all of it if it is another one now."""
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem

        done = self.path.stat().st_size if self.path.exists() and self._version.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if done:
            headers |= {"Range": f"bytes={done}-", "If-Range": self._version.read_text()}
        # The default gives up after five minutes; this one only if nothing arrives.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        system = HTTPFileSystem(client_kwargs={"trust_env": True, "timeout": timeout}, encoded=True)
        try:
            # A size keeps fsspec from asking for it in a request of its own; of a stream it has no meaning.
            with system.open(
                quote(self._url, "%/:=&?~+!$,;'@()*[]"), block_size=0, size=1, headers=headers
            ) as stream:
                self._store(stream, done, progress)
        except FileNotFoundError:
            raise CheckpointError(f"{self._url} does not exist (404); check the URL.") from None
        except aiohttp.ClientResponseError as error:
            self._refuse(error.status)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise _Interrupted(f"the connection failed ({type(error).__name__})") from None

    def _store(self, stream: Any, done: int, progress: bool) -> None:
        """Append what arrives to what is there, or begin anew."""
        headers = stream.r.headers
        resumed = stream.r.status == 206 and headers.get("Content-Range", "").startswith(f"bytes {done}-")
        done = done if resumed else 0
        left = headers.get("Content-Length", "")
        self._size = done + int(left) if left.isdecimal() and "Content-Encoding" not in headers else None
        self._md5 = _stated_md5(headers)
        if not resumed:
            self._forget()
            version = headers.get("ETag", "")
            if not version.startswith('"'):  # weak marks say nothing about bytes
                version = headers.get("Last-Modified", "")
            if version:
                self._version.write_text(version)
        with open(self.path, "ab") as file, _bar(self._url, self._size, done, progress) as bar:
            while block := stream.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
            received = file.tell()
        if self._size is not None and received != self._size:
            raise _Interrupted(f"{received} of {self._size} bytes arrived")

    def _refuse(self, status: int) -> None:
        """What a status other than success means."""
        if status in (401, 403):
            raise CheckpointError(
                f"{self._url} may not be downloaded ({status}); request access from its publisher and give the path "
                "of a copy, or for the Hugging Face hub write ORG/NAME and set HF_TOKEN."
            ) from None
        if status == 416:  # more is there than the file has
            self._forget()
            raise _Interrupted("the partial download belongs to another file") from None
        if status in _BUSY:
            raise _Interrupted(f"the server answers {status}") from None
        raise CheckpointError(f"{self._url} cannot be downloaded: the server answers {status}.") from None

    def _forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)


def _stated_md5(headers: Any) -> str:
    """The MD5 digest of the content as far as a storage service states it, in hexadecimal digits."""
    stated = re.search(r"md5=([A-Za-z0-9+/]{22}==)", ",".join(headers.getall("x-goog-hash", [])))
    if stated:
        return base64.b64decode(stated[1]).hex()
    etag = headers.get("ETag", "").strip('"')
    # Of objects stored in one piece and not encrypted with a key of their own, Amazon's mark is the digest.
    amazon = headers.get("Server") == "AmazonS3" and "kms" not in headers.get(
        "x-amz-server-side-encryption", ""
    )
    return etag if amazon and re.fullmatch("[0-9a-f]{32}", etag) else ""


def _bar(url: str, total: int | None, done: int, progress: bool) -> Any:
    from tqdm import tqdm

    name = url.rpartition("/")[2][-40:]
    shown = progress and sys.stderr.isatty()
    return tqdm(
        desc=name, total=total, initial=done, unit="B", unit_scale=True, disable=not shown, file=sys.stderr
    )
