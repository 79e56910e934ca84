"""Names of the encoder of DALL-E's discrete autoencoder, `encoder.pkl` (https://github.com/openai/DALL-E)."""

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.registry import ModelConfig
from vit_jax.models.tokenizers.dalle_config import GROUPS, DalleEncoderConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, check_model
from vit_jax.weights.rules import CONV, Rule, affine

_FIRST, _LAST = "blocks.input.w", "blocks.output.conv.w"


def rules(config: DalleEncoderConfig) -> list[Rule]:
    """Return the rules of an encoder; layers without parameters (ReLU, pooling) have names of their own."""

    def conv(ours: str, theirs: str) -> list[Rule]:
        return affine(ours, f"blocks.{theirs}", CONV, names="w b")

    found = conv("input", "input") + conv("output", "output.conv")
    for number, (inputs, outputs) in enumerate(config.widths):
        group, block = divmod(number, config.blocks)
        theirs = f"group_{group + 1}.block_{block + 1}"
        for layer in range(1, 5):
            found += conv(f"units/{number}/conv{layer}", f"{theirs}.res_path.conv_{layer}")
        if inputs != outputs:
            found += conv(f"units/{number}/skip", f"{theirs}.id_path")
    return found


def describe(raw: RawCheckpoint) -> DalleEncoderConfig:
    """Return the encoder whose arrays a file holds.

    Raises:
      CheckpointError: they are not those of such an encoder.
    """
    blocks = sum(name.startswith("blocks.group_1.") and name.endswith(".conv_1.w") for name in raw.tensors)
    try:
        hidden, channels, _, _ = raw.tensors[_FIRST].shape
        vocabulary, last, _, _ = raw.tensors[_LAST].shape
        if last != hidden * 2 ** (GROUPS - 1):
            raise ValueError
        return DalleEncoderConfig(hidden, blocks, channels, vocabulary)
    except (ValueError, ConfigError):
        raise CheckpointError(
            f"{raw.origin} holds no encoder of DALL-E: {_FIRST} and {_LAST} do not fit."
        ) from None


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    config = describe(raw)
    check_model(raw, model, "the encoder of DALL-E")
    return raw, Layout(config, rules(config))


READING = Reading("OpenAI's DALL-E", lambda raw: {_FIRST, _LAST} <= raw.tensors.keys(), _read)
