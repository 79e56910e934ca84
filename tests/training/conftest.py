"""Fixtures of the tests of the loop."""

import pytest

from vit_jax.training import loop
from vit_jax.training.report.metrics import Clock


@pytest.fixture
def nothing_compiled(monkeypatch):
    """The loop may not come as far as compiling."""

    class NoCompilation(Clock):
        def __call__(self, phase):
            assert phase != "compile"
            return super().__call__(phase)

    monkeypatch.setattr(loop, "Clock", NoCompilation)
