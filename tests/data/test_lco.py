"""One raw frame of four amplifiers: assembled, overscan and gains applied, amplifiers matched on the sky, sources."""

from __future__ import annotations

import numpy as np
import pytest

from blanksky import blank
from rsp_hpc.algorithms.background import evaluate_background
from rsp_hpc.algorithms.gains import borders
from rsp_hpc.config import load_yaml
from rsp_hpc.io.visit import read_visit_detector
from rsp_hpc.products.camera import load_camera
from rsp_hpc.report.robust import width

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def visit(reduced):
    store = reduced("lco-sinistro")
    (number,) = store.visits()
    return read_visit_detector(store.visit(number), "CCD")


def test_the_frame_is_assembled(visit, figure):
    assert visit.image.box.shape == (1024, 1024) and visit.exposure.band == "w"
    figure("lco_sources", float(len(visit.sources)), low=800)
    figure("lco_psf_chi2", visit.summary["psf_chi2"], high=1.5)
    good = blank(visit.image, 4)
    value, variance = visit.image.image, visit.image.variance
    good = good[:, 1:] & good[:, :-1]
    pull = (value[:, 1:] - value[:, :-1])[good] / np.sqrt((variance[:, 1:] + variance[:, :-1])[good])
    figure("lco_noise_over_variance_plane", width(pull).value, low=0.95, high=1.05)


def test_no_seam_between_amplifiers(visit, figure):
    """Mean step of the blank sky across each border, in strips of 32 pixels, in units of the noise of a pixel.

    Noise alone would let a strip of 32 x 512 pixels tell a step to 1 %, but faint stars and halos make steps of 10 % at any line
    inside an amplifier too: those at the borders are no larger. (With the header's gains as they are they are 30 to 90 %.)
    The mean over the four borders, seen towards larger x and y, is what one common error of all amplifiers would show.
    """
    good = blank(visit.image, 1)
    noise = float(np.median(np.sqrt(visit.image.variance[good])))
    sky = np.clip(visit.image.image, -3.0 * noise, 3.0 * noise) + evaluate_background(visit.background)
    detector = load_camera(load_yaml("configs/cameras/lco-sinistro.yaml")).detector("CCD")

    def step(near, far) -> float:
        return (sky[far][good[far]].mean(dtype=float) - sky[near][good[near]].mean(dtype=float)) / noise

    steps = []
    for border in borders(detector, 32):
        steps.append(step(border.near.slices(detector.box), border.far.slices(detector.box)))
        names = "_".join(detector.amplifiers[number].name for number in (border.first, border.second))
        figure(f"lco_seam_{names}", steps[-1], "sigma", low=-0.2, high=0.2, error=np.sqrt(2.0 / border.near.area))
    inside = [step(*(at if along else at[::-1] for at in ((half, slice(line - 32, line)), (half, slice(line, line + 32)))))
              for line in (128, 256, 384, 640, 768, 896) for half in (slice(0, 512), slice(512, 1024)) for along in (True, False)]
    seams, elsewhere = (float(np.sqrt(np.mean(np.square(values)))) for values in (steps, inside))
    figure("lco_steps_inside_amplifiers_rms", elsewhere, "sigma")
    figure("lco_seams_rms", seams, "sigma", high=1.5 * elsewhere)
    figure("lco_seams_excess_over_inside", float(np.sqrt(max(0.0, seams**2 - elsewhere**2))), "sigma", high=0.01)
    figure("lco_seams_mean", float(np.mean(steps)), "sigma", low=-0.01, high=0.01)
