"""Products and convolutions by oneDNN under jaxlib 0.10, whose compiler contains it and never calls it by itself.

Later jaxlibs rewrite both into calls of oneDNN when an option asks for it (`compiler_options.py`). That rewriter was
not built into jaxlib 0.10, but what it writes is understood there too: so here they are written as such calls when a
marked function is lowered for one processor. Gradients, loops and rematerialisation need no rule of their own, they
consist of products and convolutions.

Whoever wrote the calls, such a program must not be written into JAX's cache of compiled programs.
"""

import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend
from jax._src import compilation_cache
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import mlir

TARGETS = {"matmul": "__onednn$matmul", "conv": "__onednn$convolution"}
_MARK = {"products": "onednn"}
# A call takes about 30 us: what XLA computes in less stays XLA's. In multiplications.
FEWEST = {"bfloat16": 4_000_000, "float32": 8_000_000}
# Smaller convolutions gain half a millisecond at most, and a program that calls oneDNN cannot be kept for the next run.
FEWEST_CONVOLVED = 50_000_000
# In float32, with 3072 or 5120 columns in the right operand as it lies, oneDNN takes twice XLA's time; with 2304 and
# fewer, never.
MOST_COLUMNS = 2304


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with its products and convolutions marked, to be computed by oneDNN where that is faster.

    Args:
      function: to be given to `jax.jit`; lowered for several devices, or not for CPUs, it stays what it is.
    """
    _register()

    @functools.wraps(function)
    def with_marks(*args: Any, **kwargs: Any) -> Any:
        with set_xla_metadata(**_MARK):
            return function(*args, **kwargs)

    return with_marks


@functools.cache
def keep_out_of_cache() -> None:
    """Have JAX leave programs that call oneDNN out of its cache, for the rest of the process.

    To write such a call down, jaxlib (seen in 0.10.2 and 0.12.0) takes it for one of another kind and reads its name
    where there is none: that ends in a false lack of memory, or in a segmentation fault.
    """
    write = compilation_cache.put_executable_and_time

    def put_executable_and_time(key: str, name: str, executable: Any, *rest: Any) -> None:
        if not any("__onednn$" in module.to_string() for module in executable.hlo_modules()):
            write(key, name, executable, *rest)

    compilation_cache.put_executable_and_time = put_executable_and_time


@functools.cache
def _register() -> None:
    """Have JAX ask of each product and convolution that it lowers for CPUs; without the mark nothing changes."""
    _replace(jax.lax.dot_general_p, _product_pays, _product)
    _replace(jax.lax.conv_general_dilated_p, _convolution_pays, _convolution)


def _replace(
    primitive: jax.extend.core.Primitive, pays: Callable[..., bool], function: Callable[..., jax.Array]
) -> None:
    """Lower a primitive for CPUs as `function` where it `pays`."""
    usual = mlir._platform_specific_lowerings["cpu"][primitive].rule
    call = mlir.lower_fun(function, multiple_results=False)

    def rule(ctx: mlir.LoweringRuleContext, lhs: Any, rhs: Any, **parameters: Any) -> Any:
        avals: Any = (*ctx.avals_in, *ctx.avals_out)
        chosen = call if _is_marked(ctx) and pays(*avals, **parameters) else usual
        return chosen(ctx, lhs, rhs, **parameters)

    mlir.register_lowering(primitive, rule, platform="cpu")


def _is_marked(ctx: mlir.LoweringRuleContext) -> bool:
    """Return whether something is marked and for one processor."""
    where, equation = ctx.module_context, ctx.jaxpr_eqn_ctx
    marks = (equation.xla_metadata if equation is not None else None) or {}
    devices = where.axis_context.num_devices if isinstance(where.axis_context, mlir.ShardingContext) else None
    return marks.items() >= _MARK.items() and tuple(where.platforms) == ("cpu",) and devices == 1


def _product_pays(lhs: Any, rhs: Any, out: Any, *, dimension_numbers: Any, **_: Any) -> bool:
    """Return whether a product is of a kind that oneDNN takes, and large enough to gain by it."""
    dtypes = [str(aval.dtype) for aval in (lhs, rhs, out)]
    if dtypes not in (["float32"] * 3, ["bfloat16"] * 3, ["bfloat16", "bfloat16", "float32"]):
        return False
    (inner, rhs_inner), _ = dimension_numbers
    if dtypes[0] == "float32" and rhs.ndim - 1 not in rhs_inner and rhs.shape[-1] > MOST_COLUMNS:
        return False
    return bool(inner) and math.prod(out.shape) * _size(lhs.shape, inner) >= FEWEST[dtypes[0]]


def _product(
    lhs: jax.Array, rhs: jax.Array, *, dimension_numbers: Any, preferred_element_type: Any, **_: Any
) -> jax.Array:
    """Compute `lax.dot_general` by one call: operands as matrices, or batches of them, either transposed as it lies."""
    (lhs_inner, rhs_inner), (lhs_batch, rhs_batch) = dimension_numbers
    lhs_outer = _rest(lhs.ndim, lhs_inner, lhs_batch)
    rhs_outer = _rest(rhs.ndim, rhs_inner, rhs_batch)
    a, transpose_a = _matrices(lhs, lhs_batch, lhs_outer, lhs_inner)
    b, transpose_b = _matrices(rhs, rhs_batch, rhs_inner, rhs_outer)
    batch = [lhs.shape[axis] for axis in lhs_batch]
    rows, columns = _size(lhs.shape, lhs_outer), _size(rhs.shape, rhs_outer)
    dtype = lhs.dtype if preferred_element_type is None else preferred_element_type
    settings = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    product = _call("matmul", settings, (*batch, rows, columns), dtype)(a, b)
    outer = [*(lhs.shape[axis] for axis in lhs_outer), *(rhs.shape[axis] for axis in rhs_outer)]
    return product.reshape((*batch, *outer))


def _matrices(
    x: jax.Array, batch: Sequence[int], first: Sequence[int], second: Sequence[int]
) -> tuple[jax.Array, bool]:
    """Return `x` as `(*batch, first, second)`, or as `(*batch, second, first)` and True if it lies like that."""
    lies_transposed = [*batch, *second, *first] == list(range(x.ndim)) and bool(first) and bool(second)
    if lies_transposed:
        first, second = second, first
    shape = (*(x.shape[axis] for axis in batch), _size(x.shape, first), _size(x.shape, second))
    return jax.lax.transpose(x, (*batch, *first, *second)).reshape(shape), lies_transposed


def _rest(ndim: int, *taken: Sequence[int]) -> list[int]:
    return [axis for axis in range(ndim) if not any(axis in axes for axes in taken)]


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)


def _convolution_pays(
    lhs: Any,
    rhs: Any,
    out: Any,
    *,
    dimension_numbers: Any,
    padding: Any,
    lhs_dilation: Any,
    feature_group_count: int,
    batch_group_count: int,
    **_: Any,
) -> bool:
    """Return whether a convolution is of a kind that oneDNN takes, and large enough to gain by it."""
    dtypes = {str(aval.dtype) for aval in (lhs, rhs, out)}
    if dtypes not in ({"float32"}, {"bfloat16"}) or lhs.ndim != 4:
        return False
    if {*lhs_dilation, feature_group_count, batch_group_count} != {1}:
        return False
    if min(min(pair) for pair in padding) < 0:
        return False
    # A kernel is multiplied with each position of the output, of which it makes one channel at a time.
    work = math.prod(out.shape) * rhs.size // rhs.shape[dimension_numbers.rhs_spec[0]]
    return work >= FEWEST_CONVOLVED


def _convolution(
    lhs: jax.Array,
    rhs: jax.Array,
    *,
    dimension_numbers: Any,
    window_strides: Any,
    padding: Any,
    rhs_dilation: Any,
    **_: Any,
) -> jax.Array:
    """Compute `lax.conv_general_dilated` by one call, of images `(b, h, w, i)` with a kernel `(p, q, i, o)`."""
    lhs_batch, lhs_features, *lhs_places = dimension_numbers.lhs_spec
    outputs, inputs, *sizes = dimension_numbers.rhs_spec
    images = jax.lax.transpose(lhs, (lhs_batch, *lhs_places, lhs_features))
    kernel = jax.lax.transpose(rhs, (*sizes, inputs, outputs))
    places = [
        (size + before + after - (length - 1) * dilation - 1) // stride + 1
        for size, length, (before, after), dilation, stride in zip(
            images.shape[1:3], kernel.shape, padding, rhs_dilation, window_strides
        )
    ]
    data = {"data": {"batch_dim": "0", "feature_dim": "3", "spatial_dims": ["1", "2"]}}
    settings = {
        "dims": "4",
        "feature_groups": "1",
        "input": data,
        "output": data,
        "kernel": {
            "filter": {
                "input_feature_dim": "2",
                "output_feature_dim": "3",
                "spatial_dims": ["0", "1"],
                "shape": [str(size) for size in kernel.shape],
            }
        },
        "window": {
            "pad_left": [str(before) for before, _ in padding],
            "pad_right": [str(after) for _, after in padding],
            "strides": [str(stride) for stride in window_strides],
            "window_dilations": [str(dilation) for dilation in rhs_dilation],
        },
    }
    shape = (images.shape[0], *places, kernel.shape[3])
    out = _call("conv", settings, shape, lhs.dtype)(images, kernel)
    order = [0] * 4  # of the axes of `out` in the result
    for axis, position in zip((0, 3, 1, 2), dimension_numbers.out_spec):
        order[position] = axis
    return jax.lax.transpose(out, order)


def _call(kind: str, settings: dict[str, Any], shape: Sequence[int], dtype: Any) -> Callable[..., jax.Array]:
    """Return a call of oneDNN, described as XLA itself does it.

    Args:
      kind: `matmul` or `conv`.
      settings: what differs from call to call.
      shape, dtype: of the result.
    """
    optimization = {"bias_broadcast": False, "user_scratchpad": False, "weights_prepacked": False}
    configuration = {
        f"onednn_{kind}_config": {"optimization_config": optimization, **settings},
        "outer_dimension_partitions": [],
    }
    return jax.ffi.ffi_call(
        TARGETS[kind],
        jax.ShapeDtypeStruct(tuple(shape), dtype),
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(configuration),
    )
