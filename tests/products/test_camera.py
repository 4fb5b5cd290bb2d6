"""Camera descriptions: the six that are shipped, tiling, geometry, and mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsp_hpc.config import load_yaml
from rsp_hpc.errors import ConfigError
from rsp_hpc.products.camera import load_camera

CAMERAS = Path(__file__).resolve().parents[2] / "configs" / "cameras"
NAMES = ("arcsat", "labcam", "lco-sinistro", "lsst-phosim", "lsstcam", "sdss-fpc", "simcam")

SMALL = """
name: small
pixel_scale: 0.2
bands: [g]
detector_types:
  ccd:
    size: [20, 10]
    amplifier: {section: [0, 0, 12, 10], data: [1, 0, 10, 10]}
    amplifier_rows:
      - {names: [A, B], origin: [0, 0], step: [10, 0], hdu: 1, hdu_step: 1}
detectors:
  - {name: D, id: 0, type: ccd, amplifiers: {B: {gain: 2.5}}}
layout: {kind: detector, pattern: '(\\d+)'}
header: {visit: {key: V}, kind: {value: science}, mjd: {key: M, unit: mjd}, exposure_time: {key: T}}
"""


def load(text: str, tmp_path: Path):
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    return load_camera(load_yaml(path))


@pytest.fixture(scope="module")
def cameras():
    return {name: load_camera(load_yaml(CAMERAS / f"{name}.yaml")) for name in NAMES}


def test_all_cameras_load_under_their_file_name(cameras):
    assert sorted(path.stem for path in CAMERAS.glob("*.yaml")) == sorted(NAMES)
    for name, camera in cameras.items():
        assert camera.name == name


def test_amplifiers_cover_each_pixel_exactly_once(cameras):
    for camera in cameras.values():
        seen = set()
        for detector in camera.detectors:
            layout = tuple(amplifier.assembled_box for amplifier in detector.amplifiers)
            if layout in seen:
                continue
            seen.add(layout)
            count = np.zeros(detector.box.shape, np.uint8)
            for box in layout:
                count[box.slices(detector.box)] += 1
            assert (count == 1).all(), (camera.name, detector.name)


def test_lsstcam_is_the_real_one(cameras):
    camera = cameras["lsstcam"]
    assert len(camera.detectors) == 189
    assert sum(len(detector.amplifiers) for detector in camera.detectors) == 3024
    assert [detector.id for detector in camera.detectors] == list(range(189))
    for name, number in (("R01_S00", 0), ("R01_S11", 4), ("R03_S21", 25), ("R22_S00", 90), ("R22_S11", 94), ("R43_S20", 186)):
        assert camera.detector(name).id == number
    assert camera.detector("R22_S11").center == (0.0, 0.0) and camera.detector("R22_S11").size == (4096, 4004)
    assert camera.detector("R43_S22").center == (169.25, 296.25) and camera.detector("R43_S22").size == (4072, 4000)
    corner = max(np.hypot(*detector.center) for detector in camera.detectors)
    assert 330.0 < corner < 350.0  # mm: the focal plane is 634 mm across its flats, 700 mm over the corners


def test_sensors_of_a_camera_do_not_overlap(cameras):
    for name in ("lsstcam", "simcam"):
        camera = cameras[name]
        centers = np.array([detector.center for detector in camera.detectors])
        half = np.array([detector.size for detector in camera.detectors]) * camera.pixel_size * 0.5e-3
        for k in range(len(centers)):
            gap = np.abs(centers - centers[k]) - half - half[k]
            assert (gap.max(axis=1)[np.arange(len(centers)) != k] > 0).all()


def test_short_forms_expand(tmp_path):
    camera = load(SMALL, tmp_path)
    first, second = camera.detectors[0].amplifiers
    assert (first.name, first.hdu, first.origin, first.gain) == ("A", 1, (0, 0), 1.0)
    assert (second.name, second.hdu, second.origin, second.gain) == ("B", 2, (10, 0), 2.5)


def test_gain_follows_the_band(cameras):
    detector = cameras["sdss-fpc"].detectors[0]
    assert [detector.in_band(band).amplifiers[0].gain for band in "ugriz"] == [1.6, 3.995, 4.76, 4.885, 4.775]
    assert cameras["arcsat"].detectors[0].in_band("g").amplifiers[0].gain == 1.3


@pytest.mark.parametrize("change, message", [
    (("step: [10, 0]", "step: [9, 0]"), "amplifiers A and B overlap"),
    (("size: [20, 10]", "size: [21, 10]"), "leave a gap"),
    (("step: [10, 0]", "step: [11, 0]"), "amplifier B .* leaves"),
    (("data: [1, 0, 10, 10]", "data: [3, 0, 10, 10]"), r"detectors\.0\.amplifiers\.0: .*data .* leaves"),
    (("data: [1, 0, 10, 10]", "data: [1, 0, -10, 10]"), r"amplifiers\.0\.data: .*positive"),
    (("data: [1, 0, 10, 10]", "data: [1, 0, 1e9, 10]"), r"amplifiers\.0\.data"),
    (("gain: 2.5", "gain: -1"), r"amplifiers\.1\.gain"),
    (("gain: 2.5", "gian: 1"), r"gian: unknown; did you mean gain"),
    (("type: ccd", "type: cdc"), "no detector type cdc; there are ccd"),
    (("{B: {gain: 2.5}}", "{C: {gain: 2.5}}"), "type ccd has no such amplifier; it has A, B"),
    (("step: [10, 0]", "step: x"), r"amplifier_rows\.0\.step: must be a list of 2"),
    (("names: [A, B]", "names: [A, A]"), "is used twice: A"),
    (("size: [20, 10]", "size: [20, 10, 3]"), r"detectors\.0\.size"),
    (("pattern: '(\\d+)'", "pattern: '(\\d+'"), "layout.pattern: .*regular expression"),
    (("pattern: '(\\d+)'", "pattern: 'x'"), "layout.pattern: .*group"),
    (("kind: {value: science}, ", ""), r"header\.kind: missing"),
    (("visit: {key: V}", "visit: {key: V}, vist: {key: V}"), r"header\.vist: unknown"),
    (("unit: mjd", "unit: fortnight"), r"header\.mjd\.unit: .*must be one of"),
    (("detectors:\n  - {name: D, id: 0, type: ccd, amplifiers: {B: {gain: 2.5}}}", "detectors: []"), "at least one detector"),
    (("detectors:", "mosaic: 3\ndetectors:"), "not both"),
    (("name: small", "name: !!python/object/apply:os.system [ls]"), "not valid YAML"),
    (("name: small", "name: &a [*a]"), "name"),
    (("bands: [g]", "bands: [g]\nwcs_parity: 2"), "wcs_parity"),
])
def test_a_mistake_is_refused_with_its_path(change, message, tmp_path):
    assert change[0] in SMALL
    with pytest.raises(ConfigError, match=message):
        load(SMALL.replace(*change), tmp_path)


def test_lists_where_mappings_belong_are_refused():
    for values in ([], 3, {"detectors": {"a": 1}}, {"detectors": [3]}, {"detector_types": [1]}, {"mosaic": {"groups": 1}},
                   {"mosaic": {"sensors": {"S": [0, 0]}, "groups": {"R": {"center": ["a", 0]}}}}, {1: 2},
                   {"detector_types": {"t": {"amplifier": {}, "amplifiers": [{"name": "A"}], "nope": 1}}}):
        with pytest.raises(ConfigError):
            load_camera(values)
