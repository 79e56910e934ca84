"""Which errors mean that another process is lost."""

import jax
import pytest

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.training.guard.peers import _is_lost_contact

GLOO = "UNKNOWN: Gloo AllGather failed: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:2987"


def caused_by(error):
    """What saving makes of an error."""
    made = CheckpointError(f"saving step 10 failed: {error}")
    made.__cause__ = error
    return made


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_a_broken_connection_is_lost_contact_also_below_an_error_of_ours(kind):
    assert _is_lost_contact(kind(GLOO))
    assert _is_lost_contact(caused_by(kind(GLOO)))


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes"),
        caused_by(OSError("No space left on device")),
        caused_by(ConnectionError("connection refused")),  # of a download
        ConfigError("data.path is 'connection'; it does not exist."),
    ],
)
def test_other_errors_are_not(error):
    assert not _is_lost_contact(error)
