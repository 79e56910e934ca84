"""From a configuration to an optax transformation: update rule, decay, layer-wise rates, frozen parameters.

What happens to the gradients, in this order:

1. what is frozen has no gradient, no state, no part in the norm, an update of exactly zero (blocks frozen above a
   trained one keep their state, of zeros);
2. the global norm is clipped (Pascanu et al. 2012, arXiv 1211.5063), or that of each tensor of each block
   (`clip_per_tensor`, as DINO does, Caron et al. 2021, arXiv 2104.14294);
3. the update rule;
4. decoupled weight decay (Loshchilov and Hutter 2017, arXiv 1711.05101) adds `weight_decay * w`; it may go to
   `weight_decay_end` over the run, evenly or along half a cosine;
5. everything is multiplied by the parameter's factor (layer-wise decay, multipliers) and the learning rate, which for
   parameters that start later (`delay`) is one of their own. Until then their moments are kept, as in torch with a rate
   of 0.

So decay is multiplied by the learning rate, as in torch and timm. big_vision multiplies its `wd` by the
schedule alone: `wd` there is `weight_decay = wd / lr` here (`wd=1e-4, lr=1e-3` is 0.1).

Update rules:

- `adamw`: Kingma and Ba 2014, arXiv 1412.6980.
- `sgd`: momentum as in torch, `v = momentum v + g`, optionally Nesterov's. As in torch, and unlike the
  others, decay is added to the gradient before the momentum.
- `lamb`: You et al. 2019, arXiv 1904.00962. As in timm and apex, which DeiT-III used, only parameters that
  decay get the trust ratio. Their epsilon is 1e-6.
- `lars`: You et al. 2017, arXiv 1708.03888, as in MoCo v3's and MAE's linear probing: where parameters decay, decay is
  added to the gradient, and both are scaled to a thousandth of the parameter's norm; then comes the momentum.
- `lion`: Chen et al. 2023, arXiv 2302.06675. Its paper uses `b2=0.99`.
- `adafactor`: the variant of Zhai et al. 2021, arXiv 2106.04560, section 3.4, that big_vision trains with:
  factored second moments (Shazeer and Stern 2018, arXiv 1804.04235) whose decay `1 - t ** -0.8` stays below
  `b2`, first moments with decay `momentum` (0 for none, and no memory), and neither steps relative to the
  parameters' scale nor clipping of their own. `epsilon` is not used.
- `muon`: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), with the size of updates of Liu et al. 2025,
  arXiv 2502.16982, for the kernels that `matrices` matches; `adamw` for the rest, and for depthwise convolutions. Rate
  and decay are AdamW's. The paper has `momentum=0.95, nesterov=True`.

Orthogonal updates, trust ratios and factored moments belong to one tensor of one block, also where blocks are
stored stacked.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.objectives.schedules import SCHEDULES
from vit_jax.training.devices.sharding import matching
from vit_jax.training.muon import is_depthwise, scale_by_muon
from vit_jax.training.parts.treatments import Treatment, frozen_blocks, stack_of, treatments

NAMES = ("adamw", "sgd", "lamb", "lars", "lion", "adafactor", "muon")

# Dimensions below this are not worth factoring (big_vision's choice; optax's is 128).
_FACTORED_FROM = 32


def make_optimizer(
    section: Mapping[str, Any],
    schedule: optax.Schedule,
    params_abstract: Any,
    network: Any = None,
    total_steps: int = 0,
    late: Sequence[tuple[str, optax.Schedule]] = (),
) -> optax.GradientTransformation:
    """Return the transformation of gradients into updates; see the module's text for what it does.

    Args:
      section: the `optimizer` section of a configuration.
      schedule: learning rate as a function of the step; `section["learning_rate"]` is not used here.
      params_abstract: nested dict of float32 arrays or shapes.
      network: configuration of the model that they belong to; it knows their layers.
      total_steps: of the run, for a weight decay that changes over it.
      late: patterns of parameters that start later, with their learning rates; see `schedule.late_schedules`.

    Raises:
      ConfigError: see `treatments`; or a pattern of `late` that matches no parameter.
    """
    table = treatments(section, params_abstract, network)
    trained = optax.chain(
        _clipping(section),
        *_update_rule(section, table, _decay(section, table, total_steps)),
        _by_path(lambda path, update, _: update * table[path].trained_rate),
        _learning_rate(schedule, late, table),
    )
    labels = trees.map_named(lambda path, _: "frozen" if table[path].whole else "trained", params_abstract)
    whole = optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)
    return _promoting(_without_first_rows(whole, table))


def summary(section: Mapping[str, Any], params_abstract: Any, network: Any = None) -> str:
    """Return one line for the log: how many parameters decay, do not, are frozen; which blocks are; the factors."""
    table = treatments(section, params_abstract, network)
    counts = dict.fromkeys(("decayed", "not decayed", "frozen"), 0)
    for path, leaf in trees.flatten(params_abstract).items():
        frozen = round(int(leaf.size) * float(np.mean(table[path].frozen)))
        decays = table[path].decay * max(section["weight_decay"], section["weight_decay_end"]) > 0
        counts["frozen"] += frozen
        counts["decayed" if decays else "not decayed"] += int(leaf.size) - frozen
    text = f"{section['name']}: " + ", ".join(
        f"{count:,} parameters {kind}" for kind, count in counts.items()
    )
    blocks = sorted(frozen_blocks(table))
    if blocks and not all(treatment.whole for path, treatment in table.items() if stack_of(path)):
        text += f"; frozen blocks {_ranges(blocks)}"
    rates = np.concatenate([t.rate[t.rate > 0].ravel() for t in table.values() if not t.whole])
    if not (rates == 1).all():
        text += f"; learning rate multiplied by {rates.min():.4g} to {rates.max():.4g}"
    if section["layer_decay"] != 1:
        text += f", layers numbered as in {section['layer_decay_rule']}"
    return text


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers as text, `0 to 5, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _clipping(section: Mapping[str, Any]) -> optax.GradientTransformation:
    bound = section["clip_norm"]
    if not bound:
        return optax.identity()
    if not section["clip_per_tensor"]:
        return optax.clip_by_global_norm(bound)

    def clip(path: str, gradient: jax.Array, _: Any) -> jax.Array:
        axes = tuple(range(1 if stack_of(path) else 0, gradient.ndim))
        norm = jnp.sqrt(jnp.square(gradient).sum(axes, keepdims=True))
        return gradient * jnp.minimum(1.0, bound / (norm + 1e-6))  # torch's epsilon

    return _by_path(clip)


def _decay(
    section: Mapping[str, Any], table: Mapping[str, Treatment], total_steps: int
) -> optax.GradientTransformation:
    first, last, name = (
        section[key] for key in ("weight_decay", "weight_decay_end", "weight_decay_schedule")
    )

    def add(strength: Any) -> Callable[[str, jax.Array, jax.Array], jax.Array]:
        def to(path: str, update: jax.Array, param: jax.Array) -> jax.Array:
            factor = table[path].decay
            return update + strength * factor * param if factor else update

        return to

    if name == "constant":
        return _by_path(add(first)) if first else optax.identity()
    return _counted(
        lambda count, updates, params: trees.map_named(
            add(SCHEDULES[name](count, first, last, total_steps)), updates, params
        )
    )


def _learning_rate(
    schedule: optax.Schedule, late: Sequence[tuple[str, optax.Schedule]], table: Mapping[str, Treatment]
) -> optax.GradientTransformation:
    if not late:
        return optax.scale_by_learning_rate(schedule)
    own = {
        path: rate
        for pattern, rate in reversed(late)
        for path in matching(pattern, table.keys(), "optimizer.delay")
    }

    def scale(count: jax.Array, updates: Any, _: Any) -> Any:
        rates: dict[optax.Schedule, Any] = {rate: rate(count) for rate in (schedule, *own.values())}
        return trees.map_named(lambda path, x: -rates[own.get(path, schedule)] * x, updates)

    return _counted(scale)


def _counted(function: Callable[[jax.Array, Any, Any], Any]) -> optax.GradientTransformation:
    """Return the transformation `function(step, updates, params)`; its state is that of a schedule, see `step`."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count = optax.safe_increment(state.count)
        return function(state.count, updates, params), optax.ScaleByScheduleState(count)

    return optax.GradientTransformation(
        lambda params: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), update
    )


def _update_rule(
    section: Mapping[str, Any], table: Mapping[str, Treatment], decay: optax.GradientTransformation
) -> list[optax.GradientTransformation]:
    """Return the rule with decay in its place."""
    b1, b2, epsilon = section["b1"], section["b2"], section["epsilon"]
    momentum, dtype = section["momentum"], section["first_moment_dtype"]
    average = optax.trace(momentum, section["nesterov"], dtype) if momentum else optax.identity()
    match section["name"]:
        case "adamw":
            return [optax.scale_by_adam(b1, b2, epsilon, mu_dtype=dtype), decay]
        case "sgd":
            return [decay, average]
        case "lamb":
            return [optax.scale_by_adam(b1, b2, epsilon, mu_dtype=dtype), decay, _trust_ratio(table)]
        case "lars":
            return [decay, _trust_ratio(table, 1e-3), average]
        case "lion":
            return [optax.scale_by_lion(b1, b2, mu_dtype=dtype), decay]
        case "adafactor":
            moments = optax.scale_by_factored_rms(
                min_dim_size_to_factor=_FACTORED_FROM,
                decay_rate_fn=lambda step, power: jnp.minimum(b2, 1.0 - 1.0 / jnp.power(step + 1.0, power)),
            )
            average = optax.ema(momentum, debias=False, accumulator_dtype=dtype)
            return [_per_block(moments, table), average if momentum else optax.identity(), decay]
        case "muon":
            matrices = _matrices(section, table)

            def rule_of(path: str, leaf: Any) -> str:
                return "matrices" if path in matrices and not is_depthwise(path, leaf) else "rest"

            muon = optax.partition(
                {
                    "matrices": scale_by_muon(momentum, section["nesterov"], dtype),
                    "rest": optax.scale_by_adam(b1, b2, epsilon, mu_dtype=dtype),
                },
                lambda tree: trees.map_named(rule_of, tree),
            )
            return [muon, decay]
        case name:
            raise ConfigError(f"optimizer.name is {name!r}; it must be one of {', '.join(NAMES)}.")


def _trust_ratio(table: Mapping[str, Treatment], coefficient: float = 1.0) -> optax.GradientTransformation:
    """Return the scaling of what decays to its parameter's norm, each block's on its own."""
    ratio = optax.masked(
        optax.scale_by_trust_ratio(trust_coefficient=coefficient),
        lambda tree: trees.map_named(lambda path, _: table[path].decay > 0, tree),
    )
    return _per_block(ratio, table)


def _matrices(section: Mapping[str, Any], table: Mapping[str, Treatment]) -> set[str]:
    """Return the paths of the parameters that muon makes orthogonal."""
    patterns = section["matrices"]
    if not patterns:
        raise ConfigError(
            "optimizer.matrices is empty, so muon has nothing to make orthogonal; name some kernels, for example "
            "('blocks/.*kernel$',), or set optimizer.name='adamw'."
        )
    found: set[str] = set().union(*(matching(p, table.keys(), "optimizer.matrices") for p in patterns))
    if all(table[path].whole for path in found):
        raise ConfigError(
            f"optimizer.matrices is {tuple(patterns)}, and all that it matches is frozen, so muon would be AdamW; set "
            "optimizer.name='adamw', or name kernels that are trained."
        )
    return found


def _by_path(function: Callable[[str, jax.Array, jax.Array], jax.Array]) -> optax.GradientTransformation:
    """Return the stateless transformation `function(path, update, param)` of each leaf."""
    return optax.stateless(lambda updates, params: trees.map_named(function, updates, params))


def _without_first_rows(
    transform: optax.GradientTransformation, table: Mapping[str, Treatment]
) -> optax.GradientTransformation:
    """Return a transformation that has state and updates of stacked blocks from the first trained one on."""
    if not any(treatment.first for treatment in table.values()):
        return transform

    def cut(tree: Any) -> Any:
        return trees.map_named(
            lambda path, leaf: leaf[table[path].first :] if table[path].first else leaf, tree
        )

    def padded(path: str, update: jax.Array) -> jax.Array:
        above = [(table[path].first, 0), *[(0, 0)] * (update.ndim - 1)]
        return jnp.pad(update, above) if table[path].first else update

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        changed, state = transform.update(cut(updates), state, None if params is None else cut(params))
        return trees.map_named(padded, changed), state

    return optax.GradientTransformation(lambda params: transform.init(cut(params)), update)


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
        return stack_of(path).replace("/", "_") or "single"

    groups = {group(path) for path, treatment in table.items() if not treatment.whole}
    return optax.partition(
        {name: transform if name == "single" else stacked for name in groups},
        lambda tree: trees.map_named(lambda path, _: group(path), tree),
    )
