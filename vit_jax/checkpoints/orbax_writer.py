"""The Orbax checkpointer that writes steps, with the options that saving without loss needs."""

import orbax.checkpoint as ocp

from vit_jax.checkpoints.files import METADATA, STATE


def open_writer(frugal: bool) -> ocp.AsyncCheckpointer:
    """Return a checkpointer of arrays and JSON that writes in the background.

    Args:
      frugal: copy arrays a few at a time while they are written, instead of all before saving returns.
    """
    arrays = ocp.PyTreeCheckpointHandler()
    if frugal:
        arrays = ocp.PyTreeCheckpointHandler(
            save_device_host_concurrent_gb=0.25,  # pyright: ignore[reportArgumentType]
            is_prioritized_key_fn=lambda path: False,  # pyright: ignore[reportArgumentType]
        )
    # Directories are made before `save` returns: if that fails in the background, Orbax's other threads wait five
    # minutes for them, and the process cannot end before.
    at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(async_options=at_once),
        **{STATE: arrays, METADATA: ocp.JsonCheckpointHandler()},
    )
    return ocp.AsyncCheckpointer(handler, async_options=at_once)
