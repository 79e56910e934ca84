"""Matrix products by oneDNN under jaxlib 0.10, whose compiler contains it and never calls it by itself.

Later jaxlibs rewrite products into calls of oneDNN when an option asks for it (`compiler_options.py`). That rewriter
was not built into jaxlib 0.10, but what it writes is understood there too: so here products are written as such calls
when a marked function is lowered for one processor. Gradients, loops and rematerialisation need no rule of their own,
they consist of products.
"""

import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import mlir

TARGET = "__onednn$matmul"
_MARK = {"products": "onednn"}
# A call takes about 30 us: what XLA computes in less stays XLA's. In multiplications.
FEWEST = {"bfloat16": 4_000_000, "float32": 8_000_000}
# In float32, with 3072 or 5120 columns in the right operand as it lies, oneDNN takes twice XLA's time; with 2304 and
# fewer, never.
MOST_COLUMNS = 2304


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with its products marked, to be computed by oneDNN where that is faster.

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
def _register() -> None:
    """Have JAX ask `_pays` of each product that it lowers for CPUs; without the mark nothing changes."""
    product = jax.lax.dot_general_p
    usual = mlir._platform_specific_lowerings["cpu"][product].rule
    call = mlir.lower_fun(_product, multiple_results=False)

    def rule(ctx: mlir.LoweringRuleContext, lhs: Any, rhs: Any, **parameters: Any) -> Any:
        chosen = call if _pays(ctx, parameters["dimension_numbers"]) else usual
        return chosen(ctx, lhs, rhs, **parameters)

    mlir.register_lowering(product, rule, platform="cpu")


def _pays(ctx: mlir.LoweringRuleContext, dimension_numbers: Any) -> bool:
    """Return whether a product is marked, of a kind that oneDNN takes, and large enough to gain by it."""
    where, equation = ctx.module_context, ctx.jaxpr_eqn_ctx
    marks = (equation.xla_metadata if equation is not None else None) or {}
    devices = where.axis_context.num_devices if isinstance(where.axis_context, mlir.ShardingContext) else None
    if not marks.items() >= _MARK.items() or tuple(where.platforms) != ("cpu",) or devices != 1:
        return False
    avals: Any = (*ctx.avals_in, *ctx.avals_out)
    lhs, rhs, out = avals
    dtypes = [str(aval.dtype) for aval in avals]
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
    call = jax.ffi.ffi_call(
        TARGET,
        jax.ShapeDtypeStruct((*batch, rows, columns), dtype),
        custom_call_api_version=2,
        legacy_backend_config=_configuration(transpose_a, transpose_b),
    )
    outer = [*(lhs.shape[axis] for axis in lhs_outer), *(rhs.shape[axis] for axis in rhs_outer)]
    return call(a, b).reshape((*batch, *outer))


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


def _configuration(transpose_a: bool, transpose_b: bool) -> str:
    """Return XLA's own description of such a call."""
    return json.dumps(
        {
            "onednn_matmul_config": {
                "optimization_config": {
                    "bias_broadcast": False,
                    "user_scratchpad": False,
                    "weights_prepacked": False,
                },
                "transpose_a": transpose_a,
                "transpose_b": transpose_b,
            },
            "outer_dimension_partitions": [],
        }
    )
