"""From products to the report's inputs: a folder in memory with coadds of known noise, then the files of a run."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from report.synthetic import gaussian, make_visit_detector
from rsp_hpc.errors import BadData
from rsp_hpc.io.paths import Store
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.coadd import Coadd
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits
from rsp_hpc.products.psf import CellPsf
from rsp_hpc.products.skymap import RingsSkyMap, SkyMapConfig
from rsp_hpc.report import collect as collecting
from rsp_hpc.report.collect import collect, join_objects, read_truth, stage_states, timings_of
from rsp_hpc.report.coadds import survey_coadds
from rsp_hpc.report.config import ReportConfig, TruthConfig
from rsp_hpc.report.folder import Folder
from rsp_hpc.report.inputs import Failure
from rsp_hpc.report.page import make_report

SKYMAP = RingsSkyMap(SkyMapConfig(num_rings=400, pixel_scale=0.5, patch_inner=300, patch_border=30, cell_size=150))
NOISE = {"g": 4.0, "r": 6.0}


def make_coadd(rng, patch, band):
    box = patch.outer
    image = MaskedImage(rng.normal(0.0, NOISE[band], box.shape).astype(np.float32), np.zeros(box.shape, np.uint32),
                        np.full(box.shape, NOISE[band] ** 2, np.float32), box, "nJy")
    image.mask[:40, :] |= np.uint32(bits("NO_DATA"))
    image.variance[:40, :], image.image[:40, :] = np.inf, np.nan
    counts = np.full(box.shape, 5, np.uint16)
    counts[:40, :] = 0
    n = -(-box.nx // 150)
    cells = np.broadcast_to(gaussian(21, 1.6), (n, n, 21, 21)).astype(np.float32)
    return Coadd(band, image, counts, CellPsf(cells, 150, box), np.ones((n, n), np.float32),
                 Catalogue([Column("visit", "i8", "", "")]))


class MemoryFolder:
    """Two patches of one tract in two bands, two visits, one of them with a damaged detector."""

    def __init__(self, number, patches):
        self.number, self.places = number, patches
        self.store = SimpleNamespace(config=None)

    def visits(self):
        return [1, 2]

    def detectors(self, visit):
        return ["S00", "bad"] if visit == 2 else ["S00"]

    def visit(self, visit, detector, pixels):
        if detector == "bad":
            raise BadData("visits/2.h5: damaged")
        made = make_visit_detector(np.random.default_rng(visit), visit)
        return dataclasses.replace(made, summary={"sky_electron": 500.0, "astrometric_rms_east_arcsec": 0.012})

    def tracts(self):
        return [self.number]

    def patches(self, tract):
        return [(patch, band) for patch in self.places for band in "gr"]

    def coadd(self, tract, patch, band):
        return make_coadd(np.random.default_rng(patch), SKYMAP.tract(tract).patch(patch), band)

    def object_tracts(self):
        return []

    def text(self, path):
        return "name: x"

    def failures(self):
        return [{"stage": "visits", "unit": "visit 2", "part": "S01", "error": "BadData", "message": "saturated"}]

    def timing(self):
        return []


@pytest.fixture(scope="module")
def field():
    number = int(SKYMAP.find_tract(150.0, 2.0))
    tract = SKYMAP.tract(number)
    middle = tract.shape[1] // 2
    first = middle * tract.shape[1] + middle
    return tract, MemoryFolder(number, [first, first + 1])


def truth_of(tract, patches, tmp_path, **more):
    """A FITS table of a grid of stars over the patches' outer boxes."""
    from rsp_hpc.io.fits import Hdu, write_fits

    boxes = [tract.patch(patch).outer for patch in patches]
    x, y = np.meshgrid(np.arange(boxes[0].x0, boxes[-1].x1, 25.0), np.arange(boxes[0].y0, boxes[0].y1, 25.0))
    ra, dec = tract.wcs.pixel_to_sky(x.ravel(), y.ravel())
    table = {"ra": ra, "dec": dec, "flux_g": np.full(len(ra), 200.0), "flux_r": np.full(len(ra), 300.0),
             "flux_r_err": np.ones(len(ra)), **more}
    write_fits(tmp_path / "truth.fits", [Hdu(table)])
    return x.ravel(), y.ravel()


def test_noise_at_the_truth_is_that_of_an_optimal_flux(field, tmp_path):
    tract, folder = field
    x, y = truth_of(tract, folder.places, tmp_path)
    truth = read_truth(tmp_path, TruthConfig(file="truth.fits"))
    assert sorted(truth.flux) == ["g", "r"] and truth.is_star.all()
    found = survey_coadds(folder, SKYMAP, truth, ReportConfig())
    expected = NOISE["r"] / np.sqrt((gaussian(21, 1.6) ** 2).sum())
    inner = [tract.patch(patch).inner for patch in folder.places]
    inside = np.any([box.contains(x, y) for box in inner], axis=0) & (y >= tract.patch(folder.places[0]).outer.y0 + 40)
    assert (found.usable == inside).all() and inside.sum() > 100
    assert_allclose(found.noise["r"][inside], expected, rtol=1e-4)
    assert np.isnan(found.noise["r"][~np.any([box.contains(x, y) for box in inner], axis=0)]).all()
    assert_allclose(found.psf_sigma["g"], 1.6 * 0.5, rtol=0.01)
    assert len(found.skies) == 4 and all(abs(sky.ratio.value - 1.0) < 4 * sky.ratio.error for sky in found.skies)


def test_pictures_keep_the_mean_and_know_their_place(field):
    tract, folder = field
    overview, close = survey_coadds(folder, SKYMAP, None, ReportConfig()).pictures
    inner = tract.patch(folder.places[0]).inner
    assert (overview.box.x0, overview.box.y0, overview.step) == (inner.x0, inner.y0 + 10,
                                                                 1)  # ten rows without data are cut
    assert overview.images["r"].shape == (290, 600) and close.images["g"].shape == (290, 300)
    pixels = folder.coadd(tract.number, folder.places[1], "g").image
    assert_allclose(overview.images["g"][100, 350], pixels.cutout(inner.shift(300, 0)).image[110, 50])


@pytest.mark.parametrize("step", (1, 3, 7))
def test_binning_of_parts_adds_up(step):
    from rsp_hpc.products.box import Box
    from rsp_hpc.report.coadds import _binned

    box = Box(10, 20, 50, 40)
    whole, total = np.random.default_rng(1).normal(size=(40, 50)), np.zeros((-(-40 // step), -(-50 // step)))
    for part in (Box(10, 20, 23, 40), Box(33, 20, 27, 17), Box(33, 37, 27, 23)):
        binned, top, left = _binned(whole[part.slices(box)], part, box, step)
        total[top:top + binned.shape[0], left:left + binned.shape[1]] += binned
    assert_allclose(total.sum(), whole.sum())
    assert_allclose(total[1, 2], whole[step:2 * step, 2 * step:3 * step].sum())


def test_collect_gathers_what_is_there_and_names_what_is_not(field, tmp_path):
    tract, folder = field
    truth_of(tract, folder.places, tmp_path)
    config = ReportConfig(truth="truth.fits", true_zero_points="none.fits")
    inputs = collect(folder, SKYMAP, tmp_path, config, "x", {"visits": 3})
    assert inputs.bands == ("g", "r") and len(inputs.visits) == 2 and len(inputs.patches) == 2
    row = inputs.visits[0]
    assert row["sky"] == 500.0 and row["astrometric_rms_east"] == 12.0 and np.isnan(row["true_zero_point"])
    assert_allclose(row["seeing"], 3.2 * 0.5, rtol=0.02)
    assert row.corners.shape == (4, 2) and len(row.psf.x) > 20
    text = " | ".join(inputs.missing)
    assert "visits/2.h5: damaged" in text and "objects: no tract" in text and "true zero points" in text
    assert (inputs.states[0].done, inputs.states[0].total, inputs.states[0].failed) == (2, 3, 1)
    assert "saturated" in make_report(inputs, tmp_path / "report", config).read_text()


def test_the_files_of_a_run(field, tmp_path):
    from rsp_hpc.io.coadd import CoaddWriter, encode_coadd
    from rsp_hpc.io.objects import ObjectsWriter
    from rsp_hpc.io.product import Header
    from rsp_hpc.io.visit import VisitWriter, encode_visit_detector

    tract, memory = field
    store = Store(tmp_path / "out")
    with VisitWriter(store.visit(1), Header("visit", "0")) as writer:
        writer.append(encode_visit_detector(memory.visit(1, "S00", True)))
    with CoaddWriter(store.coadds(tract.number), Header("coadds", "0"), tract) as writer:
        for patch, band in memory.patches(tract.number):
            writer.append(encode_coadd(patch, memory.coadd(tract.number, patch, band)))
    x, y = truth_of(tract, memory.places, tmp_path)
    truth = read_truth(tmp_path, TruthConfig(file="truth.fits"))
    rng = np.random.default_rng(1)
    arrays = {"coord_ra": truth.ra, "coord_dec": truth.dec, "tract": np.full(len(x), tract.number),
              "patch": tract.find_patch(x, y),
              "detect_isPrimary": np.ones(len(x), bool), "g_psfFlux": 200.0 + 22 * rng.normal(size=len(x)),
              "unwanted": np.zeros(len(x))}
    arrays["g_psfFluxErr"] = np.full(len(x), 22.0)
    kinds = {"tract": "i4", "patch": "i4", "detect_isPrimary": "?"}
    with ObjectsWriter(store.objects(tract.number), Header("objects", "0")) as writer:
        found = Catalogue([Column(name, kinds.get(name, "f8"), "", "") for name in arrays], arrays).rows(slice(None, None, 25))
        writer.append(found)  # few, so that there is blank sky between them
    config = ReportConfig(truth="truth.fits")
    inputs = collect(Folder(store), SKYMAP, tmp_path, config)
    assert inputs.missing == [] and len(inputs.visits) == 1 and len(inputs.pictures) == 2 and len(inputs.skies) == 4
    assert "unwanted" not in inputs.objects and len(inputs.objects) == len(found)
    assert len(inputs.visits[0].psf.x) > 20
    page = make_report(inputs, store.report, config)
    assert page == store.report_page and "completeness" in page.read_text()
    store.coadds(tract.number).write_bytes(b"not a product")
    assert any("coadds.h5" in line for line in collect(Folder(store), SKYMAP, tmp_path, config).missing)


def test_an_empty_folder_gives_a_page(tmp_path):
    inputs = collect(Folder(Store(tmp_path / "nothing")), SKYMAP, tmp_path, ReportConfig(truth="truth.fits"))
    assert {line.split(":")[0] for line in inputs.missing} == {"visits", "objects", "coadds", "truth"}
    assert "incomplete" in make_report(inputs, tmp_path / "report").read_text()


def test_tables_with_columns_of_other_names(tmp_path):
    from rsp_hpc.io.fits import Hdu, write_fits

    write_fits(tmp_path / "stars.fits", [Hdu({"RAJ": np.array([1.0]), "DEJ": np.array([2.0]), "rmag": np.array([20.0]),
                                                   "r_snr": np.array([9.0])})])
    config = TruthConfig(file="stars.fits", ra="RAJ", dec="DEJ", flux="{band}mag", kind="magnitude")
    truth = read_truth(tmp_path, config)
    assert_allclose(truth.flux["r"], 10 ** (0.4 * 11.4))
    assert truth.known_snr["r"].tolist() == [9.0] and truth.known_isolated == {}
    joined = collecting.join_truth([truth, read_truth(tmp_path, config.model_copy(update={"all_stars": False}))])
    assert joined.is_star.tolist() == [True, False] and len(joined.known_snr["r"]) == 2
    with pytest.raises(BadData, match="no column ra"):
        read_truth(tmp_path, TruthConfig(file="stars.fits"))


def test_objects_of_tracts_with_different_bands():
    first = Catalogue([Column("tract", "i4", "", ""), Column("g_psfFlux", "f8", "nJy", "")],
                      {"tract": [1], "g_psfFlux": [5.0]})
    second = Catalogue([Column("tract", "i4", "", ""), Column("r_psfFlux", "f8", "nJy", "")],
                       {"tract": [2], "r_psfFlux": [6.0]})
    both = join_objects([first, second])
    assert both["tract"].tolist() == [1, 2] and both["g_psfFlux"][0] == 5.0 and np.isnan(both["g_psfFlux"][1])


def test_timings():
    rows = [{"stage": "visits", "unit": "visit 1", "part": "S00", "rank": "0", "began": "100.0", "compute_s": "3.0",
             "read_s": "1.0"},
            {"stage": "visits", "unit": "visit 1", "part": "S01", "rank": "1", "began": "101.0", "compute_s": "9.0",
             "read_s": ""},
            {"stage": "coadds", "unit": "", "part": "", "rank": "x", "began": ""}]
    timings, spans = timings_of(rows)
    assert [(item.rank, item.seconds) for item in timings] == [(0, {"compute": 3.0, "read": 1.0, "wait": 6.0}),
                                                               (1, {"compute": 9.0, "wait": 1.0})]
    assert (spans[1].start, spans[1].end, spans[1].part) == (1.0, 10.0, "visit 1 S01")
    assert timings_of([]) == ([], [])


def test_states():
    failures = [Failure("visits", "visit 3", "S00", "BadData", ""), Failure("visits", "visit 3", "S01", "BadData", "")]
    assert stage_states({"visits": 4}, {"visits": 4}, failures)[0].failed == 0  # made, with parts missing
    assert stage_states({"visits": 3}, {"visits": 4}, failures)[0].failed == 1
