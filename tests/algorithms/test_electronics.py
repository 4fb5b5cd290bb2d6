"""detrend with products of the electronics: closed loops with known truth, and products that do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from reference import electronics as reference

from rawdetector import EXPOSURE, GAINS, NOISE, NX, NY, a_raw
from rsp_hpc.algorithms.crosstalk import foreign_detectors
from rsp_hpc.algorithms.detrend import DetrendConfig, assemble, detrend, prepare_calibration
from rsp_hpc.algorithms.linearity import natural_spline
from rsp_hpc.errors import BadData
from rsp_hpc.kernels.electronics import Electronics
from rsp_hpc.products.calibration import Calibration
from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.electronics import ChargeTransfer, Crosstalk, Linearity, PhotonTransfer
from rsp_hpc.products.exposure import RawDetector
from rsp_hpc.products.mask import bits

LEVELS = (1e2, 1e3, 1e4, 5e4, 1.2e5)
DETECTORS = ("r01_s11", "r03_s21", "r22_s00", "r22_s11", "r43_s20")


def matrix_of(folder) -> Crosstalk:
    """The measured matrix of an LSSTCam detector: one row of lists in an ECSV table."""
    header, row = [line for line in (folder / "crosstalk.ecsv").read_text().splitlines() if line and line[0] != "#"][:2]
    values = dict(zip(header.split(), (np.array(json.loads(item)) for item in row.split(" "))))
    names = tuple(f"A{i}" for i in range(16))
    return Crosstalk(names, names, values["CT_COEFFS"].reshape(16, 16), values["CT_ERRORS"].reshape(16, 16),
                     values["CT_COEFFS_SQR"].reshape(16, 16), values["CT_COUNTS"].reshape(16, 16))


def sixteen(nx=40, ny=24) -> Detector:
    """Sixteen amplifiers in 8 x 2, flipped as those of LSSTCam are; every second one stands in the file as it lies on the sky."""
    amplifiers = []
    for i in range(16):
        backwards = i % 2 == 1
        data, overscan, prescan = ((14, 0, nx, ny), (0, 0, 14, ny), (14 + nx, 0, 6, ny)) if backwards else \
            ((6, 0, nx, ny), (6 + nx, 0, 14, ny), (0, 0, 6, ny))
        amplifiers.append(Amplifier(name=f"A{i}", section=(0, 0, nx + 20, ny), data=data, serial_overscan=overscan, prescan=prescan,
                                    origin=(nx * (i % 8), ny * (i // 8)), flip_x=(i < 8) != backwards, flip_y=i >= 8,
                                    gain=1.4 + 0.02 * i, read_noise=5.0, saturation=1e9))
    return Detector(name="D", id=0, size=(8 * nx, 2 * ny), amplifiers=tuple(amplifiers))


def read_out(charges, detector: Detector, crosstalk=None, bent=None, transfer=None) -> RawDetector:
    """Noiseless segments of charges (ny, nx) per amplifier in read-out order: the physics forward, in double precision."""
    read = [charge if transfer is None else reference.deferred(charge, transfer[i]) for i, charge in enumerate(charges)]
    read = [charge if bent is None else bent(i, charge) for i, charge in enumerate(read)]
    if crosstalk is not None:
        stack = np.array(read)
        read = [stack[i] + np.tensordot(crosstalk.coefficient[i], stack, 1) + np.tensordot(crosstalk.quadratic[i], stack**2, 1)
                for i in range(len(stack))]
    segments = []
    for amplifier, charge in zip(detector.amplifiers, read):
        segment = np.full((amplifier.section[3], amplifier.section[2]), 1000.0)
        x0, y0, nx, ny = amplifier.data
        backwards = amplifier.read_backwards[0]
        segment[y0:y0 + ny, x0:x0 + nx] += charge[:, ::-1 if backwards else 1] / amplifier.gain
        segments.append(segment.astype(np.float32))
    return RawDetector(EXPOSURE, detector, tuple(segments), name="f.fits")


def assembled(charges, detector: Detector) -> np.ndarray:
    """Where the charges belong."""
    return assemble(read_out(charges, detector), DetrendConfig(overscan_skip=0)).image


def scene(level: float, n=16, nx=40, ny=24, seed=0) -> list[np.ndarray]:
    """Sky with stars that reach a level, other ones in each amplifier."""
    rng = np.random.default_rng(seed)
    charges = [np.full((ny, nx), 50.0) + rng.uniform(0, 5, (ny, nx)) for _ in range(n)]
    for charge in charges:
        for _ in range(6):
            charge[rng.integers(ny), rng.integers(nx)] = level * rng.uniform(0.7, 1.0)
    return charges


@pytest.mark.data
@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("level", LEVELS)
def test_ghosts_of_real_matrices_are_removed(rsp_data, name, level):
    """Residual below 10 % of the effect and below the read noise at every level, with the quadratic terms as measured."""
    detector, matrix = sixteen(), matrix_of(rsp_data / "lsstcam-tables" / name)
    charges = scene(level)
    truth = assembled(charges, detector)
    raw = read_out(charges, detector, matrix)
    config = DetrendConfig(overscan_skip=0)
    effect = np.abs(detrend(raw, Calibration(), config).image - truth).max()
    residual = np.abs(detrend(raw, Calibration(crosstalk=matrix), config).image - truth).max()
    print(f"crosstalk {name} {level:.0f} electron: ghosts up to {effect:.3g}, left {residual:.2g} electron")
    assert effect > 0.0 and residual < 0.1 * effect and residual < 0.5


def test_ghosts_come_from_the_pixel_read_at_the_same_moment():
    detector = sixteen()
    charges = [np.zeros((24, 40)) for _ in range(16)]
    charges[3][5, 7] = 1e5
    coefficient = np.zeros((16, 16))
    coefficient[[0, 1, 9, 10], 3] = 1e-3
    names = tuple(f"A{i}" for i in range(16))
    matrix = Crosstalk(names, names, coefficient, coefficient * 0, coefficient * 0, np.zeros((16, 16), np.int64))
    raw = read_out(charges, detector, matrix)
    config = DetrendConfig(overscan_skip=0)
    ghosts = detrend(raw, Calibration(), config).image - assembled(charges, detector)
    assert np.count_nonzero(np.abs(ghosts) > 50) == 4
    cleaned = detrend(raw, Calibration(crosstalk=matrix), config).image
    np.testing.assert_allclose(cleaned, assembled(charges, detector), atol=0.02)


def test_saturated_sources_flag_their_ghosts_and_other_detectors_speak_too():
    detector = sixteen()
    limited = tuple(amplifier.model_copy(update={"saturation": 5e4}) for amplifier in detector.amplifiers)
    limited = detector.model_copy(update={"amplifiers": limited})
    charges, far = scene(1e4), scene(4e4, seed=5)
    charges[4][3, 3] = 9e4
    names = tuple(f"A{i}" for i in range(16))
    coefficient = np.zeros((16, 17))
    coefficient[2, 4], coefficient[7, 16] = 2e-4, 3e-4
    product = Crosstalk(names, (*names, "E/A5"), coefficient, coefficient * 0, coefficient * 0, np.zeros((16, 17), np.int64))
    ghostly = [charge.copy() for charge in charges]
    ghostly[2] += 2e-4 * charges[4]
    ghostly[7] += 3e-4 * far[5]
    raw = read_out(ghostly, limited)
    other = replace(read_out(far, sixteen()), detector=sixteen().model_copy(update={"name": "E"}))
    config, calibration = DetrendConfig(overscan_skip=0), Calibration(crosstalk=product)
    image = detrend(replace(raw, others={"E": other}), calibration, config)
    np.testing.assert_allclose(image.image, assembled(charges, detector), atol=0.05)
    assert np.count_nonzero(image.mask & bits("CROSSTALK")) == 1 and np.count_nonzero(image.mask & bits("SAT")) == 1
    assert foreign_detectors(product, "D") == ("E",)
    with pytest.raises(BadData, match="comes from detector E, whose raw frame of visit 1 is not there"):
        detrend(raw, calibration, config)


@pytest.mark.parametrize("method", ("spline", "polynomial"))
def test_charges_become_proportional_to_light(method):
    """The inverse of the correction forward, by bisection; residual below 10 % of the effect and a hundredth of the read noise."""
    detector = sixteen()
    names, level = tuple(f"A{i}" for i in range(16)), np.linspace(0.0, 1.5e5, 12)
    shape = (level / 1e5)**2 * (1.0 if method == "polynomial" else np.cos(level / 3e4))
    bend = np.stack([(200.0 + 20 * i) * shape for i in range(16)])
    product = Linearity(names, np.tile(level, (16, 1)), bend, bend * 0, method)

    def bent(i, charge):
        spline, low, high = natural_spline(level, bend[i]), np.zeros_like(charge), np.full_like(charge, 2e5)
        for _ in range(60):
            middle = 0.5 * (low + high)
            above = middle + spline(middle) > charge
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return 0.5 * (low + high)

    for peak in LEVELS:
        charges = scene(peak)
        raw = read_out(charges, detector, bent=bent)
        truth, config = assembled(charges, detector), DetrendConfig(overscan_skip=0)
        effect = np.abs(detrend(raw, Calibration(), config).image - truth).max()
        residual = np.abs(detrend(raw, Calibration(linearity=product), config).image - truth).max()
        print(f"linearity {method} {peak:.0f} electron: effect {effect:.3g}, left {residual:.2g} electron")
        assert residual < 0.1 * effect and residual < 0.05


def test_deferred_charge_goes_back():
    """As bad as the worst of LSSTCam; residual below 10 % of the effect and a tenth of the read noise at every level."""
    detector, n = sixteen(), 16
    names = tuple(f"A{i}" for i in range(n))
    product = ChargeTransfer(names, np.full(n, 1e-5), np.zeros(n), np.full(n, 3e-4), np.full(n, 2.0), np.full(n, 8.0),
                             np.full(n, 3000.0), np.full(n, 1.5))
    model = [Electronics(prescan=6, inefficiency=1e-5, offset_scale=3e-4, offset_fade=np.exp(-0.5), trap_size=8.0,
                         trap_level=3000.0, trap_keep=np.exp(-1 / 1.5))] * n
    for peak in LEVELS:
        charges = scene(peak)
        raw, truth = read_out(charges, detector, transfer=model), assembled(charges, detector)
        config = DetrendConfig(overscan_skip=0)
        effect = np.abs(detrend(raw, Calibration(), config).image - truth).max()
        residual = np.abs(detrend(raw, Calibration(charge_transfer=product), config).image - truth).max()
        print(f"charge transfer {peak:.0f} electron: effect {effect:.3g}, left {residual:.2g} electron")
        assert residual < 0.1 * effect and residual < 0.5
    off = DetrendConfig(overscan_skip=0, charge_transfer={"apply": False})
    left = detrend(raw, Calibration(charge_transfer=product), off)
    np.testing.assert_array_equal(left.image, detrend(raw, Calibration(), config).image)


def ptc_of(gain, read_noise=NOISE, full_well=np.nan, names=("A0", "A1", "A2", "A3")) -> PhotonTransfer:
    n = len(names)
    values = {name: np.broadcast_to(np.asarray(value, float), (n,)).copy() for name, value in
              (("gain", gain), ("read_noise", read_noise), ("full_well", full_well))}
    known = {"amplifiers": tuple(names), **values}
    return PhotonTransfer(**known, **{name: None for name in PhotonTransfer.__dataclass_fields__
                                      if name not in known})


def test_photon_transfer_gives_gains_noise_and_full_well():
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0))
    raw.segments[0][12, 14], raw.segments[0][13, 14], raw.segments[1][12, 14] = 32000, 30500, 32000
    image = detrend(raw, Calibration(ptc=ptc_of(np.multiply(GAINS, 1.1), 9.0, (30000.0, np.nan, np.nan, np.nan))),
                    DetrendConfig(suspect=0.98))
    plain = detrend(raw, Calibration(), DetrendConfig())
    np.testing.assert_allclose(image.image, 1.1 * plain.image, rtol=1e-3, atol=0.01)
    assert image.variance[0, 0] - image.image[0, 0] == pytest.approx(81, abs=3)
    assert image.mask[10, 10] == bits("SAT") and image.mask[11, 10] == bits("SUSPECT") and np.count_nonzero(image.mask) == 2
    assert not plain.mask.any()
    assert detrend(raw, Calibration(ptc=ptc_of(9.0)), DetrendConfig(photon_transfer=False)).image[0, 0] == plain.image[0, 0]
    amplifiers = (raw.detector.amplifiers[0].model_copy(update={"suspect": 31000.0}), *raw.detector.amplifiers[1:])
    camera = replace(raw, detector=raw.detector.model_copy(update={"amplifiers": amplifiers}))
    assert detrend(camera, Calibration(), DetrendConfig()).mask[10, 10] == bits("SUSPECT")


def test_dither_depends_on_exposure_detector_and_amplifier_only():
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0))
    config = DetrendConfig(dither=True)
    one = detrend(raw, Calibration(), config)
    assert one.image.tobytes() == detrend(raw, Calibration(), config).image.tobytes()
    plain = detrend(raw, Calibration(), DetrendConfig())
    change = (one.image - plain.image)[:NY, :NX] / GAINS[0]
    assert np.abs(change).max() <= 0.5001 and np.std(change) == pytest.approx(12**-0.5, rel=0.02)
    assert (one.variance - plain.variance)[0, 0] - (one.image - plain.image)[0, 0] == pytest.approx(GAINS[0]**2 / 12, rel=0.02)
    later = detrend(replace(raw, exposure=replace(EXPOSURE, visit=2)), Calibration(), config)
    assert np.abs(np.corrcoef((later.image - plain.image)[:NY, :NX].ravel(), change.ravel())[0, 1]) < 0.05


def test_prepared_and_plain_calibration_agree_with_electronics():
    detector, matrix = sixteen(), np.full((16, 16), 1e-4) * (1 - np.eye(16))
    names = tuple(f"A{i}" for i in range(16))
    shape = detector.box.shape
    calibration = Calibration(np.full(shape, 2, np.float32), None, np.full(shape, 0.9, np.float32),
                              crosstalk=Crosstalk(names, names, matrix, matrix * 0, matrix * 0, np.zeros((16, 16), np.int64)))
    raw, config = read_out(scene(1e4), detector), DetrendConfig(overscan_skip=0)
    one, two = detrend(raw, calibration, config), detrend(raw, prepare_calibration(calibration, 31.0, raw, config), config)
    np.testing.assert_allclose(two.image, one.image, rtol=1e-6, atol=1e-4)
    np.testing.assert_array_equal(two.mask, one.mask)


def products() -> SimpleNamespace:
    names, n = ("A0", "A1", "A2", "A3"), 4
    table = np.full((n, n), 1e-4)
    level = np.tile(np.linspace(0, 1e5, 5), (n, 1))
    return SimpleNamespace(
        crosstalk=Crosstalk(names, names, table, table * 0, table * 0, np.zeros((n, n), np.int64)),
        linearity=Linearity(names, level, 1e-3 * level, level * 0),
        charge_transfer=ChargeTransfer(names, *(np.full(n, value) for value in (1e-6, 0.0, 1e-4, 2.0, 5.0, 900.0, 1.5))))


def _with(array: np.ndarray, at, value: float) -> np.ndarray:
    array = array.copy()
    array[at] = value
    return array


@pytest.mark.parametrize("spoil, message", (
    (lambda p: {"crosstalk": replace(p.crosstalk, amplifiers=("C00", "C01", "C02", "C03"), sources=("C00", "C01", "C02", "C03"))},
     "matrix is of amplifiers C00, C01, C02, C03, the detector has A0, A1, A2, A3; certify the matrix of this camera"),
    (lambda p: {"crosstalk": replace(p.crosstalk, sources=("A0", "A1", "A2", "B9"))}, "has a source B9"),
    (lambda p: {"crosstalk": replace(p.crosstalk, coefficient=_with(p.crosstalk.coefficient, (1, 2), np.nan))}, "not a number"),
    (lambda p: {"crosstalk": replace(p.crosstalk, coefficient=p.crosstalk.coefficient[:3])}, r"is \(3, 4\), not \(4, 4\)"),
    (lambda p: {"crosstalk": replace(p.crosstalk, coefficient=p.crosstalk.coefficient * 1e4)}, "no crosstalk"),
    (lambda p: {"linearity": replace(p.linearity, amplifiers=("C0", "C1", "C2", "C3"))}, "linearity has no amplifier A0"),
    (lambda p: {"linearity": replace(p.linearity, correction=_with(p.linearity.correction, (2, 2), np.nan))},
     "amplifier A2 is not finite"),
    (lambda p: {"linearity": replace(p.linearity, level=p.linearity.level[:, ::-1])}, "do not ascend"),
    (lambda p: {"charge_transfer": replace(p.charge_transfer, amplifiers=("C0", "C1", "C2", "C3"))},
     "charge transfer has no amplifier A0"),
    (lambda p: {"charge_transfer": replace(p.charge_transfer, inefficiency=np.full(4, np.nan))}, "inefficiency of its .* is nan"),
    (lambda p: {"charge_transfer": replace(p.charge_transfer, trap_level=np.full(4, 3.0))}, "filled by only 3"),
    (lambda p: {"ptc": ptc_of((1.0, np.nan, 1.0, 1.0))}, "gain of amplifier A1 is nan in the photon transfer"),
    (lambda p: {"ptc": ptc_of(1.0, names=("C0", "C1", "C2", "C3"))}, "photon transfer has no amplifier A0"),
    (lambda p: {"ptc": ptc_of(1.5, full_well=-3.0)}, "saturation at .* is not above its overscan .* mend the photon transfer"),
))
def test_products_that_do_not_fit_are_refused(spoil, message):
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0))
    with pytest.raises(BadData, match=message) as caught:
        detrend(raw, Calibration(**spoil(products())), DetrendConfig())
    assert "\n" not in str(caught.value) and "detector D" in str(caught.value) or "amplifier A" in str(caught.value)
    assert np.isfinite(detrend(raw, Calibration(**vars(products())), DetrendConfig()).image).all()


def _changed(raw: RawDetector, **values) -> RawDetector:
    amplifiers = tuple(a.model_copy(update=values) for a in raw.detector.amplifiers)
    return replace(raw, detector=raw.detector.model_copy(update={"amplifiers": amplifiers}))


@pytest.mark.parametrize("change, config, message", (
    (lambda raw: _changed(raw, serial_overscan=None), {"overscan": "median"}, "A0 has no overscan and no prescan"),
    (lambda raw: _changed(raw, parallel_overscan=None), {"parallel_overscan": "spline"}, "A0 has no parallel overscan"),
    (lambda raw: _changed(raw, serial_overscan=(130, 0, 2, 100)), {}, "overscan is 2 columns wide and the first 2 are left out"),
    (lambda raw: _changed(raw, serial_overscan=(120, 0, 40, 100)), {}, "2 of the 38 columns of its overscan hold light"),
    (lambda raw: replace(raw, segments=tuple(_with(s, (slice(None), slice(130, None)), 0) for s in raw.segments)), {},
     "nothing but zeros"),
    (lambda raw: _changed(raw, saturation=1001.0), {}, "below saturation|not above its overscan"),
))
def test_overscan_that_is_not_there_is_refused(change, config, message):
    raw = change(a_raw(np.full((2 * NY, 2 * NX), 2000.0)))
    with pytest.raises(BadData, match=message) as caught:
        detrend(raw, Calibration(), DetrendConfig(**config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ("row", "median", "spline"))
def test_overscan_follows_the_drift_and_forgives_outliers(method):
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0))
    for segment in raw.segments:
        segment[60:62, 133:] = 9000
        segment[::7, 140] += 500
    image = detrend(raw, Calibration(), DetrendConfig(overscan=method, overscan_knots=20)).image[:NY, :NX]
    assert np.sqrt(np.mean((image.mean(axis=1) - 200)**2)) < 2.4  # Poisson noise of 120 pixels: 1.3, of the level 1.2
    assert abs(image.mean() - 200) < 0.6


@pytest.mark.parametrize("method", ("column", "mean", "median", "spline"))
def test_parallel_overscan_methods(method):
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0))
    glow = np.zeros(160)
    glow[4:4 + NX] = np.linspace(0, 40, NX)
    segments = tuple((segment + np.rint(glow)).astype(np.uint16) for segment in raw.segments)
    segments[0][93:, 50] = 5000
    image = detrend(replace(raw, segments=segments), Calibration(), DetrendConfig(parallel_overscan=method, overscan_knots=40))
    columns = image.image[:NY, :NX].mean(axis=0)
    assert abs(np.polyfit(np.arange(NX), columns, 1)[0] * NX) < 6
    assert abs(columns[46] - columns.mean()) < 12
