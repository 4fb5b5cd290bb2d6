"""Header translation: values, units, dates, and headers that lack or garble something."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rsp_hpc.config import load_yaml
from rsp_hpc.errors import BadData
from rsp_hpc.products.camera import HeaderKey, load_camera
from rsp_hpc.products.header import exposure_of, tai_minus_utc, translate, with_header_values

CAMERAS = Path(__file__).resolve().parents[2] / "configs" / "cameras"

ARCSAT = {"DATE-OBS": "2019-05-03T09:03:11", "EXPTIME": 120.0, "FILTER": "sdss_g  ", "IMAGETYP": "Light Frame",
          "RA": "16 41 41.00", "DEC": "+36 27 35.0", "AIRMASS": 1.0021}
SDSS = {"RUN": 6377, "CCDLOC": 14, "FRAME": 399, "TAI": 4665448596.13, "FILTER": "r", "EXPTIME": "53.907456", "CRVAL1": 351.6,
        "CRVAL2": 0.1, "CAMCOL": 4}
PHOSIM = {"FILTER": "r", "MJD-OBS": 51044.2456690278, "EXPTIME": 15.0, "DARKTIME": 15.0, "RA_DEG": 1.6, "DEC_DEG": 5.1,
          "ROTANG": 163.9, "AIRMASS": 1.27, "CHIPID": "R23_S11"}


def camera(name):
    return load_camera(load_yaml(CAMERAS / f"{name}.yaml"))


def test_arcsat_header():
    exposure = exposure_of(camera("arcsat"), [ARCSAT], "m13.fits")
    assert (exposure.visit, exposure.kind, exposure.band) == (20190503090311, "science", "g")
    assert exposure.mjd == pytest.approx(58606.0 + (9 * 3600 + 3 * 60 + 11 + 60 + 37) / 86400.0, abs=1e-9)
    assert exposure.ra == pytest.approx(250.4208333, abs=1e-6) and exposure.dec == pytest.approx(36.4597222, abs=1e-6)
    bias = exposure_of(camera("arcsat"), [{"DATE-OBS": "2019-05-03T07:37:46", "EXPTIME": 0.0, "IMAGETYP": "Bias Frame"}], "b.fits")
    assert bias.kind == "bias" and bias.band == "" and math.isnan(bias.ra)


def test_sdss_header():
    exposure = exposure_of(camera("sdss-fpc"), [SDSS], "fpC-006377-r4-0399.fit.gz")
    assert exposure.visit == 6377140399 and exposure.band == "r"
    assert exposure.exposure_time == pytest.approx(53.907456)
    assert exposure.mjd == pytest.approx(4665448596.13 / 86400.0 + (19.6 - 0.5 * 53.907456) / 86400.0, abs=1e-9)


def test_phosim_snaps_are_visits_of_their_own_and_gains_come_from_the_amplifiers():
    instrument = camera("lsst-phosim")
    names = [f"raw/imsim_88689461_R23_S11_C00_E00{snap}.fits.gz" for snap in (0, 1)]
    assert [exposure_of(instrument, [PHOSIM], name).visit for name in names] == [886894610, 886894611]
    cards = [{"GAIN": 1.5 + 0.01 * k, "RDNOISE": 3.0, "SATURATE": 59000.0} for k in range(16)]
    detector = with_header_values(instrument, instrument.detectors[0], "r", cards, "x")
    assert [amplifier.gain for amplifier in detector.amplifiers] == [1.5 + 0.01 * k for k in range(16)]
    assert detector.amplifiers[3].saturation == 59000.0


@pytest.mark.parametrize("change, message", [
    ({"EXPTIME": None}, "no key EXPTIME for exposure_time"),
    ({"EXPTIME": -3.0}, "negative"),
    ({"EXPTIME": "long"}, "exposure_time is 'long', not a s"),
    ({"EXPTIME": float("nan")}, "exposure_time"),
    ({"IMAGETYP": "Focus"}, "kind is 'Focus', the camera knows"),
    ({"FILTER": "Ha"}, "band is 'Ha', the camera knows"),
    ({"DATE-OBS": "yesterday"}, "no key DATE-OBS|visit|mjd"),
    ({"RA": "16 41 41 00 12"}, "ra is"),
    ({"DATE-OBS": ""}, "no key DATE-OBS"),
])
def test_a_bad_header_is_refused_in_one_line(change, message):
    cards = {key: value for key, value in {**ARCSAT, **change}.items() if value is not None}
    with pytest.raises(BadData, match=message) as caught:
        exposure_of(camera("arcsat"), [cards], "m13.fits")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("m13.fits: ")


def test_a_bad_gain_is_refused():
    instrument = camera("lco-sinistro")
    for gain in (0.0, -1.0, "high"):
        with pytest.raises(BadData, match="gain"):
            with_header_values(instrument, instrument.detectors[0], "w", [{"GAIN": gain}] * 4, "x")


def test_leap_seconds():
    assert tai_minus_utc(58606.0) == 37.0 and tai_minus_utc(57753.9) == 36.0 and tai_minus_utc(41317.0) == 10.0


def test_scale_offset_and_units():
    assert translate(HeaderKey(key="T", unit="ms"), [{"T": 1500}], "x", "t") == 1.5
    assert translate(HeaderKey(key="T", scale=2.0, offset=1.0), [{"T": 3}], "x", "t") == 7.0
    assert translate(HeaderKey(key="T", unit="deg"), [{"T": "-00:30:00"}], "x", "t") == -0.5
    assert translate(HeaderKey(key="T", unit="radian"), [{"T": math.pi}], "x", "t") == pytest.approx(180.0)
    assert translate(HeaderKey(key="T", value=5), [{}], "x", "t") == 5
    assert translate(HeaderKey(key="T", required=False), [{}], "x", "t") is None
    assert translate(HeaderKey(key="T", hdu=3, required=False), [{}], "x", "t") is None
