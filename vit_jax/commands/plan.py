"""`vit-jax plan`."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from vit_jax.planning.chips import Hardware

HELP = "tell whether a run fits hardware that you do not have at hand, and what it costs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="configuration, Python or JSON")
    parser.add_argument(
        "--hardware",
        required=True,
        metavar="NAME",
        help="hardware to plan for: v5e-256, v5p-128, 2xv5e-256, h100-8, ...",
    )
    parser.add_argument(
        "--records",
        type=int,
        metavar="N",
        help="number of training records, if the data is not on this machine",
    )
    parser.add_argument(
        "--classes", type=int, metavar="N", help="number of classes, if the data is not on this machine"
    )
    parser.add_argument("--sweep", action="store_true", help="compare meshes and remat policies")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "--config.KEY=VALUE overrides a key of the configuration, e.g. --config.mesh.fsdp=16"


def run(arguments: argparse.Namespace) -> int:
    """Compile the training step for the hardware and print what it needs and costs."""
    from vit_jax.planning.chips import parse_hardware
    from vit_jax.training.config.load import load_config

    for option in ("records", "classes"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise ConfigError(f"--{option} is {value}; it must be at least 1.")
    hardware = parse_hardware(arguments.hardware)
    config = load_config(arguments.config, arguments.overrides)
    from vit_jax.planning.topology import prepare_environment

    prepare_environment(hardware)
    if arguments.sweep:
        return _sweep(config, hardware, arguments)
    return _plan(config, hardware, arguments)


def _plan(config: Any, hardware: "Hardware", arguments: argparse.Namespace) -> int:
    from vit_jax.planning.advice import advise, more_of_the_card
    from vit_jax.planning.plan import make_plan, planned_experiment
    from vit_jax.planning.text import describe
    from vit_jax.planning.topology import absent_devices

    devices = absent_devices(hardware)
    known = {"records": arguments.records, "classes": arguments.classes}
    experiment, assumptions = planned_experiment(config, devices, **known)
    plan = make_plan(experiment, hardware, assumptions)
    advice = []
    if not plan.fits:
        advice = more_of_the_card(plan.memory["peak"], hardware)
        advice += advise(config, hardware, lambda changed: planned_experiment(changed, devices, **known)[0])
    if arguments.json:
        print(json.dumps(plan.to_json() | {"advice": advice}, indent=2))
    else:
        print(describe(plan, advice))
    if not plan.fits:
        size, what = plan.largest[0] if plan.largest else (plan.memory["temporary"], "temporary arrays")
        each = "GPU" if plan.gpu else "chip"
        raise ResourceError(
            f"{plan.model} does not fit {hardware.name}: a {each} would need {plan.memory['peak'] / 2**30:.1f} GiB of "
            f"{plan.memory['capacity'] / 2**30:.2f}, {size / 2**30:.2f} of it for {what}; what would help: "
            f"{'; or '.join(advice)}."
        )
    return 0


def _sweep(config: Any, hardware: "Hardware", arguments: argparse.Namespace) -> int:
    """Print one line for each mesh and remat policy, as soon as it is known."""
    from vit_jax.planning.advice import variants
    from vit_jax.planning.plan import make_plan, planned_experiment
    from vit_jax.planning.topology import absent_devices

    devices, gpu = absent_devices(hardware), hardware.chip.gpu
    plans = []
    if not arguments.json:
        times = f"{'ms at least':>13}  bound by" if gpu else f"{'ms':>9}{'waiting':>9}{'MFU':>8}"
        print(f"{'mesh':<28}{'remat':<12}{'GiB':>8}{times}", flush=True)
    for changed in variants(config, len(devices)):
        experiment, assumptions = planned_experiment(
            changed, devices, records=arguments.records, classes=arguments.classes
        )
        plan = make_plan(experiment, hardware, assumptions)
        plans.append(plan)
        if arguments.json:
            continue
        mesh = " ".join(f"{axis}={size}" for axis, size in plan.mesh.items())
        row = f"{mesh:<28}{plan.remat:<12}{plan.memory['peak'] / 2**30:>8.2f}"
        if not plan.fits:
            row += "  does not fit"
        elif plan.least_seconds is not None:
            row += (
                f"{plan.least_seconds * 1e3:>13.2f}  {max(plan.floors, key=lambda part: plan.floors[part])}"
            )
        elif plan.step_seconds is not None and plan.exposed_seconds is not None:
            row += f"{plan.step_seconds * 1e3:>9.1f}{plan.exposed_seconds * 1e3:>9.1f}{plan.mfu:>8.1%}"
        print(row, flush=True)
    if arguments.json:
        print(json.dumps([plan.to_json() for plan in plans], indent=2))
    return 0
