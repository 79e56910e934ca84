"""From a configuration to an optax transformation: update rule, decay, layer-wise rates, frozen parameters.

What happens to the gradients, in this order:

1. frozen parameters have no gradient, no state, no part in the norm, an update of exactly zero;
2. the global norm is clipped (Pascanu et al. 2012, arXiv 1211.5063);
3. the update rule;
4. decoupled weight decay (Loshchilov and Hutter 2017, arXiv 1711.05101) adds `weight_decay * w`;
5. everything is multiplied by the parameter's factor (layer-wise decay, multipliers) and the learning rate.

So decay is multiplied by the learning rate, as in torch and timm. big_vision multiplies its `wd` by the
schedule alone: `wd` there is `weight_decay = wd / lr` here (`wd=1e-4, lr=1e-3` is 0.1).

Update rules:

- `adamw`: Kingma and Ba 2014, arXiv 1412.6980.
- `sgd`: momentum as in torch, `v = momentum v + g`, optionally Nesterov's. As in torch, and unlike the
  others, decay is added to the gradient before the momentum.
- `lamb`: You et al. 2019, arXiv 1904.00962. As in timm and apex, which DeiT-III used, only parameters that
  decay get the trust ratio. Their epsilon is 1e-6.
- `lion`: Chen et al. 2023, arXiv 2302.06675. Its paper uses `b2=0.99`.
- `adafactor`: the variant of Zhai et al. 2021, arXiv 2106.04560, section 3.4, that big_vision trains with:
  factored second moments (Shazeer and Stern 2018, arXiv 1804.04235) whose decay `1 - t ** -0.8` stays below
  `b2`, first moments with decay `momentum` (0 for none, and no memory), and neither steps relative to the
  parameters' scale nor clipping of their own. `epsilon` is not used.

Trust ratios and factored moments belong to one tensor of one block, also where blocks are stored stacked.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.lora import ROOT
from vit_jax.training.sharding import matching

NAMES = ("adamw", "sgd", "lamb", "lion", "adafactor")

# Dimensions below this are not worth factoring (big_vision's choice; optax's is 128).
_FACTORED_FROM = 32


class Treatment(NamedTuple):
    """How one parameter is trained.

    Attributes:
      frozen: it stays as it is.
      decay: factor of `optimizer.weight_decay`; 0 for none.
      rate: factor of the learning rate, float32, one number or `(l, 1, ...)` for stacked blocks.
    """

    frozen: bool
    decay: float
    rate: np.ndarray


def make_optimizer(
    section: Mapping[str, Any], schedule: optax.Schedule, params_abstract: Any
) -> optax.GradientTransformation:
    """Return the transformation of gradients into updates; see the module's text for what it does.

    Args:
      section: the `optimizer` section of a configuration.
      schedule: learning rate as a function of the step; `section["learning_rate"]` is not used here.
      params_abstract: nested dict of float32 arrays or shapes.

    Raises:
      ConfigError: a pattern that matches no parameter, nothing left to train, or layer decay without blocks.
    """
    table = treatments(section, params_abstract)

    def add_decay(path: str, update: jax.Array, param: jax.Array) -> jax.Array:
        strength = section["weight_decay"] * table[path].decay
        return update + strength * param if strength else update

    clip = optax.clip_by_global_norm(section["clip_norm"]) if section["clip_norm"] else optax.identity()
    trained = optax.chain(
        clip,
        *_update_rule(section, table, _by_path(add_decay)),
        _by_path(lambda path, update, _: update * table[path].rate),
        optax.scale_by_learning_rate(schedule),
    )
    labels = trees.map_named(lambda path, _: "frozen" if table[path].frozen else "trained", params_abstract)
    return _promoting(optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels))


def treatments(section: Mapping[str, Any], params_abstract: Any) -> dict[str, Treatment]:
    """Return how each parameter is trained, by path.

    Raises:
      ConfigError: as `make_optimizer`.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in trees.flatten(params_abstract).items()}
    adapted = any(path.startswith(f"{ROOT}/") for path in shapes)
    default = rf"^({ROOT}/|head)" if adapted else "."
    trained = _matching_any(section["trained"] or (default,), shapes, "optimizer.trained")
    frozen = _matching_any(section["frozen"], shapes, "optimizer.frozen") | (shapes.keys() - trained)
    if len(frozen) == len(shapes):
        raise ConfigError(
            f"optimizer.frozen is {section['frozen']!r}, which leaves no parameter to train of optimizer.trained "
            f"{section['trained']!r}."
        )
    decayed = _matching_any(section["decay"], shapes, "optimizer.decay")
    decays = _first_match(
        section["weight_decay_multipliers"],
        decayed,
        "optimizer.weight_decay_multipliers, for parameters that decay,",
    )
    rates = _first_match(
        section["learning_rate_multipliers"], shapes.keys(), "optimizer.learning_rate_multipliers"
    )
    if not all(rates.values()):
        raise ConfigError(
            "optimizer.learning_rate_multipliers has a factor of 0; name it in optimizer.frozen."
        )
    layers = _layer_rates(shapes, section["layer_decay"])
    return {
        path: Treatment(
            frozen=path in frozen,
            decay=decays.get(path, 0.0),
            rate=np.asarray(layers[path] * rates[path], np.float32),
        )
        for path in shapes
    }


def summary(section: Mapping[str, Any], params_abstract: Any) -> str:
    """Return one line for the log: how many parameters decay, do not, are frozen; the range of factors."""
    table = treatments(section, params_abstract)
    counts = dict.fromkeys(("decayed", "not decayed", "frozen"), 0)
    for path, leaf in trees.flatten(params_abstract).items():
        decays = table[path].decay * section["weight_decay"] > 0
        kind = "frozen" if table[path].frozen else "decayed" if decays else "not decayed"
        counts[kind] += int(leaf.size)
    text = f"{section['name']}: " + ", ".join(
        f"{count:,} parameters {kind}" for kind, count in counts.items()
    )
    rates = [treatment.rate for treatment in table.values() if not treatment.frozen]
    low, high = min(rate.min() for rate in rates), max(rate.max() for rate in rates)
    return text if low == high == 1 else f"{text}; learning rate times {low:.4g} to {high:.4g}"


def _update_rule(
    section: Mapping[str, Any], table: Mapping[str, Treatment], decay: optax.GradientTransformation
) -> list[optax.GradientTransformation]:
    """Return the rule with decay in its place."""
    b1, b2, epsilon = section["b1"], section["b2"], section["epsilon"]
    momentum, dtype = section["momentum"], section["first_moment_dtype"]
    match section["name"]:
        case "adamw":
            return [optax.scale_by_adam(b1, b2, epsilon, mu_dtype=dtype), decay]
        case "sgd":
            return [
                decay,
                optax.trace(momentum, section["nesterov"], dtype) if momentum else optax.identity(),
            ]
        case "lamb":
            ratio = optax.masked(
                optax.scale_by_trust_ratio(),
                lambda tree: trees.map_named(lambda path, _: table[path].decay > 0, tree),
            )
            return [optax.scale_by_adam(b1, b2, epsilon, mu_dtype=dtype), decay, _per_block(ratio, table)]
        case "lion":
            return [optax.scale_by_lion(b1, b2, mu_dtype=dtype), decay]
        case "adafactor":
            moments = optax.scale_by_factored_rms(
                min_dim_size_to_factor=_FACTORED_FROM,
                decay_rate_fn=lambda step, power: jnp.minimum(b2, 1.0 - 1.0 / jnp.power(step + 1.0, power)),
            )
            average = optax.ema(momentum, debias=False, accumulator_dtype=dtype)
            return [_per_block(moments, table), average if momentum else optax.identity(), decay]
        case name:
            raise ConfigError(f"optimizer.name is {name!r}; it must be one of {', '.join(NAMES)}.")


def _by_path(function: Callable[[str, jax.Array, jax.Array], jax.Array]) -> optax.GradientTransformation:
    """Return the stateless transformation `function(path, update, param)` of each leaf."""
    return optax.stateless(lambda updates, params: trees.map_named(function, updates, params))


def _promoting(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the same transformation, free to mix int32 counts and bfloat16 moments with float32."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return transform.update(updates, state, params)

    return optax.GradientTransformation(transform.init, update)


def _per_block(
    transform: optax.GradientTransformation, table: Mapping[str, Treatment]
) -> optax.GradientTransformation:
    """Return a transformation that treats each block of stacked parameters as tensors of their own."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.vmap(transform.update)(updates, state, params)

    stacked = optax.GradientTransformation(jax.vmap(transform.init), update)

    def group(path: str) -> str:
        return _stack(path).replace("/", "_") or "single"

    groups = {group(path) for path, treatment in table.items() if not treatment.frozen}
    return optax.partition(
        {name: transform if name == "single" else stacked for name in groups},
        lambda tree: trees.map_named(lambda path, _: group(path), tree),
    )


def _stack(path: str) -> str:
    """Return the path of the stacked blocks that a parameter belongs to, or an empty string."""
    words = path.split("/")
    return "/".join(words[: words.index("blocks") + 1]) if "blocks" in words else ""


def _layer_rates(shapes: Mapping[str, tuple[int, ...]], decay: float) -> dict[str, np.ndarray]:
    """Return layer-wise factors of the learning rate (Bao et al. 2021, arXiv 2106.08254, as in MAE and timm).

    `l` blocks make `l + 2` layers: 0 is everything before the blocks, block `i` is `i + 1`, everything else
    is `l + 1`. The factor is `decay ** (l + 1 - layer)`. Beside a decoder, the blocks are the encoder's.
    """
    if decay == 1:
        return {path: np.ones(()) for path in shapes}
    stacks = {_stack(path): shape[0] for path, shape in shapes.items() if _stack(path)}
    trunk = "encoder/blocks" if "encoder/blocks" in stacks else "blocks"
    if trunk not in stacks:
        raise ConfigError(
            f"optimizer.layer_decay is {decay}, but the model has no stack of blocks; set it to 1."
        )
    prefix, depth = trunk.removesuffix("blocks"), stacks[trunk]
    before = tuple(
        prefix + name
        for name in ("stem/", "patch_embed/", "class_token", "register_tokens", "pos_embed", "norm_pre/")
    )

    def rate(path: str, shape: tuple[int, ...]) -> np.ndarray:
        layer = np.asarray(0 if path.startswith(before) else depth + 1)
        if _stack(path) == trunk:
            layer = np.arange(1, depth + 1).reshape(-1, *[1] * (len(shape) - 1))
        return np.power(decay, depth + 1 - layer)

    return {path: rate(path, shape) for path, shape in shapes.items()}


def _matching_any(patterns: tuple[str, ...], paths: Mapping[str, Any], key: str) -> set[str]:
    return set().union(*(matching(pattern, paths.keys(), key) for pattern in patterns))


def _first_match(factors: tuple[tuple[str, float], ...], paths: Any, key: str) -> dict[str, float]:
    """Return the factor of each path: that of the first pattern found in it, or 1."""
    found = dict.fromkeys(paths, 1.0)
    for pattern, factor in reversed(factors):
        found.update(dict.fromkeys(matching(pattern, paths, key), factor))
    return found
