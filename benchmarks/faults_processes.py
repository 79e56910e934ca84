"""Kill, stop and stall runs of the real command many times, and count what is lost.

    python benchmarks/faults_processes.py --folder /tmp/faults [--only kill1 term2 ...] [--count 100]

Toy runs of 120 steps, saved every 10, on the embedded digits. Every fault is one line of `results.jsonl` in the folder;
started again, the script goes on where it ended. `--report` prints the table and exits with 1 if a promise was broken.

- `kill1`, `kill2`: SIGKILL at a random moment, up to five times until the run has come through. It must go on after the
  newest step that was committed, and end bit for bit (arrays of the last checkpoint, metrics.jsonl) as the undisturbed
  run. Of two processes either is killed, and the other must end by itself.
- `term2`: SIGTERM at a random moment after the first step to one of two processes; both must save the same step and
  exit with 75.
- `dead2`: SIGKILL to one of two processes with the default limit of 10 s; how long the other takes to end and name it.
- `stop2`, `stall1`, `stall2`: SIGSTOP, or a loader that sleeps, with a limit of 20 s; how long until the end.
- `supervise`: SIGKILL of the training process below `--supervise`; how long until the next line of metrics.
"""

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.faults.driver import CONFIG, Running, committed, final, orphans, resumed, running
from tests.faults.stall import STALL

COUNTS = {
    "kill1": 100,
    "kill2": 50,
    "term2": 50,
    "dead2": 10,
    "stop2": 5,
    "stall1": 3,
    "stall2": 5,
    "supervise": 10,
}
TRY_AGAIN = 75
KILLS = 5  # of one run, which is then left alone


class Bench:
    """Results so far, and what all parts need.

    Args:
      folder: for runs, results and compiled programs.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.cache = folder, folder / "compiled"
        self.results = folder / "results.jsonl"
        self.config, self.slow_notice, self.stall = (folder / f"{n}.py" for n in ("toy", "default", "stall"))
        self.config.write_text(CONFIG)
        self.slow_notice.write_text(CONFIG.replace("peer_limit=5.0", "peer_limit=10.0"))
        self.stall.write_text(CONFIG + STALL)
        self.started = time.strftime("%H%M%S")

    def read(self) -> list[dict]:
        """Return everything noted so far."""
        return list(map(json.loads, self.results.read_text().splitlines())) if self.results.exists() else []

    def note(self, part: str, **values: object) -> None:
        """Write the outcome of one fault."""
        with self.results.open("a") as file:
            file.write(json.dumps({"part": part, **values}) + "\n")
        print(part, values, flush=True)

    def workdir(self, name: str) -> Path:
        """Return a workdir that nobody has used."""
        count = len(list(self.folder.glob(f"{name}-{self.started}-*")))
        return self.folder / f"{name}-{self.started}-{count}"

    def undisturbed(self, processes: int) -> dict[str, str]:
        """Return what a run ends with that nobody disturbs."""
        workdir = self.folder / f"undisturbed{processes}"
        if not (workdir / "summary.json").exists():
            with running(self.config, workdir, processes=processes, cache=self.cache) as run:
                assert {end.status for end in run.wait()} == {0}
        return final(workdir)


def kills(bench: Bench, part: str, processes: int, count: int) -> None:
    """Kill runs at random moments until each has come through."""
    expected = bench.undisturbed(processes)
    longest = 12.0 if processes == 1 else 35.0
    done = sum(row["part"] == part for row in bench.read())
    while done < count:
        workdir, rows, saved = bench.workdir(part), [], 0
        finished = False
        while not finished:
            with running(bench.config, workdir, processes=processes, cache=bench.cache) as run:
                victim, delay = random.randrange(processes), random.uniform(0, longest)
                wanted = len(rows) < KILLS and done + len(rows) < count
                # At any time of a run, or soon after it has come further.
                further = saved + random.randrange(1, 40) if random.random() < 0.5 else 0
                while wanted and run.alive() and further and run.step() < further:
                    time.sleep(0.01)
                delay = delay / 10 if further else delay
                # Whoever is alone waits two minutes for the other to come: once in ten is enough.
                if wanted and processes > 1 and random.random() < 0.9:
                    while run.alive() and not all("coordinator" in run.err(index) for index in (0, 1)):
                        time.sleep(0.01)
                until = time.monotonic() + delay
                while wanted and run.alive() and time.monotonic() < until:
                    time.sleep(0.01)
                killed = wanted and run.processes[victim].poll() is None
                step = run.step()
                if killed:
                    run.signal(signal.SIGKILL, victim)
                ends = run.wait()
                finished = not killed and all(end.status == 0 for end in ends)
                went_on = resumed(ends[0].err)
                # Known only of attempts that came so far as to go on, or to begin anew.
                lost = saved - went_on if went_on or "step " in ends[0].err else 0
                if killed:
                    statuses = [end.status for end in ends]
                    rows.append(
                        {
                            "victim": victim,
                            "at": round(delay, 2),
                            "step": step,
                            "statuses": statuses,
                            "lost": lost,
                        }
                        | {"end": round(max(end.seconds for end in ends), 2)}
                    )
                elif not finished:
                    rows.append({"error": [end.err[-1500:] for end in ends], "lost": 0})
                    finished = True
                saved = committed(workdir)[-1] if committed(workdir) else 0
        equal = final(workdir) == expected if committed(workdir) else False
        left = orphans(workdir)
        for row in rows:
            bench.note(part, **row, equal=equal, orphans=len(left))
        done += len(rows)


def terms(bench: Bench, part: str, count: int) -> None:
    """Ask two processes to stop, through one of them."""
    expected = bench.undisturbed(2)
    for number in range(sum(row["part"] == part for row in bench.read()), count):
        workdir = bench.workdir(part)
        with running(bench.config, workdir, processes=2, cache=bench.cache) as run:
            run.until(run.step)
            time.sleep(random.uniform(0, 8))
            victim = random.randrange(2)
            run.signal(signal.SIGTERM, victim)
            ends = run.wait()
        told = {line for end in ends for line in end.lines if "which was saved" in line}
        newest = committed(workdir)[-1] if committed(workdir) else 0
        agreed = len(told) == 1 and f"after step {newest}," in min(told)
        row = {"victim": victim, "statuses": [end.status for end in ends], "agreed": agreed, "step": newest}
        row["seconds"] = round(max(end.seconds for end in ends), 2)
        # The last step was saved already: a process that the signal finds on its way out ends by it, and says 75.
        row["too_late"] = newest == 120
        if number % 5 == 0 and agreed:  # and goes on bit for bit
            with running(bench.config, workdir, processes=2, cache=bench.cache) as run:
                row["resumed"] = [end.status for end in run.wait()] == [0, 0] and final(workdir) == expected
        bench.note(part, **row)


def one_fault(
    bench: Bench, part: str, count: int, processes: int, config: Path, harm: Callable[[Running, int], None]
) -> None:
    """Do harm to one process after the first steps, and see how all end."""
    for number in range(sum(row["part"] == part for row in bench.read()), count):
        workdir, victim = bench.workdir(part), number % processes
        with running(config, workdir, processes=processes, cache=bench.cache) as run:
            run.until(lambda run=run: run.step() >= 10)
            harm(run, victim)
            ends = run.wait()
        others = [end for index, end in enumerate(ends) if index != victim]
        name = f"process {victim} of {processes}" if processes > 1 else "data_wait"
        bench.note(
            part,
            victim=victim,
            statuses=[end.status for end in ends],
            seconds=[round(end.seconds, 2) for end in ends],
            # Of process 0 the others learn from C++ that it is gone, and from their parent who that is.
            named=all(any(_names(line, name, victim) for line in end.lines) for end in others or ends),
            orphans=len(orphans(workdir)),
        )


def _names(line: str, name: str, victim: int) -> bool:
    return name in line or (not victim and "process 0 is lost" in line)


def supervised(bench: Bench, part: str, count: int) -> None:
    """Kill the process below a supervisor, and wait for the step after."""
    config = bench.folder / "long.py"
    config.write_text(CONFIG.replace("120 steps", "100000 steps").replace("40 steps", "1000 steps"))
    done = sum(row["part"] == part for row in bench.read())
    if done >= count:
        return
    with running(config, bench.workdir(part), "--supervise", cache=bench.cache) as run:
        for _ in range(done, count):
            run.until(lambda: len(committed(run.workdir)) == 2)
            time.sleep(random.uniform(0, 2))
            before, steps = run.worker(), run.err().count("resuming after")
            run.signal(signal.SIGKILL)
            began = time.monotonic()
            run.until(lambda before=before: run.worker() not in (before, run.processes[0].pid))
            started = time.monotonic()
            run.until(lambda steps=steps: run.err().count("resuming after") > steps)
            size = len(run.err())
            run.until(lambda size=size: "\nstep " in run.err()[size - 1 :])
            now = time.monotonic()
            bench.note(part, seconds=round(now - began, 2), after_start=round(now - started, 2))
        run.processes[0].send_signal(signal.SIGTERM)
        assert run.wait()[0].status == TRY_AGAIN


def report(bench: Bench) -> int:
    """Print what came out; return 1 if a promise was broken."""
    broken = 0
    for part in COUNTS:
        rows = [row for row in bench.read() if row["part"] == part]
        if not rows:
            continue
        words = [f"{len(rows)} faults"]
        for key in ("equal", "agreed", "named", "resumed"):
            known = [row[key] for row in rows if key in row and not row.get("too_late")]
            if known:
                words.append(f"{key} {sum(known)} of {len(known)}")
                broken += not all(known)
        for key in ("lost", "orphans"):
            if any(key in row for row in rows):
                total = sum(row.get(key, 0) for row in rows)
                words.append(f"{key} {total}")
                broken += total > 0
        if any(row.get("too_late") for row in rows):
            words.append(f"{sum(row['too_late'] for row in rows)} too late")
        for key in ("end", "seconds", "after_start"):
            values = [max(v) if isinstance(v, list) else v for v in (row[key] for row in rows if key in row)]
            if values:
                values.sort()
                words.append(f"{key}: median {values[len(values) // 2]} s, longest {values[-1]} s")
        words += [f"errors {sum('error' in row for row in rows)}"]
        broken += any("error" in row for row in rows)
        print(f"{part}: {', '.join(words)}")
    return 1 if broken else 0


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=COUNTS, default=list(COUNTS))
    parser.add_argument("--count", type=int, help="faults of each part; by default as many as promised")
    parser.add_argument("--report", action="store_true", help="print what came out, and run nothing")
    arguments = parser.parse_args()
    bench = Bench(arguments.folder.absolute())
    parts: dict[str, Callable[[str, int], None]] = {
        "kill1": lambda part, count: kills(bench, part, 1, count),
        "kill2": lambda part, count: kills(bench, part, 2, count),
        "term2": lambda part, count: terms(bench, part, count),
        "dead2": lambda part, count: one_fault(
            bench, part, count, 2, bench.slow_notice, lambda run, victim: run.signal(signal.SIGKILL, victim)
        ),
        "stop2": lambda part, count: one_fault(
            bench, part, count, 2, bench.config, lambda run, victim: run.signal(signal.SIGSTOP, victim)
        ),
        "stall1": lambda part, count: one_fault(bench, part, count, 1, bench.stall, _stall),
        "stall2": lambda part, count: one_fault(bench, part, count, 2, bench.stall, _stall),
        "supervise": lambda part, count: supervised(bench, part, count),
    }
    for part in () if arguments.report else arguments.only:
        parts[part](part, arguments.count or COUNTS[part])
    return report(bench)


def _stall(run: Running, victim: int) -> None:
    run.workdir.with_name(f"{run.workdir.name}.stall").write_text(str(victim))


if __name__ == "__main__":
    sys.exit(main())
