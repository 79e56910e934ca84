"""A plan in words and numbers for people, readable in a minute."""

from collections.abc import Sequence

from vit_jax.models.draws import SCOPE
from vit_jax.planning.chips import GIB
from vit_jax.planning.plan import Plan

_PARTS = {
    "params": "parameters",
    "opt_state": "optimizer state",
    "ema": "moving average",
    "buffers": "buffers",
    "temporary": "activations, gradients",
}

_HONESTY = {
    "TPU": "An estimate from the compiler's own schedule and published link rates; nothing was run.",
    "GPU": "Memory and collectives as compiled; nothing was run. Time is only bounded by published rates: "
    "the GPU compiler gives no estimate.",
}


def describe(plan: Plan, advice: Sequence[str] = ()) -> str:
    """Return the plan as text.

    Args:
      plan: what to tell.
      advice: what would make it fit, one line each.
    """
    mesh = " ".join(f"{axis}={size}" for axis, size in plan.mesh.items())
    lines = [
        f"{plan.model} on {plan.hardware}: {plan.chips} {'GPUs' if plan.gpu else 'chips'}, mesh {mesh}, "
        f"batch {plan.batch_size}, accumulation {plan.accumulation}, remat {plan.remat}",
        _HONESTY["GPU" if plan.gpu else "TPU"],
        *(f"Assumed: {assumption}." for assumption in plan.assumptions),
        "",
        *_memory(plan),
    ]
    if not plan.fits:
        lines += [f"  largest: {size / GIB:.2f} GiB {what}" for size, what in plan.largest]
        return "\n".join([*lines, *(f"  what would help: {line}" for line in advice)])
    lines += ["", *(_bounds(plan) if plan.gpu else _times(plan))]
    return "\n".join(lines)


def _times(plan: Plan) -> list[str]:
    assert plan.compute_seconds is not None
    assert plan.exposed_seconds is not None
    assert plan.step_seconds is not None
    lines = [f"{'collectives in a step':<24}{'times':>8}{'GB':>9}{'ms':>9}{'overlapped':>12}"]
    for kind in plan.traffic:
        taken, hidden = kind.seconds or 0.0, kind.hidden or 0.0
        share = hidden / taken if taken else 0.0
        lines.append(
            f"  {kind.kind:<22}{kind.count:>8.0f}{kind.bytes / 1e9:>9.3f}{taken * 1e3:>9.2f}{share:>12.0%}"
        )
    if not plan.traffic:
        lines.append("  none")
    lines += [
        "",
        f"step    {plan.step_seconds * 1e3:.1f} ms: {plan.compute_seconds * 1e3:.1f} computing, "
        f"{plan.exposed_seconds * 1e3:.1f} waiting for collectives",
        f"        {plan.flops_per_step / 1e12:,.2f} TFLOP (analytic), MFU {plan.mfu:.1%}, "
        f"{plan.images_per_second:,.0f} images/s",
        f"run     {plan.total_steps:,} steps: {plan.hours:,.1f} h, {plan.chip_hours:,.0f} chip-hours, excluding "
        "evaluation, checkpoints and waiting for data",
        "most of the computing: "
        + "; ".join(f"{short_source(name)} {seconds * 1e3:.1f} ms" for name, seconds in plan.hottest),
    ]
    if plan.kernels:
        lines.append(
            f"{plan.kernels:.0f} calls of hand-written kernels are not included in the time: the compiler does "
            "not give theirs."
        )
    if plan.counted_seconds:
        lines.append(
            f"Of the computing, {plan.counted_seconds * 1e3:.1f} ms are our own kernels, counted by hand: the "
            "compiler does not give theirs."
        )
    return lines


def _bounds(plan: Plan) -> list[str]:
    assert plan.least_seconds is not None
    lines = [f"{'collectives in a step':<24}{'times':>8}{'GB':>9}{'work beside':>13}"]
    for kind in plan.traffic:
        lines.append(
            f"  {kind.kind:<22}{kind.count:>8.0f}{kind.bytes / 1e9:>9.3f}{kind.overlapped:>6.0f} of {kind.count:.0f}"
        )
    if not plan.traffic:
        lines.append("  none")
    bounds = ", ".join(f"{part} {seconds * 1e3:.2f}" for part, seconds in plan.floors.items())
    lines += [
        "",
        f"step    at least {plan.least_seconds * 1e3:.2f} ms, the largest of: {bounds}",
        f"        {plan.flops_per_step / 1e12:,.2f} TFLOP (analytic); at most "
        f"{plan.batch_size / plan.least_seconds:,.0f} images/s",
        f"run     {plan.total_steps:,} steps; how many hours is not known",
    ]
    if plan.kernels:
        lines.append(f"{plan.kernels:.0f} calls of cuDNN's attention, whose scratch memory is not counted.")
    return lines


def _memory(plan: Plan) -> list[str]:
    memory = plan.memory
    lines = [f"{'memory of a ' + ('GPU' if plan.gpu else 'chip'):<28}  GiB"]
    lines += [
        f"  {words:<24}{memory[part] / GIB:>7.3f}"
        for part, words in _PARTS.items()
        if memory[part] or part in ("params", "opt_state")
    ]
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    lines.append(f"  {'peak':<24}{memory['peak'] / GIB:>7.3f} of {memory['capacity'] / GIB:.2f}: {verdict}")
    return lines


def short_source(source: str) -> str:
    """Return an operation of the traced program, as `Plan.hottest` names it, without what says the same of all."""
    words = [word for word in source.split("/") if word not in ("jit(step)", "eval_jaxpr", SCOPE)]
    direction = "backward " if any(word.startswith("transpose") for word in words) else ""
    rest = [word for word in words if not word.startswith(("transpose(", "jvp("))]
    return direction + ("/".join(rest[-2:]) or source)
