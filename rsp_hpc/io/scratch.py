"""Planes that do not fit in memory: mapped from a nameless file in $TMPDIR, which vanishes with the process."""

from __future__ import annotations

import os
import tempfile

import numpy as np

from ..errors import BadData

__all__ = ["scratch_plane"]


def scratch_plane(shape: tuple[int, int], dtype=np.float32) -> np.ndarray:
    """(ny, nx) of this dtype, zero; the file is already unlinked, so that nothing is left whatever happens.

    Raises
    ------
    BadData
        The scratch folder is full or cannot be written.
    """
    try:
        with tempfile.TemporaryFile(prefix="rsp_hpc_") as file:
            size = np.dtype(dtype).itemsize * shape[0] * shape[1]
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, not a SIGBUS later
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise BadData(f"{tempfile.gettempdir()}: scratch folder: {error.strerror}; set TMPDIR to one with more space") from None
