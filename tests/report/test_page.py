"""The page: all sections render, hostile strings are escaped, nothing at all and half a run are shown honestly."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from report.synthetic import make_inputs
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.reference import ReferenceCatalogue
from rsp_hpc.report import page, plot_run, plot_sky
from rsp_hpc.report.config import ReportConfig
from rsp_hpc.report.inputs import Failure, Inputs, Picture, StageState, Timing
from rsp_hpc.report.metrics import Metric
from rsp_hpc.report.visits import VisitRow

HOSTILE = "<script>alert('x')</script>\"'&{{ 7*7 }}$\\frac{$\u202e\x00"


class Reader(HTMLParser):
    """Collects tags and the outside addresses they ask for."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.outside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        self.outside += [value for name, value in attributes if name in ("src", "href")
                         and not value.startswith(("data:", "#"))]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = page.make_report(make_inputs(), tmp_path_factory.mktemp("report"))
    return path, path.read_text(encoding="utf-8")


def test_the_page_is_one_small_offline_file(made):
    path, text = made
    reader = Reader(text)
    assert reader.open == [] and reader.outside == [] and "script" not in reader.tags
    assert not re.search("https?:|url\\(|@import", re.sub(r'src="data:[^"]*"', "", text))
    assert 10 <= reader.tags.count("img") <= 20 and path.stat().st_size < 5e6
    assert sorted(item.name for item in path.parent.iterdir()) == ["index.html", "metrics.json"]


def test_the_page_has_every_section_and_its_numbers(made):
    path, text = made
    for section in ("summary", "pictures", "objects", "counts", "visits", "failures", "run", "configuration",
                    "versions"):
        assert f'id="{section}"' in text and f'href="#{section}"' in text
    document = json.loads((path.parent / "metrics.json").read_text())
    rows = {(row["key"], row["band"]): row for row in document["metrics"]}
    assert rows["completeness_20_inf", ""]["value"] == 1.0 and rows["completeness_20_inf", ""]["ok"] is True
    assert rows["duplicates", ""]["value"] == 0.0
    assert abs(rows["flux_pull_width", "g"]["value"] - 1.0) < 4 * rows["flux_pull_width", "g"]["error"]
    assert document["failures"][0]["part"] == "S11" and "all pixels are saturated" in text


def test_nothing_at_all(tmp_path):
    text = page.make_report(Inputs("empty", missing=["visits: none finished yet"]), tmp_path).read_text()
    assert Reader(text).open == []
    assert "incomplete" in text and "visits: none finished yet" in text and "<img" not in text


def test_hostile_strings_are_text(tmp_path):
    row = VisitRow(1, HOSTILE, HOSTILE, 60000.0, np.array([[1.0, 1.0], [1.1, 1.0], [1.1, 1.1], [1.0, 1.1]]), None,
                   {"seeing": 1.0})
    inputs = Inputs(HOSTILE, (HOSTILE,), visits=[row], failures=[Failure(*[HOSTILE] * 5)],
                    states=[StageState(HOSTILE, 1, 2)],
                    timings=[Timing(HOSTILE, 0, {HOSTILE: 1.0})], configuration=HOSTILE, versions={HOSTILE: HOSTILE},
                    extra=[Metric(HOSTILE, HOSTILE, 1.0, 0.1, HOSTILE, HOSTILE, note=HOSTILE)], missing=[HOSTILE])
    text = page.make_report(inputs, tmp_path, ReportConfig(title=HOSTILE)).read_text(encoding="utf-8")
    assert "<script" not in text and "\x00" not in text and "\u202e" not in text
    assert "49" not in re.sub(r"&#\d+;|data:[^\"]*|<style>.*?</style>", "", text, flags=re.S)  # nothing was evaluated
    assert Reader(text).open == []
    json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))


def primary_stars(inputs):
    """The objects themselves as reference stars, 30 mas to the east and 1 % brighter."""
    objects = inputs.objects
    n, zero = len(objects), np.zeros(len(objects))
    shift = 0.030 / 3600 / np.cos(np.radians(objects["coord_dec"]))
    return ReferenceCatalogue(objects["coord_ra"] + shift, objects["coord_dec"], *[zero] * 6, 60000.0, np.ones(n, bool),
                              {"r": 1.01005 * objects["r_psfFlux"]}, {"r": zero + 1.0})


def test_real_data_without_truth_and_with_a_band_missing(tmp_path):
    inputs = make_inputs(pictures=False)
    inputs.truth, inputs.bands, inputs.visits = None, ("g", "r", "i", "z"), inputs.visits[:3]
    for row in inputs.visits:
        row.values.pop("true_zero_point")
    some = primary_stars(inputs)
    inputs.reference = some
    text = page.make_report(inputs, tmp_path).read_text()
    rows = {(row["key"], row["band"]): row for row in json.loads((tmp_path / "metrics.json").read_text())["metrics"]}
    assert abs(rows["reference_offset_east", ""]["value"] + 30.0) < 4 * rows["reference_offset_east", ""]["error"] + 1.0
    assert abs(rows["reference_magnitude_offset", "r"]["value"] - 10.857) < 0.05
    assert rows["reference_magnitude_scatter", "r"]["value"] < 0.01 and rows["reference_rms_north", ""]["value"] < 0.01
    assert len(inputs.objects) > rows["reference_rms_north", ""]["n"] > 100
    keys = {row["key"] for row in json.loads((tmp_path / "metrics.json").read_text())["metrics"]}
    assert {"duplicates", "depth", "zero_point_scatter", "astrometric_rms_east", "psf_size_residual"} <= keys
    assert not keys & {"completeness_5_7", "zero_point_bias", "spurious"}
    assert "with reservations" in text


def test_no_objects_in_the_catalogue(tmp_path):
    inputs = make_inputs(pictures=False)
    inputs.objects, inputs.visits = inputs.objects.rows(slice(0, 0)), []
    text = page.make_report(inputs, tmp_path).read_text()
    assert Reader(text).open == [] and "targets missed" in text  # 0 % complete


def test_an_unfinished_run_says_what_is_missing():
    inputs = Inputs("x", states=[StageState("visits", 3, 12, 1), StageState("coadds", 0, None)])
    verdict = page.verdict_of([Metric("a", "a", 1.0, 0.1, low=0.0)], inputs)
    assert verdict["kind"] == "open" and "visits 3/12" in verdict["text"]


@pytest.mark.parametrize("values, missing, kind", [
    ([1.0], [], "good"), ([1.0, float("nan")], [], "open"), ([1.0, -1.0], [], "bad"), ([], [], "open"),
    ([1.0], ["coadds"], "open")])
def test_the_verdict_is_good_only_if_all_was_measured_and_met(values, missing, kind):
    metrics = [Metric("a", "a", value, 0.1, low=0.0) for value in values]
    assert page.verdict_of(metrics, Inputs("x", missing=missing))["kind"] == kind


def test_numbers_are_rounded_to_their_error():
    assert page.number(1.23456, 0.0123) == "1.235 ± 0.012"
    assert page.number(12345.6, 78.0) == "12,346 ± 78"
    assert page.number(float("nan"), 1.0) == "–" and page.number(0.0) == "0" and page.number(0.123456) == "0.1235"


def test_terminal_lines_align():
    lines = page.metric_lines([Metric("a", "completeness", 0.5, 0.1, low=0.8),
                               Metric("b", "x", float("nan"), 0.1, high=1.0, band="r")])
    assert len(lines) == 2 and "MISSED" in lines[0] and "not measured" in lines[1]
    assert page.metric_lines([]) == []


def test_an_old_report_survives_a_failed_write(tmp_path, monkeypatch):
    page.make_report(Inputs("old"), tmp_path)
    monkeypatch.setattr("rsp_hpc.io.atomic.os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(BadData):
        page.make_report(Inputs("new"), tmp_path)
    assert "old" in (tmp_path / "index.html").read_text()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["index.html", "metrics.json"]


def test_colours():
    rng = np.random.default_rng(1)
    planes = [rng.normal(0, 1, (50, 60)) for _ in range(3)]
    planes[0][20:25, 20:25] += 500.0  # a red patch
    planes[1][:, 50:] = np.nan
    for plane in planes:
        plane[:, :3] = np.nan
    picture = plot_sky.colour_image(*planes)
    assert picture.shape == (50, 60, 3) and picture.min() >= 0 and picture.max() <= 1 and np.isfinite(picture).all()
    assert picture[22, 22, 0] > 0.9 > 0.3 > picture[22, 22, 2]
    assert (picture[:, :3] == picture[0, 0]).all()
    assert plot_sky.choose_rgb("grizy") == ("i", "r", "g") and plot_sky.choose_rgb(["u", "z"]) == ("z", "u", "u")
    assert plot_sky.choose_rgb(["clear"]) == ("clear",) * 3 and plot_sky.choose_rgb([]) is None


def test_a_picture_of_one_band_and_no_objects():
    inputs = make_inputs(pictures=False)
    picture = Picture("one", {"r": np.full((40, 30), np.nan, np.float32)}, Box(0, 0, 60, 80), 2, None)
    plot_sky.picture_figure(picture, None).canvas.draw()
    plot_sky.footprint_figure(inputs.visits[:1], []).canvas.draw()


def test_timing_rows():
    rows = plot_run.timing_rows([Timing("a", 0, {"compute": 3.0}), Timing("a", 1, {"compute": 1.0, "wait": 4.0})])
    assert rows[0] == {"stage": "a", "kind": "compute", "ranks": 2, "least": 1.0, "mean": 2.0, "most": 3.0,
                       "share": 0.5, "most_rank": 0}
