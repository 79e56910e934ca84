"""Text encoders, and pairs of an image and a text encoder, as families. Needs no jax."""

from vit_jax.models.arithmetic import blocks_macs, blocks_parameters, dense_parameters
from vit_jax.models.family import Family, Names
from vit_jax.models.layers.encoder_config import RUNNING
from vit_jax.models.text import names
from vit_jax.models.text.config import ImageTextConfig, TextConfig
from vit_jax.models.vit.family import FAMILY as VIT


def _text_macs(config: TextConfig, visible: float | None = 1.0) -> int:
    return blocks_macs(config, config.context_length) + config.width * config.num_classes


def _text_parameters(config: TextConfig) -> int:
    count = (config.vocab_size + config.context_length) * config.width
    head = dense_parameters(config.width, config.num_classes, config.head_bias) if config.num_classes else 0
    return count + blocks_parameters(config) + head


def _idle(config: TextConfig) -> frozenset[str]:
    activation = {"activation"} if config.mlp == "swiglu" else set()
    return frozenset(activation if config.pool == "eos" else activation | {"eos_token"})


TEXT = Family(
    name="text",
    config=TextConfig,
    module="vit_jax.models.text.model:TextTransformer",
    macs=_text_macs,
    parameters=_text_parameters,
    parts={"text": ""},
    widest=lambda config: config.mlp_dim,
    per_image=lambda config: False,
    running=RUNNING,
    idle=_idle,
)


def _pair_macs(config: ImageTextConfig, visible: float | None = 1.0) -> int:
    return VIT.macs(config.image, visible) + _text_macs(config.text)


def _pair_parameters(config: ImageTextConfig) -> int:
    return VIT.parameters(config.image) + _text_parameters(config.text) + 1 + config.logit_bias


PAIR = Family(
    name="image_text",
    config=ImageTextConfig,
    module="vit_jax.models.text.model:ImageTextModel",
    macs=_pair_macs,
    parameters=_pair_parameters,
    parts={"image": "image", "text": "text"},
    names=Names(names.resolve, others=names.published),
    widest=lambda config: max(config.image.mlp_dim, config.text.mlp_dim),
    per_image=lambda config: False,
)
