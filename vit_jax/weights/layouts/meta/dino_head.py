"""Names of DINO's projection head, in lightly's files and in those of its authors."""

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.heads.dino.config import DinoHeadConfig
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, check_model
from vit_jax.weights.rules import ROW, Form, Rule, affine, rule

# Of checkpoints that hold a backbone too: DINO's head, and the two of DINOv2.
BESIDE_BACKBONE = ("projection_head.*", "dino_head.*", "ibot_head.*")
_COLUMN = Form(ROW.read, lambda array: array[:, None])


def prefix_of(raw: RawCheckpoint) -> str | None:
    """Return what the names of the dense layers begin with, or None if the file is not such a head alone."""
    for prefix in ("layers", "mlp"):
        if {f"{prefix}.0.weight", "last_layer.weight_v"} <= raw.tensors.keys():
            return prefix
    return None


def describe(raw: RawCheckpoint, prefix: str) -> DinoHeadConfig:
    """Return the head whose arrays a file holds.

    Raises:
      CheckpointError: they are not those of such a head.
    """
    try:
        hidden, inputs = raw.tensors[f"{prefix}.0.weight"].shape
        outputs, bottleneck = raw.tensors["last_layer.weight_v"].shape
        return DinoHeadConfig(inputs, hidden, bottleneck, outputs)
    except (ValueError, ConfigError):
        raise CheckpointError(
            f"{raw.origin} holds no projection head: {prefix}.0.weight and last_layer.weight_v must be matrices."
        ) from None


def rules(prefix: str) -> list[Rule]:
    """Return the rules of a head; places without parameters (GELU) count in its numbering."""
    return [
        *(item for i in range(3) for item in affine(f"layers/{i}", f"{prefix}.{2 * i}")),
        *affine("prototypes", "last_layer", bias=False, names="weight_v bias"),
        rule("prototypes/scale", "last_layer.weight_g", form=_COLUMN),
    ]


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a projection head", "dino_head")
    prefix = prefix_of(raw)
    assert prefix is not None
    return raw, Layout(describe(raw, prefix), rules(prefix))


READING = Reading("DINO's projection head", lambda raw: prefix_of(raw) is not None, _read)
