"""Small tokenizers like those published with CLIP, SigLIP and SigLIP 2, made without training."""

import json
import struct

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.reference.cases import HERE, weights_file

LETTERS = "abcdefghijklmnopqrstuvwxyz"
END = "<|endoftext|>"


def clip_tokenizer():
    """60 tokens: letters within and at the end of words, some pairs, start and end; as CLIP's, cut into words."""
    vocab = {token: i for i, token in enumerate([*LETTERS, *(letter + "</w>" for letter in LETTERS)])}
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    for pair in merges:
        vocab["".join(pair)] = len(vocab)
    vocab["."] = len(vocab)
    vocab[".</w>"] = len(vocab)
    vocab["<|startoftext|>"], vocab[END] = 58, 59
    library = Tokenizer(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix="</w>", unk_token=END))
    library.normalizer = normalizers.Lowercase()
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    library.add_special_tokens(["<|startoftext|>", END])
    library.post_processor = processors.TemplateProcessing(
        single=f"<|startoftext|> $A {END}", special_tokens=[("<|startoftext|>", 58), (END, 59)]
    )
    return library


PIECES = [
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    ("▁", -3.0),
    ("▁a", -1.0),
    ("▁cat", -2.0),
    ("▁dog", -2.0),
] + [(letter, -5.0 - 0.1 * i) for i, letter in enumerate(LETTERS)]


def siglip_tokenizer():
    """33 tokens, chosen by probability."""
    library = Tokenizer(models.Unigram(PIECES, 2, False))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return library


def siglip2_tokenizer():
    """Letters and spaces, with Gemma's special tokens."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *LETTERS, "."]
    library = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[], unk_token="<unk>")
    )
    library.normalizer = normalizers.Replace(" ", "▁")
    library.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return library


def spiece_model(pieces=PIECES, kind=1):
    """What `sentencepiece` would write of a unigram model: a protocol buffer."""

    def field(number, content):
        if isinstance(content, int):
            return bytes([number << 3, content])
        if isinstance(content, float):
            return bytes([number << 3 | 5]) + struct.pack("<f", content)
        return bytes([number << 3 | 2, len(content)]) + content

    kinds = {"<unk>": 2, "<pad>": 3, "</s>": 3}
    parts = [
        field(1, field(1, text.encode()) + field(2, score) + field(3, kinds.get(text, 1)))
        for text, score in pieces
    ]
    return b"".join(parts) + field(2, field(3, kind))


def checkpoint(case, folder, tokenizer=None, **documents):
    """Put a reference case into a folder as transformers publishes it, with a tokenizer; return the folder."""
    folder.mkdir(exist_ok=True)
    about = json.loads((HERE / f"{case}.json").read_text())
    (folder / "model.safetensors").write_bytes(weights_file(case).read_bytes())
    (folder / "config.json").write_text(json.dumps(about["hf_config_json"]))
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder
