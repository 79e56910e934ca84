"""The plan of a run: whether it fits the hardware, how long a step takes, what the run costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vit_jax.errors import DataError
from vit_jax.planning import network
from vit_jax.planning.chips import GIB, Hardware
from vit_jax.planning.floors import floors
from vit_jax.planning.hlo import Schedule
from vit_jax.planning.program import TooLarge, compile_program
from vit_jax.planning.stand_in import stand_ins
from vit_jax.training.config.defaults import Config
from vit_jax.training.devices.hardware import peak_flops
from vit_jax.training.experiment import Experiment, build
from vit_jax.training.guard.memory import largest_tensors, state_bytes


@dataclass(frozen=True)
class Traffic:
    """All collectives of one kind in a step, on one chip.

    Attributes:
      kind: such as `all-gather`.
      count: executions.
      bytes: of their results.
      seconds: that they take by `planning.network`; None for GPUs.
      hidden: of these, seconds during which other work is scheduled beside them; None for GPUs.
      overlapped: executions beside which other work is scheduled.
    """

    kind: str
    count: float
    bytes: float
    seconds: float | None
    hidden: float | None
    overlapped: float


@dataclass(frozen=True)
class Plan:
    """What is known of a run before it is started; all but FLOPs, bytes of the state and counts are estimates.

    For GPUs there are no estimates of time, only bounds, `floors`: everything else about time is None or empty.

    Attributes:
      model: name of the model.
      hardware, chips: as asked for; `gpu` says whether they are GPUs.
      mesh: sizes of the axes.
      batch_size, accumulation, remat: of the configuration.
      memory: bytes on one chip: `params`, `opt_state`, `ema`, `buffers`, `temporary`, `peak`, `capacity`.
      fits: whether the peak is below the capacity.
      largest: where it does not fit, the largest arrays, `(bytes on one chip, what)`.
      flops_per_step: forward and backward of the whole batch; what is computed again does not count.
      traffic: the collectives.
      compute_seconds: of a step, by the compiler's cycles.
      exposed_seconds: of a step, waiting for collectives.
      mfu: FLOPs of a step by what all chips could do at their peak in its time.
      counted_seconds: of `compute_seconds`, those of our own kernels, counted by hand (`planning.kernels`).
      kernels: calls of other hand-written kernels, whose time nobody says and which is not in the estimate; of cuDNN's
        attention for GPUs.
      hottest: where most of the computing goes, `(operation, seconds)`.
      images_per_second, total_steps, hours, chip_hours: of the run, training steps alone.
      compile_seconds: on this machine.
      assumptions: what had to be assumed, in words.
      floors: for GPUs, seconds that a step takes at least, see `planning.floors`.
    """

    model: str
    hardware: str
    gpu: bool
    chips: int
    mesh: dict[str, int]
    batch_size: int
    accumulation: int
    remat: str
    memory: dict[str, int]
    fits: bool
    largest: tuple[tuple[int, str], ...]
    flops_per_step: float
    traffic: tuple[Traffic, ...] = ()
    compute_seconds: float | None = None
    exposed_seconds: float | None = None
    mfu: float | None = None
    counted_seconds: float = 0.0
    kernels: float = 0.0
    hottest: tuple[tuple[str, float], ...] = ()
    images_per_second: float | None = None
    total_steps: int = 0
    hours: float | None = None
    chip_hours: float | None = None
    compile_seconds: float | None = None
    assumptions: tuple[str, ...] = ()
    floors: dict[str, float] = field(default_factory=dict)

    @property
    def step_seconds(self) -> float | None:
        """Seconds of a step."""
        if self.compute_seconds is None or self.exposed_seconds is None:
            return None
        return self.compute_seconds + self.exposed_seconds

    @property
    def least_seconds(self) -> float | None:
        """Seconds that a step takes at least; for GPUs alone."""
        return max(self.floors.values()) if self.floors else None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self) | {"step_seconds": self.step_seconds, "least_seconds": self.least_seconds}


def planned_experiment(
    config: Config, devices: Sequence[Any], *, records: int | None = None, classes: int | None = None
) -> tuple[Experiment, tuple[str, ...]]:
    """Return the experiment of a configuration on given devices, and what had to be assumed.

    Args:
      config: a checked configuration.
      devices: of the run; need not be here.
      records, classes: of the training split, for when the data is not here.

    Raises:
      VitError: configuration and hardware do not go together.
    """
    if not (records or classes):
        try:
            return build(config, devices=devices), ()
        except DataError as error:
            reason = f"the data is not on this machine ({str(error).partition(';')[0]})"
    else:
        reason = "the data's size was given"
    sources = stand_ins(config.data, records, classes or config.model.get("num_classes"))
    size = f"{len(sources[0]):,} records and {sources[0].num_classes:,} classes are assumed"
    return build(config, sources, devices=devices), (f"{reason}: {size}",)


def make_plan(experiment: Experiment, hardware: Hardware, assumptions: Sequence[str] = ()) -> Plan:
    """Return the plan of an experiment that was built for the devices of a hardware.

    Args:
      experiment: see `planned_experiment`.
      hardware: where it is to run.
      assumptions: to be told with the plan.
    """
    config, chip = experiment.config, hardware.chip
    parts = state_bytes(experiment)
    if chip.gpu:
        taken = f"jax reserves {chip.memory / chip.card:.0%} of a card's {chip.card / GIB:.2f} GiB"
        assumptions = (
            *assumptions,
            f"{taken} (XLA_CLIENT_MEM_FRACTION) and leaves the rest to CUDA and NCCL",
        )
    common: dict[str, Any] = dict(
        model=config.model.get("checkpoint") or config.model.name,
        hardware=hardware.name,
        gpu=chip.gpu,
        chips=experiment.devices.mesh.size,
        mesh=dict(experiment.devices.mesh.shape),
        batch_size=experiment.data.batch_size,
        accumulation=experiment.optimisation.accumulation,
        remat=getattr(experiment.task.model, "remat", "none"),
        flops_per_step=float(experiment.task.objective.train_flops * experiment.data.batch_size),
        total_steps=experiment.optimisation.total_steps,
        assumptions=tuple(assumptions),
    )
    if sum(parts.values()) > chip.memory:
        # Known at once; compiling would only say the same later.
        largest = tuple((size, f"{path} {shape}") for path, shape, size in largest_tensors(experiment))
        memory = parts | {"temporary": 0, "peak": sum(parts.values()), "capacity": chip.memory}
        return Plan(**common, memory=memory, fits=False, largest=largest)
    program = compile_program(experiment)
    if isinstance(program, TooLarge):
        peak = program.needed or chip.memory
        memory = parts | {"temporary": peak - sum(parts.values()), "peak": peak, "capacity": chip.memory}
        return Plan(**common, memory=memory, fits=False, largest=program.largest)
    # The GPU compiler does not refuse what does not fit.
    fits = program.peak <= chip.memory
    common |= dict(
        memory=parts | {"temporary": program.temporary, "peak": program.peak, "capacity": chip.memory},
        fits=fits,
        largest=() if fits else program.schedule.largest,
        kernels=program.schedule.kernels,
        compile_seconds=program.seconds,
    )
    complete = _bounded if chip.gpu else _timed
    return complete(program.schedule, experiment, hardware, common)


def _timed(schedule: Schedule, experiment: Experiment, hardware: Hardware, common: dict[str, Any]) -> Plan:
    """Return the plan for TPUs, whose compiler estimates times."""
    chip = hardware.chip
    traffic = _traffic(schedule, hardware, list(experiment.devices.mesh.devices.flat))
    compute = schedule.cycles / chip.clock
    exposed = sum((kind.seconds or 0.0) - (kind.hidden or 0.0) for kind in traffic)
    peak = peak_flops(experiment.devices.first)
    assert peak is not None
    rate = experiment.data.batch_size / (compute + exposed)
    hours = experiment.optimisation.total_steps * (compute + exposed) / 3600
    hottest = sorted(schedule.by_source.items(), key=lambda item: -item[1])[:5]
    return Plan(
        **common,
        traffic=traffic,
        compute_seconds=compute,
        exposed_seconds=exposed,
        mfu=common["flops_per_step"] / (compute + exposed) / (peak * experiment.devices.mesh.size),
        counted_seconds=schedule.counted / chip.clock,
        hottest=tuple((source or "not said", cycles / chip.clock) for source, cycles in hottest),
        images_per_second=rate,
        hours=hours,
        chip_hours=hours * experiment.devices.mesh.size,
    )


def _bounded(schedule: Schedule, experiment: Experiment, hardware: Hardware, common: dict[str, Any]) -> Plan:
    """Return the plan for GPUs, whose compiler estimates no times."""
    devices = list(experiment.devices.mesh.devices.flat)
    totals: dict[str, list[float]] = {}
    for one in schedule.collectives:
        row = totals.setdefault(one.kind, [0.0] * 3)
        more = (one.count, one.count * one.bytes, one.count if one.beside else 0.0)
        totals[one.kind] = [a + b for a, b in zip(row, more)]
    traffic = tuple(
        Traffic(kind, count, size, None, None, beside) for kind, (count, size, beside) in totals.items()
    )
    bounds = floors(schedule, hardware, devices, common["flops_per_step"], common["memory"])
    return Plan(**common, traffic=traffic, floors=bounds)


def _traffic(schedule: Schedule, hardware: Hardware, devices: Sequence[Any]) -> tuple[Traffic, ...]:
    totals: dict[str, list[float]] = {}
    for one in schedule.collectives:
        taken = network.seconds(one, hardware, devices)
        hidden = min(taken, one.covered / hardware.chip.clock)
        row = totals.setdefault(one.kind, [0.0] * 5)
        beside = one.count if hidden > 0 else 0.0
        more = (one.count, one.count * one.bytes, one.count * taken, one.count * hidden, beside)
        totals[one.kind] = [a + b for a, b in zip(row, more)]
    return tuple(Traffic(kind, *row) for kind, row in totals.items())
