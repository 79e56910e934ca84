"""A compiled, scheduled program as text: what is executed how often, in how many cycles, with which collectives.

XLA's TPU backend writes its own estimate, `estimated_cycles`, on every fusion (the GPU backend writes none), and the
instructions of a scheduled module stand in the order in which they run. What has to be put together here:

- a loop's body runs as often as its condition says (a constant that the counter is compared with);
- a collective may run beside other work: as a pair `...-start`, `...-done`, or as a chain of fusions that call the
  same collective, from `AsyncCollectiveStart` to `AsyncCollectiveDone`, told apart by channel;
- a reduce-scatter is, on TPUs, a fusion named `all-reduce-scatter` around an all-reduce.

Nothing of this is documented; the tests hold it to programs whose collectives are known.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vit_jax.models.draws import SCOPE
from vit_jax.planning.groups import group
from vit_jax.planning.kernels import kernel_cycles

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s64": 8, "u64": 8, "f64": 8}
_NAME = re.compile(r"\s*(ROOT )?%([\w.\-]+) = ")
_OPCODE = re.compile(r"(?:^|[\s)}\]])([a-z][a-z0-9\-]*)\(")
_SHAPE = re.compile(r"\b(pred|bf16|[fsu]\d+\w*|c64)\[([\d,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|async_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
# Operations of branches of which a step draws one, themselves in no other branch; the choice itself loses its name.
_DRAWN = re.compile(rf".*/{SCOPE}/cond/(?!.*/cond/)")
# What takes no time on a device: names, parts and views of arrays, and both ends of what runs beside.
_FREE = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|opt-barrier|.*-(start|done)"
)
# Kernels that are called by name: hand-written ones of TPUs, cuDNN's attention of GPUs.
_KERNELS = re.compile(r'custom_call_target="(tpu_custom_call|__cudnn\$fmha\w*)"')


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: without `%`.
      opcode: such as `fusion`.
      text: the whole line.
      shape: the text of its result's shape.
    """

    name: str
    opcode: str
    text: str
    shape: str

    @property
    def cycles(self) -> int:
        """The compiler's estimate, 0 where it gives none."""
        match = _CYCLES.search(self.text)
        return int(match[1]) if match else 0

    @property
    def source(self) -> str:
        """The operation of the traced program that it came from, or an empty string."""
        match = re.search(r'op_name="([^"]*)"', self.text)
        return match[1] if match else ""

    def attribute(self, name: str) -> str | None:
        """Return the name of the computation given as `name=%...`."""
        match = re.search(rf"\b{name}=%([\w.\-]+)", self.text)
        return match[1] if match else None


@dataclass(frozen=True)
class Collective:
    """One collective of the program, as often as it is executed in a step.

    Attributes:
      kind: one of `KINDS`.
      count: executions in a step.
      bytes: of its result on one device, each time; for a reduce-scatter, of its operand.
      group: positions in the mesh of the devices that take part together, one such group.
      covered: cycles of other work that is scheduled beside it, each time; 0 if it runs alone.
      asynchronous: whether other work may run beside it at all.
      source: the operation of the traced program that it came from.
      beside: instructions of other work that are scheduled beside it, each time.
    """

    kind: str
    count: float
    bytes: int
    group: tuple[int, ...]
    covered: int
    asynchronous: bool
    source: str = ""
    beside: int = 0


@dataclass
class Schedule:
    """What one execution of a program consists of.

    Attributes:
      cycles: of all work that is not communication.
      collectives: the collectives.
      by_source: cycles by the operation that they came from.
      counted: of the cycles, those of our own kernels, for which the compiler gives none (`planning.kernels`).
      kernels: calls of other hand-written kernels and of libraries', whose cycles nobody knows.
      largest: the largest arrays that are made, `(bytes, what)`; not all of them exist at the same time.
    """

    cycles: float = 0.0
    collectives: list[Collective] = field(default_factory=list)
    by_source: dict[str, float] = field(default_factory=dict)
    counted: float = 0.0
    kernels: float = 0.0
    largest: tuple[tuple[int, str], ...] = ()


def read_schedule(text: str, devices: int) -> Schedule:
    """Return the schedule of a compiled program.

    Args:
      text: `compiled.as_text()`.
      devices: how many take part.

    Raises:
      ValueError: the text is not a scheduled module.
    """
    if "is_scheduled=true" not in text[:2000]:
        raise ValueError("the program is not scheduled")
    computations, entry = parse(text)
    schedule = Schedule()
    reader = _Reader(computations, devices, schedule)
    reader.run(entry, 1.0)
    schedule.largest = tuple(sorted(reader.made.items(), key=lambda item: -item[0])[:3])
    return schedule


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Return the computations of a module by name, and the name of the one that is executed."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", []
    for line in text.splitlines():
        if line.endswith("{") and (line.startswith("%") or line.startswith("ENTRY")):
            name = line.removeprefix("ENTRY ").split(" ", 1)[0].lstrip("%")
            entry = name if line.startswith("ENTRY") else entry
            current = computations.setdefault(name, [])
        elif match := _NAME.match(line):
            rest = line[match.end() :]
            opcode = _OPCODE.search(rest)
            if opcode:
                current.append(Instruction(match[2], opcode[1], line, rest[: opcode.start(1)].strip()))
        elif (current and line.startswith("}, ")) or line.startswith('"'):
            # Attributes of hand-written kernels go on over several lines.
            current[-1] = replace(current[-1], text=current[-1].text + line)
    return computations, entry


def shape_bytes(shape: str) -> list[int]:
    """Return the bytes of each array in a shape or tuple of shapes."""
    sizes = []
    for kind, dims in _SHAPE.findall(shape):
        width = _BYTES.get(kind) or (1 if kind.startswith("f8") else 8 if kind == "c64" else 4)
        sizes.append(width * math.prod(int(dim) for dim in dims.split(",") if dim))
    return sizes


class _Reader:
    """Walks through the program in the order of execution."""

    def __init__(self, computations: dict[str, list[Instruction]], devices: int, schedule: Schedule):
        self._computations, self._devices, self._schedule = computations, devices, schedule
        self.made: dict[int, str] = {}  # arrays by their bytes: of equal ones, as in every block, the first

    def run(self, name: str, times: float) -> float:
        """Add what a computation does when it is executed `times` times; return its cycles, once."""
        cycles = 0.0
        work = 0  # instructions so far
        # Of collectives under way: what they are, and cycles and work of this computation when they began.
        pending: dict[str, tuple[Collective, float, int]] = {}
        for instruction in self._computations[name]:
            if not _FREE.fullmatch(instruction.opcode):
                work += 1
                self._note(instruction)
            if instruction.opcode == "while":
                trips = self._trips(instruction)
                cycles += trips * self.run(instruction.attribute("body") or "", times * trips)
                continue
            if instruction.opcode == "conditional":
                cycles += self._conditional(instruction, times)
                continue
            if instruction.opcode == "call":
                cycles += self.run(instruction.attribute("to_apply") or "", times)
                continue
            found = self._collective(instruction)
            if found is not None:
                kind, key, stage, collective = found
                if stage == "start":
                    pending[key] = (replace(collective, count=times), cycles, work)
                elif stage == "done":
                    if key in pending:
                        begun, since, before = pending.pop(key)
                        ended = replace(begun, covered=int(cycles - since), beside=work - before)
                        self._schedule.collectives.append(ended)
                elif stage == "alone":
                    self._schedule.collectives.append(replace(collective, count=times))
                if stage == "alone" or kind == "pair":
                    continue
            taken = float(instruction.cycles)
            if instruction.opcode == "custom-call" and _KERNELS.search(instruction.text):
                counted = kernel_cycles(instruction.text)
                if counted is None:
                    self._schedule.kernels += times
                else:
                    taken = counted
                    self._schedule.counted += times * counted
            if taken:
                cycles += taken
                self._schedule.cycles += times * taken
                source = instruction.source
                self._schedule.by_source[source] = self._schedule.by_source.get(source, 0.0) + times * taken
        for begun, since, before in pending.values():  # whose end is outside, as in pipelined loops
            ended = replace(begun, covered=int(cycles - since), beside=work - before)
            self._schedule.collectives.append(ended)
        return cycles

    def _conditional(self, instruction: Instruction, times: float) -> float:
        """As `run`: of what a step draws, each branch is as probable; else the longest counts, others are not run."""
        match = _BRANCHES.search(instruction.text)
        names = re.findall(r"[\w.\-]+", match[1]) if match else []
        if not any(_DRAWN.match(inner.source) for name in names for inner in self._computations[name]):
            alone = {name: _Reader(self._computations, self._devices, Schedule()) for name in names}
            names = sorted(names, key=lambda name: alone[name].run(name, 1.0))[-1:]
        return sum(self.run(name, times / len(names)) / len(names) for name in names)

    def _note(self, instruction: Instruction) -> None:
        sizes = shape_bytes(instruction.shape)
        if instruction.opcode != "while" and sizes:
            shape = _SHAPE.findall(instruction.shape)[sizes.index(max(sizes))]
            source = instruction.source.replace("\\'", "'")
            self.made.setdefault(max(sizes), f"{shape[0]}[{shape[1]}] {source}".strip())

    def _trips(self, loop: Instruction) -> int:
        condition = self._computations[loop.attribute("condition") or ""]
        if match := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.text):
            return int(match[1])
        constants = {
            i.name: int(m[1])
            for i in condition
            if (m := re.search(r"= [su]\d+\[\]\S* constant\((\d+)\)", i.text))
        }
        for instruction in reversed(condition):
            if "direction=LT" in instruction.text or instruction.opcode == "fusion":
                used = [name for name in constants if f"%{name}" in instruction.text.partition("(")[2]]
                if used:
                    return constants[used[0]]
        raise ValueError(f"the trip count of {loop.name} cannot be read")

    def _collective(self, instruction: Instruction) -> tuple[str, str, str, Collective] | None:
        """Return how an instruction communicates: form, key of the transfer, stage (start, middle, done, alone)."""
        opcode = instruction.opcode
        for kind in KINDS:
            if opcode == kind:
                return "plain", instruction.name, "alone", self._describe(kind, instruction, False)
            if opcode == f"{kind}-start":
                return "pair", instruction.name, "start", self._describe(kind, instruction, True)
            if opcode == f"{kind}-done":
                operand = instruction.text.partition(f"{kind}-done(")[2].partition(")")[0]
                return "pair", operand.split("%")[-1], "done", _NOTHING
        if opcode != "fusion":
            return None
        inside = self._inside(instruction)
        calls = [i for i in inside if i.opcode in KINDS]
        if not calls:
            return None
        call = calls[0]
        scattered = "all-reduce-scatter" in instruction.text or "all-reduce-scatter" in instruction.name
        kind = "reduce-scatter" if scattered and call.opcode == "all-reduce" else call.opcode
        described = self._describe(kind, call, True)
        channel = re.search(r"channel_id=(\d+)", call.text)
        key = f"channel {channel[1]}" if channel else call.name
        targets = " ".join(re.findall(r'custom_call_target="(\w+)"', " ".join(i.text for i in inside)))
        if "AsyncCollectiveStart" in targets:
            return "chain", key, "start", described
        if "AsyncCollectiveDone" in targets:
            return "chain", key, "done", described
        if any("AsyncCollective" in i.text for i in inside) or _passes_on(inside, call):
            return "chain", key, "middle", described
        return "fused", key, "alone", replace(described, asynchronous=False)

    def _inside(self, fusion: Instruction) -> list[Instruction]:
        """Return the instructions of a fusion, nested ones included."""
        found, names = [], [fusion.attribute("calls") or ""]
        while names:
            for instruction in self._computations.get(names.pop(), ()):
                found.append(instruction)
                if instruction.opcode in ("fusion", "call", "async-start"):
                    names += _CALLED.findall(instruction.text)
        return found

    def _describe(self, kind: str, instruction: Instruction, asynchronous: bool) -> Collective:
        sizes = shape_bytes(instruction.shape) or [0]
        operands = _operands(instruction)
        results, members = sizes, group(instruction.text, self._devices)
        if instruction.opcode.endswith("-start") and len(sizes) >= 2 * operands:
            # Operands and results together, and what the transfer needs beside them.
            results = sizes[:operands] if kind == "reduce-scatter" else sizes[operands : 2 * operands]
        elif instruction.opcode == "reduce-scatter":
            results = [size * len(members) for size in sizes]
        return Collective(kind, 1.0, sum(results), members, 0, asynchronous, instruction.source)


_NOTHING = Collective("", 0.0, 0, (), 0, True)


def _passes_on(inside: Sequence[Instruction], call: Instruction) -> bool:
    """Return whether a fusion only hands on a collective under way: its result leaves beside the operands."""
    root = next((i for i in inside if i.text.lstrip().startswith("ROOT")), None)
    return (
        root is not None
        and root.opcode == "tuple"
        and f"%{call.name}" in root.text
        and "u32[]{:S(2)}" in root.shape
    )


def _operands(instruction: Instruction) -> int:
    """Return the number of arrays that an instruction is given; at least 1."""
    return max(1, instruction.text.partition(f" {instruction.opcode}(")[2].partition(")")[0].count("%"))
