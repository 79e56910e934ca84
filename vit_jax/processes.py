"""What the processes of one run tell each other, through jax's coordination service; every wait is bounded.

Only small texts go this way, rarely. All processes make the same calls in the same order; with one process nothing
is sent at all.
"""

import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import jax
from jax._src import distributed

from vit_jax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    PeerError,
    ResourceError,
    VitError,
    printable,
)

T = TypeVar("T")

TIMEOUT = 300.0  # seconds: processes that read the same files are rarely minutes apart

# Keys in the service are written once: a call is told from the one before by its number.
_CALLS: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


def is_main() -> bool:
    """Return whether this is the process that writes files and speaks to people."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Tell people a line, once, on standard error: what goes to standard output is for programs."""
    if line and is_main():
        print(printable(line), file=sys.stderr)


def gather(name: str, value: Any, timeout: float = TIMEOUT) -> list[Any]:
    """Return the values of all processes, in the order of their indices, on all processes.

    Args:
      name: what is exchanged, for messages.
      value: anything that JSON can hold; it comes back as JSON gives it.
      timeout: seconds.

    Raises:
      PeerError: a process did not answer in time.
    """
    if jax.process_count() == 1:
        return [value]
    client, key = service(), f"vit_jax/{name}/{next(_CALLS[name])}"
    wait = int(timeout * 1000)
    client.key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    if is_main():
        # Collected once and handed out whole: a thousand processes make thousands of requests, not a million.
        texts = [
            _answer(name, index, timeout, client.blocking_key_value_get, f"{key}/{index}", wait)
            for index in range(jax.process_count())
        ]
        client.key_value_set(f"{key}/all", json.dumps([json.loads(text) for text in texts]))
    return json.loads(_answer(name, 0, 2 * timeout, client.blocking_key_value_get, f"{key}/all", 2 * wait))


def from_main(name: str, value: Any, timeout: float = TIMEOUT) -> Any:
    """Return the value of process 0 on all processes; see `gather`."""
    if jax.process_count() == 1:
        return value
    client, key = service(), f"vit_jax/{name}/{next(_CALLS[name])}"
    if is_main():
        client.key_value_set(key, json.dumps(value))
    return json.loads(_answer(name, 0, timeout, client.blocking_key_value_get, key, int(timeout * 1000)))


def together(name: str, action: Callable[[], T], timeout: float = TIMEOUT) -> T:
    """Return what an action gives here, once it has succeeded in every process.

    Args:
      name: of the action, for messages.
      action: what each process does for itself; it may not wait for others.
      timeout: seconds that the processes may be apart.

    Raises:
      VitError: the action's own error where it failed; elsewhere an error of the same kind that names the process.
      PeerError: a process did not answer in time.
    """
    if jax.process_count() == 1:
        return action()
    result, failure = None, None
    try:
        result = action()
    except VitError as error:
        failure = error
    failures = gather(name, failure and [failure.exit_status, str(failure)], timeout)
    if failure is not None:
        raise failure
    for index, other in enumerate(failures):
        if other is not None:
            raise _elsewhere(other[0])(f"process {index} of {len(failures)}: {other[1]}")
    return cast(T, result)


def wait_for_all(name: str, timeout: float = TIMEOUT) -> None:
    """Return when every process has come here.

    Args:
      name: where, for messages.
      timeout: seconds.

    Raises:
      PeerError: a process did not come in time.
    """
    if jax.process_count() == 1:
        return
    key = f"vit_jax/{name}/{next(_CALLS[name])}"
    _answer(name, None, timeout, service().wait_at_barrier, key, int(timeout * 1000))


def _elsewhere(status: int) -> type[VitError]:
    kinds = (ConfigError, DataError, CheckpointError, ResourceError, PeerError)
    return next((kind for kind in kinds if kind.exit_status == status), ResourceError)


def service() -> Any:
    """Return the client of jax's coordination service."""
    client = distributed.global_state.client
    if client is None:
        raise RuntimeError("several processes need jax.distributed; see vit_jax.initialize_distributed")
    return client


def _answer(name: str, index: int | None, timeout: float, ask: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a request to the service gives, or name who was waited for."""
    try:
        return ask(*arguments)
    except jax.errors.JaxRuntimeError as error:
        who = "some process" if index is None else f"process {index}"
        reason = str(error).splitlines()[0]
        raise PeerError(
            f"{who} of {jax.process_count()} did not answer within {timeout:.0f} s ({name}): {reason}. See its own "
            "output for why it ended or waits, then start all processes again."
        ) from error
