"""BEiT's loss, as a pure function."""

import jax
import jax.numpy as jnp


def token_losses(logits: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return of each patch the cross-entropy of its code, and whether it is the most probable one, both `(b, n)`.

    Args:
      logits: `(b, n, codes)`.
      codes: `(b, n)`, int32.
    """
    scores = jax.nn.log_softmax(logits.astype(jnp.float32))
    losses = -jnp.take_along_axis(scores, codes[..., None], axis=-1)[..., 0]
    return losses, (jnp.argmax(logits, axis=-1) == codes).astype(jnp.float32)
