"""transformers' CvT: `CvtModel` and `CvtForImageClassification`.

It computes GELU where the authors' code has QuickGELU, and the epsilon of every norm is 1e-5, whatever `layer_norm_eps`
says.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.cvt.config import PREPROCESSING, CvtConfig
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.blocks import FROM_HEADS, norms
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.problem_type import problem_type, read_problem
from vit_jax.weights.layouts.transformers.config import class_names, settings
from vit_jax.weights.layouts.transformers.document import label_names
from vit_jax.weights.layouts.transformers.writing import written
from vit_jax.weights.preprocessing_formats import from_hf
from vit_jax.weights.rules import CONV, DEPTHWISE, ROW, Rule, affine, batch_norm, norm, rule

# What begins the names of the stages: in a classifier, in a bare model, and there without what all names begin with.
PREFIXES = ("cvt.encoder.", "encoder.", "")
TYPE = "cvt"
COMPUTED = ("*.num_batches_tracked",)
# What transformers assumes when a `config.json` does not say.
DEFAULTS: dict[str, Any] = dict(
    num_channels=3, patch_sizes=[7, 3, 3], patch_stride=[4, 2, 2], patch_padding=[2, 1, 1], embed_dim=[64, 192, 384],
    num_heads=[1, 3, 6], depth=[1, 2, 10], mlp_ratio=[4.0, 4.0, 4.0], qkv_bias=[True, True, True],
    cls_token=[False, False, True], qkv_projection_method=["dw_bn", "dw_bn", "dw_bn"], kernel_qkv=[3, 3, 3],
    padding_kv=[1, 1, 1], stride_kv=[2, 2, 2], padding_q=[1, 1, 1], stride_q=[1, 1, 1],
)  # fmt: skip
_ONE = ("mlp_ratio", "qkv_bias", "kernel_qkv", "stride_kv")  # the same in all stages of ours


def _fixed(stages: int) -> dict[str, list[Any]]:
    """Return what a CvT of ours cannot have otherwise."""
    last = [False] * (stages - 1) + [True]
    return {"cls_token": last, "qkv_projection_method": ["dw_bn"] * stages, "stride_q": [1] * stages}


def rules(config: CvtConfig, prefix: str) -> list[Rule]:
    """Return the rules of a model; `prefix` is one of `PREFIXES`."""
    found: list[Rule] = []
    for index in range(len(config.depths)):
        ours, theirs = f"stages/{index}", f"{prefix}stages.{index}"
        embed, layer = f"{theirs}.embedding.convolution_embeddings", f"{theirs}.layers.{{l}}"
        found += affine(f"{ours}/embed", f"{embed}.projection", CONV)
        found += norm(f"{ours}/embed/norm", f"{embed}.normalization")
        found += norms(
            f"{ours}/blocks", {"norm1": f"{layer}.layernorm_before", "norm2": f"{layer}.layernorm_after"}
        )
        for name in ("query", "key", "value"):
            own, inner = f"{ours}/blocks/attn/{name}", f"{layer}.attention.attention"
            conv = f"{inner}.convolution_projection_{name}.convolution_projection"
            found.append(rule(f"{own}/conv/kernel", f"{conv}.convolution.weight", form=DEPTHWISE))
            found += batch_norm(f"{own}/norm", f"{conv}.normalization")
            found += affine(f"{own}/dense", f"{inner}.projection_{name}", bias=config.qkv_bias)
        found += affine(f"{ours}/blocks/attn/out", f"{layer}.attention.output.dense", FROM_HEADS)
        found += affine(f"{ours}/blocks/mlp/fc1", f"{layer}.intermediate.dense")
        found += affine(f"{ours}/blocks/mlp/fc2", f"{layer}.output.dense")
    last = len(config.depths) - 1
    found.append(rule(f"stages/{last}/class_token", f"{prefix}stages.{last}.cls_token", form=ROW))
    found += norm("norm", "layernorm") if config.final_norm else []
    return found + (affine("head", "classifier") if config.num_classes else [])


def _claims(raw: RawCheckpoint) -> bool:
    return raw.documents.get("config.json", {}).get("model_type") == TYPE


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "what its config.json says")
    where = f"{raw.origin}: config.json"
    given = settings({"num_channels": DEFAULTS["num_channels"]}, raw.documents["config.json"], where)
    about = {**DEFAULTS, **given}
    depth = about["depth"]
    stages = len(depth if isinstance(depth, list) else DEFAULTS["depth"])
    for name in DEFAULTS.keys() - {"num_channels"}:
        kinds = {type(value) for value in DEFAULTS[name]}
        kinds |= {int} if float in kinds else set()
        if (
            not isinstance(about[name], list)
            or len(about[name]) != stages
            or not {*map(type, about[name])} <= kinds
        ):
            raise CheckpointError(
                f"{where} says {name} {about[name]!r:.60}; it must be {stages} values like {DEFAULTS[name][0]!r}."
            )
    for name in _ONE:
        if len(set(about[name])) > 1:
            raise CheckpointError(f"{where} says {name} {about[name]}; all stages must have the same.")
    half = [size // 2 for size in about["kernel_qkv"]]
    fixed = {**_fixed(stages), "padding_q": half, "padding_kv": half}
    for name, value in fixed.items():
        if about[name] != value:
            raise CheckpointError(f"{where} says {name} {about[name]}; this library knows {value} alone.")
    heads = about["num_heads"]
    wide = {width // max(count, 1) for width, count in zip(about["embed_dim"], heads)}
    if len(wide) > 1 or 0 in heads:
        raise CheckpointError(
            f"{where} says num_heads {heads} for widths {about['embed_dim']}; heads of all stages must be as wide."
        )
    head = raw.tensors.get("classifier.weight")
    prefix = next((p for p in PREFIXES if any(name.startswith(f"{p}stages.") for name in raw.tensors)), "")
    document = raw.documents.get("preprocessor_config.json")
    preprocessing, size = (PREPROCESSING, (224, 224)) if document is None else from_hf(document, (224, 224))
    try:
        config = CvtConfig(
            image_size=size,
            in_channels=about["num_channels"],
            num_classes=head.shape[0] if head and head.shape else 0,
            problem=read_problem(about, raw.origin),
            depths=about["depth"],
            widths=about["embed_dim"],
            head_dim=wide.pop(),
            mlp_ratio=float(about["mlp_ratio"][0]),
            qkv_bias=about["qkv_bias"][0],
            kernels=about["patch_sizes"],
            strides=about["patch_stride"],
            pads=about["patch_padding"],
            projection_kernel=about["kernel_qkv"][0],
            kv_stride=about["stride_kv"][0],
            final_norm="layernorm.weight" in raw.tensors or head is not None,
            preprocessing=preprocessing,
        )
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None
    names = class_names(raw.documents["config.json"], raw.origin) if config.num_classes else ()
    size_of_inputs = None if document is None else size
    return raw, Layout(config, rules(config, prefix), COMPUTED, size_of_inputs, names)


READING = Reading("transformers' CvT", _claims, _read)


def write(config: CvtConfig, params: Mapping[str, Any], labels: Sequence[str]) -> Written:
    """Return a CvT in transformers' words.

    Raises:
      ConfigError: transformers cannot make it: it takes the drop path rate of a stage by the number of the stage.
    """
    if any(depth <= index for index, depth in enumerate(config.depths)):
        raise ConfigError(
            f"depths is {config.depths}, and transformers makes no CvT with a stage, counted from 0, that has no more "
            "blocks than its number; choose 'orbax'."
        )
    stages = len(config.depths)
    each = {
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "kernel_qkv": config.projection_kernel,
        "padding_q": config.projection_kernel // 2,
        "padding_kv": config.projection_kernel // 2,
        "stride_kv": config.kv_stride,
    }
    about = {
        **DEFAULTS,
        **_fixed(stages),
        **{name: [value] * stages for name, value in each.items()},
        "model_type": TYPE,
        "architectures": ["CvtForImageClassification" if config.final_norm else "CvtModel"],
        "num_channels": config.in_channels,
        "embed_dim": list(config.widths),
        "num_heads": [width // config.head_dim for width in config.widths],
        "depth": list(config.depths),
        "patch_sizes": list(config.kernels),
        "patch_stride": list(config.strides),
        "patch_padding": list(config.pads),
        "drop_path_rate": [0.0] * (stages - 1) + [config.drop_path_rate],
        "dtype": "float32",
        **(label_names(config.num_classes, labels) if config.final_norm else {}),
        **problem_type(config),
    }
    return written(config, params, about, rules(config, PREFIXES[0 if config.final_norm else 1]))
