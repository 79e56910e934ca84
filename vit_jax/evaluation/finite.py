"""Values as JSON can hold them."""

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """Return what JSON can hold, which has no numbers that are not finite: they are null."""
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
