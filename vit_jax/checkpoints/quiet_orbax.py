"""Orbax without its running commentary: what fails reaches us as an exception and the user as one line."""

import asyncio
import logging


def quiet_orbax() -> None:
    """Raise the level of Orbax's logger and let its event loops end their tasks; calling it again is harmless.

    Orbax logs every small step, and its errors as tracebacks beside the exceptions it raises. When one array cannot
    be read or written it also closes its event loop at once, and the reads and writes of the others, which nobody
    waits for any more, print tracebacks at any later time. Waiting for them is cheap and loses nothing.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    if asyncio.new_event_loop is not _patient_loop:
        # Orbax makes its loops with this and offers no other way. asyncio.run() is not affected.
        asyncio.new_event_loop = _patient_loop


_new_event_loop = asyncio.new_event_loop


def _patient_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop that ends its tasks before it closes."""
    loop = _new_event_loop()
    close = loop.close

    def close_after_tasks() -> None:
        tasks = set() if loop.is_closed() else asyncio.all_tasks(loop)
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        close()

    loop.close = close_after_tasks
    return loop
