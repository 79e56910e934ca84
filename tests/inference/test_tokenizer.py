"""Texts become the tokens that the published libraries make of them, of the full length and with the end token."""

import json

import numpy as np
import pytest

from tests.inference.texts import (
    PIECES,
    checkpoint,
    clip_tokenizer,
    siglip2_tokenizer,
    siglip_tokenizer,
    spiece_model,
)
from tests.weights.checks import refused
from tests.weights.servers import publish, serve
from vit_jax.errors import ConfigError
from vit_jax.inference.text.tokenizer import MAX_SIZE, Tokenizer
from vit_jax.models.text.config import TextConfig

CLIP = TextConfig(vocab_size=60, context_length=8, pool="eos", eos_token=59)
SIGLIP = TextConfig(vocab_size=60, context_length=8, causal=False, pool="last", eos_token=0)


def load(folder, library, text, **documents):
    folder.mkdir(exist_ok=True)
    library.save(str(folder / "tokenizer.json"))
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return Tokenizer.load(folder, text)


def ids(library, *tokens):
    return [library.token_to_id(token) for token in tokens]


def test_texts_of_clip_stand_between_start_and_end_tokens(tmp_path):
    library = clip_tokenizer()
    tokens = load(tmp_path, library, CLIP)(["a Cat", "dog", ""])
    assert (tokens.shape, tokens.dtype) == ((3, 8), np.int32)
    assert tokens[0].tolist() == [58, *ids(library, "a</w>", "cat</w>"), 59, 59, 59, 59, 59]
    assert tokens[1].tolist() == [58, *ids(library, "dog</w>"), 59, 59, 59, 59, 59, 59]
    assert tokens[2].tolist() == [58] + [59] * 7


def test_what_clip_is_padded_with_is_what_its_source_says(tmp_path):
    library = clip_tokenizer()

    def pad(folder, **documents):
        return load(tmp_path / folder, library, CLIP, **documents)("a")[0, -1]

    assert pad("nothing") == 59
    assert pad("text", tokenizer_config={"pad_token": "a"}) == 0
    assert pad("token", tokenizer_config={"pad_token": {"content": "b"}}) == 1
    assert pad("open_clip", open_clip_config={}) == 0
    assert pad("both", open_clip_config={}, config={}) == 59
    library.enable_padding(pad_id=7, pad_token="h", direction="left", length=30)
    assert pad("own") == 7


@pytest.mark.parametrize("length", [8, 5])
def test_a_text_too_long_keeps_its_end_token(tmp_path, length):
    config = TextConfig(vocab_size=60, context_length=length, pool="eos", eos_token=59)
    library = clip_tokenizer()
    library.enable_truncation(3)  # its file's own limit is another's
    tokens = load(tmp_path, library, config)(["cat " * 50, "a"])
    cat = library.token_to_id("cat</w>")
    assert tokens[0].tolist() == [58, *[cat] * (length - 2), 59]
    siglip = load(tmp_path / "siglip", siglip_tokenizer(), SIGLIP)("cat " * 50)
    assert siglip[0].tolist() == [5] * 7 + [1]


def test_texts_of_siglip_have_neither_capitals_nor_punctuation(tmp_path):
    tokenizer = load(tmp_path, siglip_tokenizer(), SIGLIP, tokenizer_config={"pad_token": "</s>"})
    plain = tokenizer("a cat")
    assert plain.tolist() == [[4, 5, 1, 1, 1, 1, 1, 1]]
    for text in ("A  Cat.", "\n a 'cat'!  ", "{a} c-at", "a\tca_t"):
        np.testing.assert_array_equal(tokenizer(text), plain, err_msg=text)
    kept = load(tmp_path, siglip_tokenizer(), SIGLIP, tokenizer_config={"do_lower_case": False})
    assert kept("a Cat.").tolist() != plain.tolist()


def test_texts_of_siglip2_have_no_capitals(tmp_path):
    library = siglip2_tokenizer()
    tokenizer = load(tmp_path, library, SIGLIP, tokenizer_config={"pad_token": "<pad>"})
    assert tokenizer("A Cat.").tolist() == [[*ids(library, "a", "▁", "c", "a", "t", "."), 1, 0]]
    np.testing.assert_array_equal(load(tmp_path / "bare", library, SIGLIP)("A Cat."), tokenizer("a cat."))


def test_the_vocabulary_of_sentencepiece(tmp_path):
    (tmp_path / "spiece.model").write_bytes(spiece_model())
    texts = ["a cat", "A  dog!", "", "the dogs", "zebra é"]
    found = Tokenizer.load(tmp_path, SIGLIP)(texts)
    np.testing.assert_array_equal(found, load(tmp_path / "json", siglip_tokenizer(), SIGLIP)(texts))
    np.testing.assert_array_equal(found, Tokenizer.load(tmp_path / "spiece.model", SIGLIP)(texts))
    assert found[0].tolist() == [4, 5, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("damage", ["cut", "noise", "no unknown", "empty"])
def test_a_damaged_vocabulary(tmp_path, damage):
    whole, file = spiece_model(), tmp_path / "spiece.model"
    rest = [piece for piece in PIECES if piece[0] != "<unk>"]
    file.write_bytes(
        {"cut": whole[:-3], "noise": b"\xff" * 50, "no unknown": spiece_model(rest), "empty": b""}[damage]
    )
    refused(lambda: Tokenizer.load(tmp_path, SIGLIP), "spiece.model")
    file.write_bytes(spiece_model(kind=2))
    refused(lambda: Tokenizer.load(tmp_path, SIGLIP), "no unigram model")


def test_beside_the_weights_of_the_same_checkpoint(tmp_path):
    folder = checkpoint("clip_hf", tmp_path / "clip", clip_tokenizer())
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.config.vocab_size, tokenizer.config.context_length) == (60, 12)
    assert (
        Tokenizer.load(folder / "model.safetensors", tokenizer.config)("a").tolist()
        == tokenizer("a").tolist()
    )
    assert (
        Tokenizer.load(folder / "tokenizer.json", tokenizer.config)("a").tolist() == tokenizer("a").tolist()
    )


def test_of_a_repository_only_the_documents_are_downloaded(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    files = {
        "tokenizer.json": clip_tokenizer().to_str().encode(),
        "tokenizer_config.json": b'{"pad_token": "a"}',
        "model.safetensors": b"large",
    }
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        publish(site, "o/clip", files)
        tokenizer = Tokenizer.load("o/clip", CLIP)
        assert not any("safetensors" in path for _, path, _ in site.requests)
    assert tokenizer("a").tolist() == [[58, 26, 59, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("size", "repository"),
    [
        (49_408, "openai/clip-vit-base-patch32"),
        (32_000, "google/siglip-base-patch16-224"),
        (256_000, "google/siglip2-base-patch16-224"),
        (17, "tokenizer=FILE"),
    ],
)
def test_weights_without_a_tokenizer_say_where_it_is(tmp_path, size, repository):
    config = TextConfig(vocab_size=size, causal=False, pool="last", eos_token=0)
    (tmp_path / "w.npz").touch()
    line = refused(lambda: Tokenizer.load(tmp_path / "w.npz", config), "no tokenizer.json or spiece.model")
    assert repository in line
    assert "tokenizer=" in line


def test_a_tokenizer_of_another_model(tmp_path):
    tokenizer = load(tmp_path, siglip_tokenizer(), TextConfig(vocab_size=20, causal=False, pool="last"))
    tokenizer("a")
    refused(lambda: tokenizer("xyz"), "the model has 20")
    refused(
        lambda: load(tmp_path, siglip_tokenizer(), CLIP), "ends texts with token 1, the model with token 59"
    )
    library = clip_tokenizer()
    library.post_processor = None
    refused(lambda: load(tmp_path, library, CLIP), "no token")


def test_a_damaged_tokenizer(tmp_path):
    for content in (b"", b"{}", b'{"model": 3}', b"\xff"):
        (tmp_path / "tokenizer.json").write_bytes(content)
        refused(lambda: Tokenizer.load(tmp_path, CLIP), "is not a working tokenizer")
    document = json.loads(siglip_tokenizer().to_str())
    document["model"]["unk_id"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    tokenizer = Tokenizer.load(tmp_path, SIGLIP)
    refused(lambda: tokenizer("é"), "is not a working tokenizer")  # only now it shows
    with open(tmp_path / "tokenizer.json", "wb") as file:
        file.truncate(MAX_SIZE + 1)
    refused(lambda: Tokenizer.load(tmp_path, CLIP), "more than the 100000000 that such a file may have")


def test_only_texts(tmp_path):
    tokenizer = load(tmp_path, clip_tokenizer(), CLIP)
    with pytest.raises(ConfigError, match="a text is 3, a int; give strings"):
        tokenizer(["a", 3])
    with pytest.raises(ConfigError, match="not valid Unicode"):
        tokenizer("\ud800")
    assert tokenizer([]).shape == (0, 8)
