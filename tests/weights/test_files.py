"""A file of weights is known by its content, a folder by what libraries put in it."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.weights.checks import refused, same
from vit_jax.errors import ResourceError
from vit_jax.weights.formats.files import open_checkpoint

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float16)}


def index(folder, places, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def test_content_decides_not_the_name(tmp_path):
    save_file(ARRAYS, tmp_path / "weights.bin")
    np.savez(tmp_path / "x.npz", **ARRAYS)
    (tmp_path / "x.npz").rename(tmp_path / "weights.safetensors")
    for name, kind in (("weights.bin", "safetensors"), ("weights.safetensors", "npz")):
        raw = open_checkpoint(tmp_path / name)
        assert raw.format == kind
        assert raw.origin == str(tmp_path / name)
        same(raw.tensors, ARRAYS)


def test_a_folder_with_its_documents(tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not looked at")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "other.json").write_text("not looked at")
    raw = open_checkpoint(tmp_path)
    same(raw.tensors, ARRAYS)
    assert raw.documents == {"config.json": {"model_type": "vit"}}
    assert open_checkpoint(tmp_path / "model.safetensors").documents == raw.documents


def test_several_files_with_an_index(tmp_path):
    save_file({"a": ARRAYS["a"], "extra": ARRAYS["a"]}, tmp_path / "1.safetensors")
    save_file({"b": ARRAYS["b"]}, tmp_path / "2.safetensors")
    index(tmp_path, {"b": "2.safetensors", "a": "1.safetensors"})
    raw = open_checkpoint(tmp_path)
    assert list(raw.tensors) == ["b", "a"]
    same(raw.tensors, ARRAYS)
    index(tmp_path, {"b": "1.safetensors"})
    refused(lambda: open_checkpoint(tmp_path), "lacks 'b'")


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "..", "a\\b", "a/b", "", 3])
def test_an_index_stays_in_its_folder(tmp_path, file):
    index(tmp_path, {"a": file})
    refused(lambda: open_checkpoint(tmp_path), "not a file in its folder")


@pytest.mark.parametrize("places", [None, {}, ["a"]])
def test_an_index_without_a_map(tmp_path, places):
    index(tmp_path, places)
    refused(lambda: open_checkpoint(tmp_path), "weight_map")


def test_files_that_could_each_be_meant(tmp_path):
    for name in ("one.npz", "two.npz"):
        np.savez(tmp_path / name, **ARRAYS)
    refused(lambda: open_checkpoint(tmp_path), "'one.npz', 'two.npz'")
    same(open_checkpoint(tmp_path / "one.npz").tensors, ARRAYS)


def test_nothing_there(tmp_path):
    refused(lambda: open_checkpoint(tmp_path), "holds no weights")
    refused(lambda: open_checkpoint(tmp_path / "missing.npz"), "does not exist")
    save_file({}, tmp_path / "x")
    refused(lambda: open_checkpoint(tmp_path / "x"), "no tensors")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    save_file(ARRAYS, tmp_path / "x")

    def denied(*_, **__):
        raise PermissionError

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(ResourceError, match="may not be read"):
        open_checkpoint(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a safetensors"),
        (b"\x93NUMPY\x01\x00", "single numpy array"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"PK\x03\x04", "valid archive"),
        (pickle.dumps({"a": np.zeros(2)}), "not read"),
        (pickle.dumps({"a": 1}, 2), "never executed"),
    ],
)
def test_what_is_no_weights(tmp_path, content, why):
    (tmp_path / "x.npz").write_bytes(content)
    refused(lambda: open_checkpoint(tmp_path / "x.npz"), why)


def test_a_pickled_dictionary_in_npy_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array({"a": 1}, object))
    refused(lambda: open_checkpoint(tmp_path / "x.npy"), "pickled dictionary")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": 1, "a": 2}'])
def test_damaged_documents_are_named(tmp_path, text):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    refused(lambda: open_checkpoint(tmp_path), "config.json")


def test_reading_needs_no_jax():
    code = "import sys, vit_jax.weights.formats.files; sys.exit(any(m in sys.modules for m in "
    code += "('jax', 'torch', 'huggingface_hub', 'fsspec', 'aiohttp')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
