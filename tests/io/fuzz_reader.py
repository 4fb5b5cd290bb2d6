"""Reads files whose names come on the standard input with every reader there is; one line of verdict per file.

Run as a process of its own by test_fuzz.py, so that a crash or a hang is seen.
"""

from __future__ import annotations

import resource
import sys
import warnings

from rsp_hpc.errors import BadData
from rsp_hpc.io import calibration, coadd, objects, visit
from rsp_hpc.io.product import hash_of, read_header
from rsp_hpc.io.show import describe


def read_all(kind: str, path: str) -> str:
    """Everything that a file holds, as a hash of its content."""
    header = read_header(path)
    describe(path)
    if kind == "visit":
        for name in visit.visit_detector_names(path):
            visit.read_visit_detector(path, name)
            visit.read_visit_lean(path, name)
        visit.read_sources(path)
        visit.read_exposure(path)
    elif kind == "coadds":
        for patch, band in coadd.coadd_parts(path):
            coadd.read_coadd(path, band, patch)
    elif kind == "objects":
        objects.read_objects(path)
        objects.read_bands(path)
    else:
        facts = calibration.read_facts(path)
        product = calibration.read_calibration_product(path)
        assert product.kind == kind and facts.verdict == product.verdict
        if kind == "bias":
            calibration.read_plane(path, product.content.image.shape)
            calibration.read_calibration_rows(path, 3, 9)
    return f"{hash_of(path)} {header.identity} {header.configuration!r} {sorted(header.inputs.items())}"


def main() -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))  # absurd sizes must not be asked for
    for line in sys.stdin:
        kind, path = line.split()
        try:
            answer = read_all(kind, path)
        except BadData as error:
            answer = "BadData " + str(error)
            assert len(str(error).splitlines()) == 1, error
        except Exception as error:
            answer = f"OTHER {type(error).__name__} {' '.join(str(error).split())[:300]}"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
