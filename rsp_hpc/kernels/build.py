"""Builds the C core with cffi in API mode, as setup.cfg's section [rsp_hpc:kernels] says.

`python rsp_hpc/kernels/build.py` compiles in place; `pip install .` does the same through setup.py.
"""

from __future__ import annotations

import configparser
import glob
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]


def declarations(header: str) -> str:
    """The C header without its preprocessor lines, which is what cffi understands."""
    return "\n".join(line for line in header.splitlines() if not line.startswith("#"))


def builder() -> FFI:
    """An FFI ready to compile `rsp_hpc.kernels._rsp`."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    section = parser["rsp_hpc:kernels"]
    header = ROOT / section["header"]
    ffi = FFI()
    ffi.cdef(declarations(header.read_text()))
    sources = sorted(name for pattern in section["sources"].split() for name in glob.glob(pattern, root_dir=ROOT))
    ffi.set_source(
        "rsp_hpc.kernels._rsp",
        f'#include "{header.name}"',
        sources=sources,
        depends=[str(path.relative_to(ROOT)) for path in sorted(header.parent.glob("*.h"))],
        include_dirs=[str(header.parent.relative_to(ROOT))],
        extra_compile_args=section["compile_args"].split(),
        extra_link_args=section["link_args"].split(),
        py_limited_api=True,
    )
    return ffi


if __name__ == "__main__":
    import os

    os.chdir(ROOT)
    builder().compile(verbose=True)
