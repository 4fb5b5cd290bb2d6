"""The Python face of the C core: one module per C file, numpy arrays in and out.

`call` is the only way into C: it turns a status other than RSP_OK into `KernelError`. `pointer` hands an array over and
refuses one of another dtype, shape or order, so that C never sees a wrong buffer.
"""

from __future__ import annotations

import numpy as np

from ..errors import KernelError

try:
    from ._rsp import ffi, lib
except ImportError as error:  # not built yet, or built for another Python
    raise KernelError(f"the C core is not built ({error}): run 'make build' or 'pip install .'") from None

__all__ = ["call", "ffi", "lib", "pointer", "simd_level"]

_C_NAMES = {"f4": "float *", "f8": "double *", "i2": "int16_t *", "u2": "uint16_t *", "u1": "uint8_t *",
            "i4": "int32_t *", "u4": "uint32_t *", "i8": "int64_t *"}


def call(function, *arguments) -> None:
    """Call a kernel; raise KernelError with C's own words if it fails. The GIL is released meanwhile."""
    status = function(*arguments)
    if status != lib.RSP_OK:
        text = ffi.string(lib.rsp_status_text(status)).decode()
        detail = ffi.string(lib.rsp_detail()).decode()
        raise KernelError(f"{text} ({detail})" if detail else text, status=int(status))


def pointer(array: np.ndarray | None, dtype: str, shape: tuple[int, ...] | None = None):
    """A C pointer to a C-contiguous array of this dtype (and shape); None becomes NULL.

    Raises
    ------
    KernelError
        The array has another dtype, shape or memory order.
    """
    if array is None:
        return ffi.NULL
    wanted = np.dtype(dtype)
    if array.dtype != wanted or not array.flags.c_contiguous or (shape is not None and array.shape != tuple(shape)):
        raise KernelError(f"kernel wants a C-contiguous {wanted.name} array of shape {shape}, "
                          f"got {array.dtype.name} {array.shape}; convert it with np.ascontiguousarray")
    return ffi.cast(_C_NAMES[wanted.str[1:]], array.ctypes.data)


def simd_level() -> str:
    """The instruction set that run-time dispatch chose: 'avx512', 'avx2' or 'baseline'."""
    return ffi.string(lib.rsp_simd_level()).decode()
