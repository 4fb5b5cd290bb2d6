"""Real raw data of four cameras: scanned, translated, assembled as the instruments took them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from rsp_hpc.config import load_yaml
from rsp_hpc.io.database import read_survey, survey_of, write_survey
from rsp_hpc.io.fits import read_header, read_image, read_table
from rsp_hpc.io.raw import read_raw_detector, scan
from rsp_hpc.io.sdss import mask_file_of, read_mask
from rsp_hpc.products.box import Box
from rsp_hpc.products.camera import load_camera
from rsp_hpc.products.mask import bits
from rsp_hpc.products.skymap import RingsSkyMap

pytestmark = pytest.mark.data
CAMERAS = Path(__file__).resolve().parents[2] / "configs" / "cameras"
MJD_ZERO = datetime(1858, 11, 17)


def scanned(name: str, folder: Path):
    """(camera, files with verdicts)."""
    camera = load_camera(load_yaml(CAMERAS / f"{name}.yaml"))
    return camera, scan([folder], camera)


def assembled(raw) -> np.ndarray:
    """Electrons above the prescan or overscan, in the detector's pixels."""
    image = np.zeros(raw.detector.box.shape, np.float32)
    for amplifier, segment in zip(raw.detector.amplifiers, raw.segments):
        whole = Box(0, 0, *amplifier.section[2:])
        region = Box(*(amplifier.serial_overscan or amplifier.prescan))
        level = np.median(segment[region.slices(whole)])
        data = (segment[amplifier.data_box.slices(whole)].astype(np.float32) - level) * amplifier.gain
        data = data[:, ::-1] if amplifier.flip_x else data
        image[amplifier.assembled_box.slices(raw.detector.box)] = data[::-1] if amplifier.flip_y else data
    return image


# ---- ARCSAT --------------------------------------------------------------------------------------------------------

def test_arcsat(rsp_data):
    """All 30 files: kinds, bands, exposure times as the file names and the README say; dates TAI of mid-exposure."""
    camera, files = scanned("arcsat", rsp_data / "arcsat-m13")
    assert Counter(entry.verdict for entry in files) == {"ok": 30}
    kinds = Counter((entry.exposure.kind, entry.exposure.band) for entry in files)
    assert kinds == {("bias", ""): 3, ("dark", ""): 3, **{("flat", band): 3 for band in "griz"}, ("science", "g"): 2,
                     ("science", "r"): 3, ("science", "i"): 3, ("science", "z"): 4}
    for entry in files:
        exposure, name = entry.exposure, entry.path.name
        begin = datetime.strptime(read_header(entry.path)["DATE-OBS"], "%Y-%m-%dT%H:%M:%S")
        days = (begin - MJD_ZERO).total_seconds() / 86400.0
        assert exposure.mjd == pytest.approx(days + (37.0 + 0.5 * exposure.exposure_time) / 86400.0, abs=1e-8), name
        assert exposure.visit == int(begin.strftime("%Y%m%d%H%M%S")) and entry.detector == "CCD"
        if name.startswith("M13"):
            assert exposure.kind == "science" and name.split("_")[2] == exposure.band
            assert (exposure.ra, exposure.dec) == pytest.approx((250.42, 36.46), abs=0.01)
            assert entry.wcs.pixel_scale == pytest.approx(0.668, rel=5e-3)
    assert {entry.exposure.exposure_time for entry in files if entry.exposure.kind == "bias"} == {0.0}
    assert {entry.exposure.exposure_time for entry in files if entry.exposure.kind == "dark"} == {80.0}
    raw = read_raw_detector(files[-1:], camera, "CCD")
    assert raw.segments[0].dtype == np.uint16 and np.array_equal(raw.segments[0], read_image(files[-1].path))


# ---- SDSS ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def sdss(rsp_data):
    return scanned("sdss-fpc", rsp_data / "sdss-stripe82")


def test_sdss(sdss):
    """Ten frames, one per band and epoch, with the gains of their bands and their masks."""
    camera, files = sdss
    assert Counter(entry.verdict for entry in files) == {"ok": 10}
    gains = {"u": 1.6, "g": 3.995, "r": 4.76, "i": 4.885, "z": 4.775}
    for entry in files:
        raw = read_raw_detector([entry], camera, "4")
        assert raw.detector.amplifiers[0].gain == gains[raw.exposure.band]
        assert f"-{raw.exposure.band}4-" in entry.path.name
        assert raw.segments[0].shape == raw.masked.shape == (1489, 2048)
        assert raw.exposure.exposure_time == pytest.approx(53.907456)
        assert raw.wcs.pixel_scale == pytest.approx(0.396, rel=2e-3)
        ra, dec = raw.wcs.pixel_to_sky(1023.5, 744.0)
        assert (float(ra), float(dec)) == pytest.approx((351.65, 0.10), abs=0.01)
        day = datetime.strptime(read_header(entry.path)["DATE-OBS"], "%Y-%m-%d")
        assert int(raw.exposure.mjd) == (day - MJD_ZERO).days
    assert len({entry.exposure.visit for entry in files}) == 10


def test_sdss_masks_lie_on_their_pixels(rsp_data):
    """SDSS interpolated what it masks: there, and not one pixel beside, a pixel is the mean of its two neighbours."""
    frame = rsp_data / "sdss-stripe82/4192/fpC-004192-r4-0300.fit.gz"
    image = read_image(frame).astype(float)
    mask = read_mask(mask_file_of(frame), image.shape)
    difference = image - 0.5 * (np.roll(image, 1, 1) + np.roll(image, -1, 1))

    def scatter(chosen, dx, dy):
        chosen = np.roll(chosen, (dy, dx), (0, 1))
        chosen = chosen & ~np.roll(chosen, 1, 1) & ~np.roll(chosen, -1, 1)  # single columns
        values = difference[20:-20, 20:-20][chosen[20:-20, 20:-20]]
        return 1.4826 * np.median(np.abs(values - np.median(values)))

    columns = ((mask & bits("INTRP")) > 0) & ((mask & bits("SAT", "CR")) == 0)
    assert scatter(columns, 0, 0) < 0.75 * min(scatter(columns, dx, 0) for dx in (-2, -1, 1, 2))
    hits = (mask & bits("CR")) > 0
    assert scatter(hits, 0, 0) < 0.85 * min(scatter(hits, dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy)
    assert np.all(mask[hits] & bits("INTRP")) and not np.any(mask & ~np.uint32(bits("SAT", "INTRP", "CR", "SUSPECT")))


def test_sdss_masks_hold_the_saturated_stars(sdss):
    """The same stars are saturated in both epochs, where the WCS of each says."""
    camera, files = sdss
    frames = [read_raw_detector([entry], camera, "4") for entry in files if entry.exposure.band == "i"]
    first, second = ((frame.masked & bits("SAT")) > 0 for frame in frames)
    y, x = np.nonzero(first)
    there = frames[1].wcs.sky_to_pixel(*frames[0].wcs.pixel_to_sky(x, y))
    u, v = (np.rint(np.asarray(value)).astype(int) for value in there)
    inside = (u >= 3) & (u < 2045) & (v >= 3) & (v < 1486)
    near = np.array([second[b - 3:b + 4, a - 3:a + 4].any() for a, b in zip(u[inside], v[inside])])
    assert inside.sum() > 500 and near.mean() > 0.8 and second.mean() < 0.002


# ---- LSST phosim ---------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def phosim(rsp_data):
    camera, files = scanned("lsst-phosim", rsp_data / "lsst-phosim")
    snap = [entry for entry in files if entry.exposure.visit == 886894610]
    raw = read_raw_detector(snap, camera, "R23_S11")
    return camera, files, raw, assembled(raw)


def test_phosim(phosim):
    """32 files: two snaps of one detector with 16 amplifiers, gains from the headers."""
    camera, files, raw, _ = phosim
    assert Counter((entry.verdict, entry.exposure.visit, entry.detector) for entry in files) == {
        ("ok", 886894610, "R23_S11"): 16, ("ok", 886894611, "R23_S11"): 16}
    assert raw.exposure.band == "r" and raw.exposure.exposure_time == 15.0
    assert raw.exposure.mjd == pytest.approx(51044.24567, abs=1e-5)
    gains = np.array([amplifier.gain for amplifier in raw.detector.amplifiers])
    noise = np.array([amplifier.read_noise for amplifier in raw.detector.amplifiers])
    assert len(set(gains)) == 16 and gains.min() > 1.57 and gains.max() < 1.75
    assert noise.min() > 3.1 and noise.max() < 3.7
    assert [segment.shape for segment in raw.segments] == [(2001, 513)] * 16


def test_phosim_sky_is_continuous(phosim):
    """After the gains the sky of all amplifiers is the same within 1 %."""
    _, _, raw, image = phosim
    sky = [np.median(image[amplifier.assembled_box.slices(raw.detector.box)]) for amplifier in raw.detector.amplifiers]
    assert np.ptp(sky) < 0.01 * np.mean(sky) and np.mean(sky) == pytest.approx(475, abs=10)


def test_phosim_stars_are_continuous(phosim, rsp_data):
    """Star positions of the input catalogue fit one plane over the detector: no step between the halves, no shift of an
    amplifier, beyond 0.1 pixel. The amplifiers' WCS contradict each other by 0.6"; their mean is within 0.4".
    """
    _, files, raw, image = phosim
    stars = read_table(rsp_data / "lsst-phosim/stars.fits")
    x, y = raw.wcs.sky_to_pixel(stars["ra"], stars["dec"])
    near = (x > 40) & (x < 4030) & (y > 40) & (y < 3960) & (stars["r"] > 17.5) & (stars["r"] < 21.0)
    x, y = x[near], y[near]
    offsets = np.array([centroid(image, *place) for place in zip(x, y)]) - np.stack([x, y], -1)
    terms = np.stack([np.ones_like(x), x / 2000 - 1, y / 2000 - 1, (y > 1999.5) - 0.5], -1)
    good = np.all(np.isfinite(offsets) & (np.abs(offsets - np.nanmedian(offsets, 0)) < 2.0), axis=1)
    for _ in range(5):
        fit = np.linalg.lstsq(terms[good], offsets[good], rcond=None)[0]
        rest = offsets - terms @ fit
        good = np.all(np.abs(rest) < 4 * 1.48 * np.median(np.abs(rest[good]), axis=0), axis=1)
    assert good.sum() > 50 and np.all(np.abs(fit[3]) < 0.1), fit
    assert np.all(np.abs(fit[0]) * 0.2 < 0.4)
    halves = [np.array(entry.wcs.pixel_to_sky(2035.5, 1999.5)).ravel() for entry in (files[0], files[16])]
    assert np.hypot(*(halves[0] - halves[1])) * 3600 == pytest.approx(0.6, abs=0.1)
    column = (x // 509).astype(int)
    shifts = [np.median(rest[good & (column == n)], axis=0) for n in range(8) if (good & (column == n)).sum() >= 5]
    assert len(shifts) >= 5 and np.all(np.abs(shifts) < 0.15), shifts


def centroid(image: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """Gaussian-weighted centre of the brightest spot within 12 pixels; NaN where it runs away."""
    i, j = int(round(x)), int(round(y))
    cut = image[j - 12:j + 13, i - 12:i + 13]
    smooth = sum(np.roll(cut, (dy, dx), (0, 1)) for dx in (-1, 0, 1) for dy in (-1, 0, 1))
    v, u = np.unravel_index(smooth[2:-2, 2:-2].argmax(), (21, 21))
    u, v = u + 2 + i - 12, v + 2 + j - 12
    x, y = float(u), float(v)
    rows, columns = np.mgrid[v - 8:v + 9, u - 8:u + 9]
    cut = image[v - 8:v + 9, u - 8:u + 9] - 475.5
    for _ in range(12):
        weight = cut * np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / 1.8**2)
        step = [2.0 * float((weight * (grid - place)).sum() / weight.sum())
                for grid, place in ((columns, x), (rows, y))]
        if not np.hypot(*step) < 5.0:
            return np.nan, np.nan
        x, y = x + step[0], y + step[1]
    return x, y


# ---- LCO -----------------------------------------------------------------------------------------------------------

def test_lco(rsp_data):
    """Four amplifiers with their gains: stars go on over the borders, the sky steps by what the gains leave."""
    camera, files = scanned("lco-sinistro", rsp_data / "lco-sinistro")
    assert [(entry.verdict, entry.exposure.kind, entry.exposure.band) for entry in files] == [("ok", "science", "w")]
    raw = read_raw_detector(files, camera, "CCD")
    assert [amplifier.gain for amplifier in raw.detector.amplifiers] == [6.42, 6.23, 6.27, 6.26]
    assert raw.exposure.visit == 2021100700042 and raw.wcs.pixel_scale == pytest.approx(0.778, rel=1e-3)
    image = assembled(raw)
    rest = image - np.median(image)
    for turned in (rest, rest.T):
        before, after = (np.concatenate([line[:512] - np.median(line[:512]), line[512:] - np.median(line[512:])])
                         for line in turned[511:513])
        assert np.corrcoef(before, after)[0, 1] > 0.3  # noise 0.03
        assert abs(np.corrcoef(before[::-1], after)[0, 1]) < 0.15
        for half in (turned[:, :512], turned[:, 512:]):
            profile = np.median(half, axis=1)
            assert abs(np.median(profile[512:522]) - np.median(profile[502:512])) < 0.03 * np.median(image)


# ---- all -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, folder, tracts", [
    ("arcsat", "arcsat-m13", [15081]), ("sdss-fpc", "sdss-stripe82", [9463, 9706]),
    ("lsst-phosim", "lsst-phosim", [9955, 10197]),
    ("lco-sinistro", "lco-sinistro", [17553, 17677])])
def test_survey_of_real_data(rsp_data, tmp_path, name, folder, tracts):
    camera, files = scanned(name, rsp_data / folder)
    survey = survey_of(files, camera, RingsSkyMap())
    write_survey(tmp_path / "survey.db", survey)
    found = read_survey(tmp_path / "survey.db")
    assert np.array_equal(found.rows, survey.rows) and found.tracts() == tracts and not found.refused()
    assert repr(found.pointings) == repr(survey.pointings) and repr(found.exposures()) == repr(survey.exposures())
    for exposure in found.exposures("science"):
        (detector,) = found.detectors(exposure.visit)
        assert len(found.files(exposure.visit, detector)) == (16 if name == "lsst-phosim" else 1)
        assert found.touches(exposure.visit, tracts)
