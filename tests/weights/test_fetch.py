"""Paths, hub names and addresses become local files; what goes wrong on the way is one line."""

import base64
import hashlib
import threading
from pathlib import Path

import pytest

from tests.weights.checks import refused
from tests.weights.servers import publish, serve
from vit_jax.errors import ResourceError
from vit_jax.weights.remote import download
from vit_jax.weights.remote.fetch import default_cache, fetch

CONTENT = bytes(range(256)) * 20_000  # several network packets
REPOSITORY = {
    "config.json": b"{}",
    "README.md": b"not needed",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same again",
    "onnx/model.onnx": b"not needed",
}


@pytest.fixture
def site(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        monkeypatch.setenv("VIT_JAX_GCS_ENDPOINT", site.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        site.files["/a/w.npz"] = CONTENT
        yield site


@pytest.fixture
def get(site, tmp_path):
    """Fetch a file of the site's and return its content."""
    return lambda end="": fetch(f"{site.url}/a/w.npz{end}", cache=tmp_path / "cache").read_bytes()


def test_paths_are_returned_as_they_are(tmp_path, monkeypatch):
    assert fetch(tmp_path) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.npz").touch()
    assert fetch("~/w.npz") == tmp_path / "w.npz"
    monkeypatch.chdir(tmp_path)
    assert fetch("w.npz") == Path("w.npz")


@pytest.mark.parametrize(
    "source", ["", "nothing", "./x/y.npz", "a/b.pth", "a/b/c", "ftp://a/b", "s3://a/b", "../a"]
)
def test_what_is_none_of_these_lists_what_is(source):
    line = refused(lambda: fetch(source), "does not exist")
    assert all(kind in line for kind in ("timm/", "hf-hub:", "gs://", "https://", "folder"))


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.delenv("VIT_JAX_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "vit_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_cache() == Path("/x/vit_jax")
    monkeypatch.setenv("VIT_JAX_CACHE", "~/y")
    assert default_cache() == tmp_path / "y"


def test_a_download_is_kept(site, get):
    assert get() == get() == CONTENT
    assert len(site.requests) == 1


def test_a_file_keeps_its_name(site, tmp_path):
    site.files["/a/R50%2BViT%20x.npz"] = b"x"
    path = fetch(f"{site.url}/a/R50%2BViT%20x.npz?download=1", cache=tmp_path)
    assert path.name == "R50+ViT_x.npz"
    site.files["/a/..%2F..%2Fx"] = b"x"
    path = fetch(f"{site.url}/a/..%2F..%2Fx", cache=tmp_path)
    assert path.name == "_.._x"
    assert path.parent.parent == tmp_path / "downloads"


def test_buckets_of_google(site, tmp_path):
    assert fetch("gs://a/w.npz", cache=tmp_path).read_bytes() == CONTENT
    refused(lambda: fetch("gs://bucket"), "gs://bucket/path")


def test_a_transfer_that_breaks_off_is_continued(site, get):
    site.cuts["/a/w.npz"] = [2_000_000, 2_000_000]
    assert get() == CONTENT
    starts = [int((request[2] or "0").strip("bytes=-")) for request in site.requests]
    assert len(starts) == 3
    assert 0 == starts[0] < starts[1] < starts[2]


def test_a_download_given_up_is_continued_the_next_time(site, get, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    site.cuts["/a/w.npz"] = [2_000_000, 0]
    refused(get, "cannot be downloaded")
    assert get() == CONTENT
    assert site.requests[-1][2].startswith("bytes=")
    assert {file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()} <= {
        "w.npz",
        "lock",
        "version",
    }


def test_a_file_that_changed_meanwhile_is_begun_anew(site, get, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    site.cuts["/a/w.npz"] = [2_000_000, 0]
    refused(get, "cannot be downloaded")
    site.files["/a/w.npz"] = CONTENT[::-1]
    assert get() == CONTENT[::-1]


def test_without_a_mark_of_the_version_nothing_is_continued(site, get):
    site.tagged = False
    site.cuts["/a/w.npz"] = [1_000_000]
    assert get() == CONTENT
    assert [request[2] for request in site.requests] == [None, None]


def test_a_part_longer_than_the_file_is_dropped(site, get, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    site.cuts["/a/w.npz"] = [2_000_000, 0]
    refused(get, "cannot be downloaded")
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    part = next((tmp_path / "cache").rglob("part"))
    part.write_bytes(CONTENT * 2)
    assert get() == CONTENT


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(site, get, status):
    site.statuses["/a/w.npz"] = [status, status]
    assert get() == CONTENT


@pytest.mark.parametrize(
    ("status", "why"),
    [(404, "does not exist (404)"), (403, "HF_TOKEN"), (401, "HF_TOKEN"), (410, "410"), (503, "503")],
)
def test_a_refusal_is_named(site, get, status, why):
    site.statuses["/a/w.npz"] = [status] * 6
    refused(get, why)
    assert len(site.requests) == (download.ATTEMPTS if status == 503 else 1)


def test_no_connection(tmp_path, site):
    refused(lambda: fetch("http://127.0.0.1:9/x.npz", cache=tmp_path), "the connection failed")


def test_the_digest_demanded(site, get, tmp_path):
    assert get() == CONTENT  # without one: kept apart from what is checked
    assert get(f"#sha256={hashlib.sha256(CONTENT).hexdigest().upper()}") == CONTENT
    refused(lambda: get("#sha256=" + "0" * 64), "sha256")
    assert not list((tmp_path / "cache").rglob("part"))
    refused(lambda: get("#md5=" + "0" * 32), "#sha256=")
    refused(lambda: get("#sha256=12"), "#sha256=")


def md5(content):
    return hashlib.md5(content, usedforsecurity=False)


@pytest.mark.parametrize(
    "headers",
    [
        lambda content: {
            "x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(md5(content).digest()).decode()}"
        },
        lambda content: {"ETag": f'"{md5(content).hexdigest()}"', "server": "AmazonS3"},
    ],
)
def test_the_digest_stated_by_the_server(site, get, headers, monkeypatch):
    site.headers["/a/w.npz"] = headers(CONTENT + b"!")
    monkeypatch.setattr("tests.weights.servers._Handler.version_string", lambda _: "AmazonS3")
    refused(get, "md5")
    site.headers["/a/w.npz"] = headers(CONTENT)
    assert get() == CONTENT


def test_an_unknown_mark_is_no_digest(site, get):
    site.headers["/a/w.npz"] = {"ETag": '"' + "0" * 32 + '"'}
    assert get() == CONTENT


def test_two_at_once(site, tmp_path):
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(fetch(f"{site.url}/a/w.npz", cache=tmp_path).read_bytes())
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 4
    assert len(site.requests) == 1


def test_a_cache_that_cannot_be_written(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="VIT_JAX_CACHE"):
        fetch(f"{site.url}/a/w.npz", cache=tmp_path / "file")


def test_a_bar_only_on_a_terminal(site, get, tmp_path, capsys, monkeypatch):
    get()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fetch(f"{site.url}/a/w.npz", cache=tmp_path / "other", progress=False)
    assert capsys.readouterr().err == ""
    fetch(f"{site.url}/a/w.npz", cache=tmp_path / "third")
    assert "w.npz: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source", ["hf-hub:org/name", "org/name", "org/name@main", "https://huggingface.co/org/name"]
)
def test_hub_names(site, tmp_path, source):
    publish(site, "org/name", REPOSITORY)
    folder = fetch(source, cache=tmp_path, progress=False)
    assert sorted(file.name for file in folder.rglob("*")) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_pytorch_files_only_if_there_are_no_others(site, tmp_path):
    publish(site, "org/old", {"config.json": b"{}", "pytorch_model.bin": b"weights", "x.onnx": b""})
    folder = fetch("org/old", cache=tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "pytorch_model.bin"]
    publish(site, "org/none", {"config.json": b"{}"})
    refused(lambda: fetch("org/none", cache=tmp_path), "holds no weights")


def test_a_revision(site, tmp_path):
    publish(site, "org/name", REPOSITORY, revision="v2")
    assert (fetch("org/name@v2", cache=tmp_path) / "model.safetensors").exists()
    assert ("GET", "/api/models/org/name/revision/v2", None) in site.requests
    path = "/api/models/org/name/revision/v9"
    site.headers[path] = {"X-Error-Code": "RevisionNotFound"}
    refused(lambda: fetch("org/name", revision="v9", cache=tmp_path), "no revision 'v9'")


@pytest.mark.parametrize(
    ("code", "status", "why"),
    [
        ("RepoNotFound", 401, "or is private: check the name, or set HF_TOKEN"),
        ("GatedRepo", 403, "request access at https://huggingface.co/org/name"),
        ("", 500, "cannot be reached"),
    ],
)
def test_what_the_hub_refuses(site, tmp_path, code, status, why):
    for path in ("/api/models/org/name", "/api/models/org/name/revision/main"):
        site.statuses[path] = [status] * 20
        site.headers[path] = {"X-Error-Code": code}
    refused(lambda: fetch("org/name", cache=tmp_path), why)


def test_without_a_connection_the_cache_serves(site, tmp_path, monkeypatch):
    publish(site, "org/name", REPOSITORY)
    fetch("org/name", cache=tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    site.requests.clear()
    assert (fetch("org/name", cache=tmp_path) / "model.safetensors").read_bytes() == b"weights"
    refused(lambda: fetch("org/other", cache=tmp_path), "not in the cache")
    assert not site.requests
