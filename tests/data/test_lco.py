"""One raw frame of four amplifiers: assembled, overscan and gains applied, amplifiers matched on the sky, sources."""

from __future__ import annotations

import numpy as np
import pytest

from blanksky import blank
from scipy import ndimage

from rsp_hpc.algorithms.background import evaluate_background
from rsp_hpc.algorithms.detrend import DetrendConfig, assemble
from rsp_hpc.algorithms.gains import borders
from rsp_hpc.config import load_yaml
from rsp_hpc.io.raw import read_raw_detector, scan
from rsp_hpc.io.visit import read_visit_detector
from rsp_hpc.products.camera import load_camera
from rsp_hpc.products.exposure import RawDetector
from rsp_hpc.products.mask import bits
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
    error = float(np.sqrt(0.5 / border.near.area))  # of the mean of four; what faint stars do to it, 0.05, is not in it
    figure("lco_seams_mean", float(np.mean(steps)), "sigma", low=-4.0 * error, high=4.0 * error, error=error)


def quadrants(raw: RawDetector, config: DetrendConfig) -> tuple[np.ndarray, np.ndarray]:
    """(4, 512, 512) electrons and mask planes in the order in which the quadrants were read."""
    image, box = assemble(raw, config), raw.detector.box
    parts = [(amplifier.assembled_box.slices(box), slice(None, None, -1 if amplifier.flip_y else 1),
              slice(None, None, -1 if amplifier.flip_x else 1)) for amplifier in raw.detector.amplifiers]
    return tuple(np.stack([plane[at][y, x] for at, y, x in parts]) for plane in (image.image.astype(float), image.mask))


def ghost_sums(planes: tuple[np.ndarray, np.ndarray], source: np.ndarray, clipped: np.ndarray) -> np.ndarray:
    """(2, 4): for pixels of bright stars that the converter did not clip, and for those that it did, the sums over stars of
    charge * ghost before, charge * ghost after, charge^2, and the variance of the first.

    A ghost is the charge under the star less the median of a ring around it that no star of the source reaches.
    """
    labels, n = ndimage.label(ndimage.binary_dilation(source > 9000.0))
    sums = np.zeros((2, 4))
    for k in range(1, n + 1):
        star = labels == k
        ring = ndimage.binary_dilation(star, iterations=12) & ~ndimage.binary_dilation(star, iterations=5) & (source < 2500.0)
        around = planes[0][ring] - np.median(planes[0][ring])
        noise = 1.4826 * np.median(np.abs(around))
        if noise > 60.0 or np.abs(around).max() > 8.0 * noise:
            continue  # stars of the quadrant itself are near
        for row, pixels in enumerate((star & ~clipped, star & clipped)):
            charge = source[pixels & (source > 9000.0)]
            excess = [charge @ (plane[pixels & (source > 9000.0)] - np.median(plane[ring])) for plane in planes]
            sums[row] += (*excess, charge @ charge, noise**2 * (charge @ charge + charge.sum()**2 * np.pi / 2 / ring.sum()))
    return sums


def test_crosstalk_with_the_coefficients_of_the_header(rsp_data, figure):
    """The ghosts of the brightest stars in the quadrants that the header couples, in read-out order, before and after.

    The header counts in ADU, CRSTLK12 is the ghost of quadrant 1 in quadrant 2. Where the converter clips a star at 65535 ADU,
    whose charge goes on (the ghost is twice as large as what can be read would leave), no coefficient helps: such ghosts become smaller
    and are flagged CROSSTALK.
    """
    camera = load_camera(load_yaml("configs/cameras/lco-sinistro.yaml"))
    (entry,) = scan([rsp_data / "lco-sinistro" / "mef_raw_test_frame.fits"], camera)
    raw = read_raw_detector([entry], camera, "CCD")
    assert raw.crosstalk.coefficient[0, 1] == pytest.approx(0.00064 * 6.42 / 6.23) and raw.crosstalk.coefficient[0, 2] == 0.0
    before, _ = quadrants(raw, DetrendConfig(crosstalk={"apply": False}))
    after, mask = quadrants(raw, DetrendConfig())
    totals = np.zeros((2, 3))  # ghost before, after, over the square of its error; that alone
    for target, source in ((0, 1), (1, 0), (2, 3), (3, 2)):
        charge = before[source] - np.median(before[source])
        clipped = charge > 55000.0 * raw.detector.amplifiers[source].gain
        for row, (first, left, squares, variance) in enumerate(ghost_sums((before[target], after[target]), charge, clipped)):
            if variance > 0.0:
                totals[row] += np.array([first, left, squares]) * squares / variance
    (first, left, weight), (clipped_first, clipped_left, clipped_weight) = totals
    figure("lco_ghost_before", 1e5 * first / weight, "1e-5", low=10.0 * 1e5 * weight**-0.5, error=1e5 * weight**-0.5)
    figure("lco_ghost_after_over_before", abs(left) / first, high=0.1, error=weight**0.5 / first)
    figure("lco_ghost_clipped_before", 1e5 * clipped_first / clipped_weight, "1e-5", error=1e5 * clipped_weight**-0.5)
    figure("lco_ghost_clipped_after_over_before", clipped_left / clipped_first, high=0.7, error=clipped_weight**0.5 / clipped_first)
    flagged = mask & np.uint32(bits("CROSSTALK")) != 0
    assert flagged[0].any() and flagged[2].any()
