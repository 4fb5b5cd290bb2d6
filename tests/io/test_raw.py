"""Raw files of every layout: verdicts, segments, WCS; whatever is wrong with a file is one line and stops nothing."""

from __future__ import annotations

import gzip
import random
import time

import numpy as np
import pytest
from astropy.io import fits as oracle
from samples_raw import NX, NY, SCALE, camera, cards, segments, wcs_cards, write_amplifiers, write_detector

from rsp_hpc.errors import BadData, ConfigError
from rsp_hpc.io.fits import write_fits
from rsp_hpc.io.raw import examine, find_files, read_raw_detector, scan, write_raw
from rsp_hpc.products.assembly import mean_wcs, wcs_of_amplifier
from rsp_hpc.products.header import tai_minus_utc
from rsp_hpc.products.wcs import Wcs


def assembled(raw) -> np.ndarray:
    """The light-sensitive pixels in their places, as the camera's description says."""
    image = np.zeros(raw.detector.box.shape)
    for amplifier, segment in zip(raw.detector.amplifiers, raw.segments):
        data = segment[amplifier.data_box.slices(amplifier.data_box.__class__(0, 0, *amplifier.section[2:]))]
        data = data[:, ::-1] if amplifier.flip_x else data
        image[amplifier.assembled_box.slices(raw.detector.box)] = data
    return image


RAMP = 40_000 + 10 * np.arange(2 * NX)[None, :] + np.arange(NY)[:, None]


@pytest.mark.parametrize("kind", ("detector", "multi-extension", "amplifier"))
def test_layouts(tmp_path, kind):
    """Every layout gives the same detector: a ramp without a seam."""
    if kind == "amplifier":
        write_amplifiers(tmp_path)
    else:
        write_detector(tmp_path, name="raw_7.fits" if kind == "multi-extension" else "")
    files = scan(tmp_path, camera(kind))
    assert [entry.verdict for entry in files] == ["ok"] * (2 if kind == "amplifier" else 1), files[0].message
    assert [entry.amplifier for entry in files] == (["A", "B"] if kind == "amplifier" else [None])
    raw = read_raw_detector(files, camera(kind), "D0")
    assert np.array_equal(assembled(raw), RAMP) and raw.segments[0].dtype == np.uint16
    assert all(np.array_equal(*pair) for pair in zip(raw.segments, segments(7)))
    assert [a.gain for a in raw.detector.amplifiers] == ([2.2, 3.2] if kind == "amplifier" else [2.1, 3.1])
    exposure = raw.exposure
    assert (exposure.visit, exposure.kind, exposure.band, exposure.exposure_time) == (7, "science", "r", 30.0)
    assert exposure.mjd == pytest.approx(60000.25 + (15.0 + tai_minus_utc(60000.0)) / 86400.0, abs=1e-9)
    assert raw.masked is None and raw.wcs.pixel_scale == pytest.approx(SCALE)


def test_one_file_with_several_detectors(tmp_path):
    """A multi-extension file may hold the whole camera: one entry per detector."""
    base = camera("multi-extension").model_dump()
    second = {**base["detectors"][0], "name": "D1", "id": 1,
              "amplifiers": [{**a, "hdu": a["hdu"] + 2} for a in base["detectors"][0]["amplifiers"]]}
    both = camera("multi-extension", detectors=[base["detectors"][0], second], wcs="geometry")
    images = [*segments(1), *segments(2)]
    write_raw(tmp_path / "raw_7.fits", [(None, cards()), *((image, {}) for image in images)])
    files = scan([tmp_path], both)
    assert [(entry.detector, entry.verdict) for entry in files] == [("D0", "ok"), ("D1", "ok")]
    for name, pair in (("D0", images[:2]), ("D1", images[2:])):
        assert all(np.array_equal(a, b) for a, b in zip(read_raw_detector(files, both, name).segments, pair))


def test_tile_compressed_raw_files(tmp_path):
    """As cameras write them today: the same numbers of HDUs, sections, cards."""
    first, second = segments(7)
    header = oracle.Header(list(cards().items()))
    oracle.HDUList([oracle.PrimaryHDU(header=header), oracle.CompImageHDU(first, oracle.Header([("GAIN", 2.1)])),
                    oracle.CompImageHDU(second, oracle.Header([("GAIN", 3.1)]))]).writeto(tmp_path / "raw_7_D0.fits.fz")
    raw = read_raw_detector(scan(tmp_path, camera()), camera(), "D0")
    assert np.array_equal(assembled(raw), RAMP) and [a.gain for a in raw.detector.amplifiers] == [2.1, 3.1]


def test_pixel_types(tmp_path):
    """uint16, int32 and float32 stay; others become one of them."""
    for stored, wanted in (("u1", "u2"), ("i2", "i4"), ("u2", "u2"), ("i4", "i4"), ("f4", "f4"), ("f8", "f4")):
        images = [(segment % 100).astype(stored) for segment in segments()]
        write_raw(tmp_path / "raw_7_D0.fits", [(None, cards()), *((image, {}) for image in images)])
        raw = read_raw_detector(scan(tmp_path, camera()), camera(), "D0")
        assert raw.segments[0].dtype == np.dtype(wanted) and np.array_equal(raw.segments[1], images[1])


# ---- where the WCS comes from --------------------------------------------------------------------------------------

def test_wcs_of_flipped_amplifiers(tmp_path):
    """Each amplifier's header counts its own raw pixels; assembled, both agree with the detector's WCS."""
    described = camera("amplifier", wcs_pixels="amplifier")
    truth = Wcs.from_header(wcs_cards())
    left, right = described.detectors[0].amplifiers
    own = {"A": {"CRPIX1": truth.crpix[0] + 3 + 1},
           "B": {"CRPIX1": 3 + NX - 1 - (truth.crpix[0] - NX) + 1, "CD1_1": SCALE / 3600.0}}
    for name, raw in zip("AB", segments(7)):
        write_fits(tmp_path / f"raw_7_D0_{name}.fits", [(raw, {**cards(**own[name]), "GAIN": 2.0})])
    files = scan(tmp_path, described)
    for entry in files:
        assert entry.wcs.crpix == pytest.approx(truth.crpix) and np.allclose(entry.wcs.cd, truth.cd)
    found = read_raw_detector(files, described, "D0").wcs
    x, y = np.array([0.0, 47.0, 11.0]), np.array([0.0, 15.0, 3.0])
    assert np.allclose(found.pixel_to_sky(x, y), truth.pixel_to_sky(x, y), rtol=0, atol=1e-9)


def test_distortion_of_a_flipped_amplifier():
    """A sky position falls on the same physical pixel before and after."""
    rng = np.random.default_rng(2)
    table = np.tril(rng.normal(0, 1e-5, (4, 4))[::-1])[::-1]
    table[0, 0] = table[1, 0] = table[0, 1] = 0.0
    raw = Wcs((150.0, 2.2), (10.0, 5.0), ((-1e-4, 2e-6), (1e-6, 1.1e-4)), table, 0.7 * table)
    for amplifier in camera().detectors[0].amplifiers:
        for flip_y in (False, True):
            amplifier = amplifier.model_copy(update={"flip_y": flip_y})
            x, y = rng.uniform(0, 20, (2, 9))
            data_x, data_y = x - amplifier.data[0], y - amplifier.data[1]
            data_x = NX - 1 - data_x if amplifier.flip_x else data_x
            data_y = NY - 1 - data_y if flip_y else data_y
            there = wcs_of_amplifier(raw, amplifier).pixel_to_sky(amplifier.origin[0] + data_x, data_y)
            assert np.allclose(there, raw.pixel_to_sky(x, y), rtol=0, atol=1e-10)


def test_mean_of_wcs_that_disagree():
    """Two that are off by the same in opposite directions give the truth."""
    detector = camera().detectors[0]
    pair = [Wcs.from_header({**wcs_cards(), "CRVAL1": 150.0 + sign * 1e-4, "CRVAL2": 2.2 - sign * 2e-4})
            for sign in (1, -1)]
    truth = Wcs.from_header(wcs_cards())
    x, y = detector.box.corners().T
    assert np.allclose(mean_wcs(pair, detector).pixel_to_sky(x, y), truth.pixel_to_sky(x, y), rtol=0, atol=1e-8)
    assert mean_wcs(pair[:1], detector) is pair[0]


@pytest.mark.parametrize("changes, words", [
    ({"CRVAL1": None}, "no CRVAL1"), ({"CTYPE1": "GLON-TAN"}, "not RA and DEC"), ({"CD1_1": 1.0}, "its pixels are"),
    ({"CRVAL1": "east"}, "east"), ({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 10**9}, "order"),
])
def test_header_without_usable_wcs(tmp_path, changes, words):
    """Then the pointing and the geometry give it; without a pointing the file is refused."""
    write_detector(tmp_path, visit=1, **changes)
    write_detector(tmp_path, visit=2, RA=None, **changes)
    write_detector(tmp_path, visit=3, kind="BIAS", RA=None, **changes)
    fixed, refused, bias = scan(tmp_path, camera())
    assert fixed.verdict == "fixed" and "taken from the pointing" in fixed.message and words in fixed.message
    assert fixed.wcs.pixel_to_sky(NX - 0.5, NY / 2 - 0.5)[1] == pytest.approx(2.2)
    assert refused.verdict == "refused" and "no pointing" in refused.message and words in refused.message
    assert bias.verdict == "ok" and bias.wcs is None


# ---- verdicts ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, verdict, words", [
    ({"FILTER": None}, "refused", "no key FILTER for band"),
    ({"EXPTIME": None}, "refused", "no key EXPTIME for exposure_time"),
    ({"IMGTYPE": "FOCUS"}, "refused", "kind is 'FOCUS', the camera knows OBJECT, BIAS, FLAT"),
    ({"FILTER": "Halpha"}, "refused", "band 'Halpha' is not one of"),
    ({"EXPTIME": "long"}, "refused", "exposure_time is 'long'"),
    ({"AIRMASS": None}, "fixed", "no key AIRMASS: airmass taken as 1.0"), ({}, "ok", ""),
])
def test_verdicts_of_headers(tmp_path, changes, verdict, words):
    (entry,) = examine(write_detector(tmp_path, **changes), camera())
    assert entry.verdict == verdict and words in entry.message and "\n" not in entry.message
    assert str(tmp_path) not in entry.message  # the entry has the path


def test_wrong_size(tmp_path):
    path = tmp_path / "raw_7_D0.fits"
    write_fits(path, [(None, cards()), (segments()[0], {}), (segments()[1][:-2], {})])
    (entry,) = examine(path, camera())
    assert entry.verdict == "refused" and "HDU 2 is 32 x 14 pixels, camera tiny has 32 x 16" in entry.message
    write_fits(path, [(None, cards()), (segments()[0], {})])
    (entry,) = examine(path, camera())
    assert entry.verdict == "refused" and "has 2 HDUs, camera tiny reads HDU 2" in entry.message


def test_gain_of_nothing(tmp_path):
    write_fits(tmp_path / "raw_7_D0.fits", [(None, cards()), (segments()[0], {"GAIN": 0.0}), (segments()[1], {})])
    (entry,) = examine(tmp_path / "raw_7_D0.fits", camera())
    assert entry.verdict == "refused" and "gain of amplifier A is 0.0" in entry.message


def test_one_bad_file_stops_nothing(tmp_path):
    """Truncated, no FITS, an unknown detector, a broken link, among good ones."""
    write_detector(tmp_path, 1)
    whole = write_detector(tmp_path, 2).read_bytes()
    (tmp_path / "raw_3_D0.fits").write_bytes(whole[:9000])
    (tmp_path / "raw_4_D0.fits").write_text("not at all")
    write_detector(tmp_path, 5, "D7")
    (tmp_path / "raw_6_D0.fits").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("what the observer saw")
    found = {entry.path.name: entry for entry in scan(tmp_path, camera())}
    assert [name for name, entry in found.items() if entry.usable] == ["raw_1_D0.fits", "raw_2_D0.fits"]
    for number, words in ((3, "truncated: a header has no end"), (4, "not a FITS file"),
                          (5, "no detector D7; it has D0, D1"), (6, "cannot be read")):
        entry = next(entry for name, entry in found.items() if name.startswith(f"raw_{number}"))
        assert entry.verdict == "refused" and words in entry.message, entry.message


def test_contradictions(tmp_path):
    """Two files of the same pixels; two meanings of one visit: the first by name stays."""
    write_detector(tmp_path, 1)
    (tmp_path / "raw_1_D0.fits.gz").write_bytes(gzip.compress((tmp_path / "raw_1_D0.fits").read_bytes()))
    write_detector(tmp_path, 1, "D1", FILTER="g")
    write_detector(tmp_path, 2)
    write_detector(tmp_path, 2, "D1", MJD=60001.0)
    messages = {entry.path.name: entry.message for entry in scan(tmp_path, camera()) if not entry.usable}
    assert list(messages) == ["raw_1_D0.fits.gz", "raw_1_D1.fits", "raw_2_D1.fits"]
    assert "the same visit 1 and detector D0 as" in messages["raw_1_D0.fits.gz"]
    assert "visit 1 is science g here and science r in raw_1_D0.fits" in messages["raw_1_D1.fits"]
    assert "visit 2 was taken at another time than in raw_2_D0.fits" in messages["raw_2_D1.fits"]


def test_nothing_there(tmp_path):
    (tmp_path / "other.fits").write_text("")
    with pytest.raises(ConfigError, match="no raw files match .* in .*1 other files"):
        scan([tmp_path], camera())
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        scan([tmp_path / "nowhere"], camera())


def test_places(tmp_path):
    """Folders with all below them, glob patterns, files."""
    for name in ("a", "a/b", "c"):
        (tmp_path / name).mkdir()
        write_detector(tmp_path / name, len(name))

    def found(*places):
        return sorted(str(path.parent.relative_to(tmp_path))
                      for path in find_files([tmp_path / place for place in places], camera()))
    assert found(".") == ["a", "a/b", "c"] and found("a") == ["a", "a/b"] and found("*/*.fits") == ["a", "c"]
    assert found("**/*.fits", "c/raw_1_D0.fits") == ["a", "a/b", "c"]


# ---- reading -------------------------------------------------------------------------------------------------------

def test_missing_amplifier_file(tmp_path):
    write_amplifiers(tmp_path)[1].unlink()
    files = scan(tmp_path, camera("amplifier"))
    with pytest.raises(BadData, match="visit 7 detector D0: no file for amplifier B; fetch it or leave the detector"):
        read_raw_detector(files, camera("amplifier"), "D0")
    with pytest.raises(BadData, match="detector D1: no usable raw file"):
        read_raw_detector(files, camera("amplifier"), "D1")


@pytest.mark.parametrize("change, words", [
    (lambda path: path.unlink(), "cannot be read"),
    (lambda path: path.write_bytes(path.read_bytes()[:6000]), "truncated"),
    (lambda path: write_detector(path.parent, 8, name=path.name), "has changed since it was ingested; run ingest"),
])
def test_changed_after_the_scan(tmp_path, change, words):
    path = write_detector(tmp_path)
    files = scan(tmp_path, camera())
    change(path)
    with pytest.raises(BadData, match=words) as caught:
        read_raw_detector(files, camera(), "D0")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", (False, True))
def test_flipped_bytes(tmp_path, packed):
    """Whatever is broken in a file, the answer is a verdict or a BadData of one line, soon."""
    path = write_detector(tmp_path)
    good = path.read_bytes()
    described = camera()
    for seed in range(150):
        rng = random.Random(seed)
        content = bytearray(good)
        for _ in range(rng.choice((1, 3, 20, 200))):  # mostly in the headers, where it hurts
            place = rng.randrange(len(content) if rng.random() < 0.2 else 3000)
            content[place] = rng.choice((rng.randrange(256), 0x20, 0x39))
        content = content[:rng.randrange(len(content))] if rng.random() < 0.2 else content
        if packed:
            content = bytearray(gzip.compress(content, 1))
            content[rng.randrange(len(content))] ^= rng.choice((0, 1, 128))
        path.write_bytes(content)
        start = time.perf_counter()
        files = examine(path, described)
        assert all(entry.verdict in ("ok", "fixed") or entry.message for entry in files)
        try:
            read_raw_detector(files, described, "D0")
        except (BadData, ConfigError) as error:
            assert str(error) and "\n" not in str(error)
        assert time.perf_counter() - start < 5.0
