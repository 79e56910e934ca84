"""The flags of commands that run on many hosts."""

import argparse


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    group = parser.add_argument_group(
        "multiple hosts", "detected automatically on TPU pods, SLURM and Open MPI; elsewhere, give all three"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--process-count", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-index", type=int, metavar="I", help="index of this process, from 0")


def join_processes(arguments: argparse.Namespace) -> bool:
    """Meet the other processes, if there are any; return whether this one is to print the results."""
    from vit_jax.training.devices.distributed import initialize_distributed

    initialize_distributed(arguments.coordinator, arguments.process_count, arguments.process_index)
    from vit_jax.processes import is_main

    return is_main()
