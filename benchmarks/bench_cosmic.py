"""Cosmic rays: ours and astroscrappy (where it is installed) on the same pixels: speed, and what is found.

python benchmarks/bench_cosmic.py [size [tracks [seed]]]

Fields of tests/cosmicfield.py at seeing 0.5", 0.8" and 1.2" of 0.2" pixels: sky 800 electrons, noise 29, stars to saturation,
galaxies; cosmic rays as straight tracks of 600 to 20,000 electrons, and as tracks, worms and spots of a thick sensor. The peer's
settings: sigclip 4.5, sigfrac 0.3, objlim 5, separable median, 4 iterations (ccdproc calls the same code). Both get the variance and the mask, the sky left in. 'found': pixels hit beyond 8
sigma; 'false': flagged more than 2 pixels from any hit, of all pixels, and those of them on objects.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
from cosmicfield import FULL_WELL, READ_NOISE, Field, make_field, score
from timing import bound_library, interleave, line, pin

from rsp_hpc.algorithms.background import BackgroundConfig, fit_background
from rsp_hpc.algorithms.cosmic import CosmicConfig, find_cosmic_rays
from rsp_hpc.products.mask import bits

try:
    import astroscrappy
except ImportError:
    astroscrappy = None

BOUND = """
#include <stdint.h>
/* One reading of image, variance and sky, one of the mask: the least that any search must do. */
float bound(int64_t n, const float *image, const float *variance, const float *sky, const uint32_t *mask) {
    float best = 0;
    for (int64_t i = 0; i < n; i++) {
        float p = image[i] - sky[i], s = p * p - 25.0f * variance[i];
        best += (s > 0) & (mask[i] == 0);
    }
    return best;
}
"""


def ours(field: Field, background) -> np.ndarray:
    """(ny, nx) bool: what we find."""
    image = field.image
    image.mask &= ~np.uint32(bits("CR"))
    find_cosmic_rays(image, field.psf_sigma, background, CosmicConfig())
    return image.mask & np.uint32(bits("CR")) != 0


def peer(field: Field) -> np.ndarray:
    """(ny, nx) bool: what astroscrappy finds with its separable median, four iterations."""
    bad = field.image.mask & np.uint32(bits("SAT")) != 0
    return astroscrappy.detect_cosmics(field.image.image, inmask=bad, invar=field.image.variance, sigclip=4.5,
                                       sigfrac=0.3, objlim=5.0, gain=1.0, readnoise=READ_NOISE, satlevel=FULL_WELL,
                                       niter=4, sepmed=True, cleantype="meanmask", verbose=False)[0]


def tell(name: str, field: Field, hit: np.ndarray) -> None:
    found = score(field, hit)
    print(f"  {name:14s} found {found['found']:7.2%} of {found['strong']}, false {found['false']:.1e} of all pixels, "
          f"{found['false_on_objects']} on objects, {found['false_on_cores']} on cores", flush=True)


def main() -> None:
    pin()
    size, tracks, seed = (int(word) for word in (*sys.argv[1:], *("2048", "240", "0")[len(sys.argv) - 1:]))
    fields = {(fwhm, kind, thick): make_field(size, fwhm, kind, tracks=tracks, seed=seed + int(10 * fwhm), thick=thick)
              for thick in (False, True) for fwhm, kind in ((2.5, "moffat"), (4.0, "kolmogorov"), (6.0, "gaussian"))}
    for (fwhm, kind, thick), field in fields.items():
        print(f"FWHM {fwhm} pixel, {kind}, {'thick sensor' if thick else 'thin tracks'}")
        tell("ours", field, ours(field, None))
        if astroscrappy is not None:
            tell("astroscrappy", field, peer(field))
    field = fields[4.0, "kolmogorov", True]
    background = fit_background(field.image, BackgroundConfig())
    sky = np.full_like(field.image.image, 800.0)
    library = bound_library(BOUND)
    planes = [ctypes.c_void_p(plane.ctypes.data)
              for plane in (field.image.image, field.image.variance, sky, field.image.mask)]
    ways = {"ours": lambda: ours(field, background), "sky fitted": lambda: ours(field, None),
            "bound": lambda: library.bound(ctypes.c_int64(size * size), *planes)}
    if astroscrappy is not None:
        ways["peer"] = lambda: peer(field)
    best = interleave(ways, 3)
    speed = {name: size * size / seconds / 1e6 for name, seconds in best.items()}
    theirs = speed.get("peer")
    line("cosmic rays", speed["ours"], speed["bound"], theirs, peer_name="astroscrappy")
    line("cosmic rays, sky fitted too", speed["sky fitted"], speed["bound"], theirs, peer_name="astroscrappy")


if __name__ == "__main__":
    main()
