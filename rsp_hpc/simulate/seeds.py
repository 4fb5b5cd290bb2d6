"""Random numbers of one purpose each: the bits never depend on who draws them, or in which order."""

from __future__ import annotations

import numpy as np

__all__ = ["generator"]


def generator(seed: int, *what: int | str) -> np.random.Generator:
    """The random numbers of one purpose: depend on the survey's seed and on `what`, never on who draws them or when."""
    words = [int.from_bytes(item.encode(), "little") if isinstance(item, str) else int(item) for item in what]
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence([seed, *words])))
