"""The sky frames of a camera's detectors are put on the camera's mean when they are chosen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rsp_hpc.algorithms.calibs.sky import SkyConfig
from rsp_hpc.io import calibration as io
from rsp_hpc.io.library import Choice, Library, assemble
from rsp_hpc.io.product import Header
from rsp_hpc.products.calibration import CombinedFrames
from rsp_hpc.products.electronics import Verdict
from rsp_hpc.products.kinds import CalibrationProduct
from rsp_hpc.stages.choose import Chooser


def test_the_scale_of_a_sky_frame(tmp_path):
    library, shape = Library(tmp_path), (30, 40)
    for detector, share in (("D0", 0.9), ("D1", 1.1)):
        content = CombinedFrames("sky", np.ones(shape, np.float32), np.ones(shape, np.float32), band="r")
        levels = {f"level {visit} [electron]": share * sky for visit, sky in ((1, 100.0), (2, 250.0), (3, 70.0))}
        product = CalibrationProduct("sky", "camera", detector, "one", content, "r", Verdict(statistics=levels))
        with io.CalibrationWriter(library.path("sky", "r", "one", detector), Header("calibs", "id")) as writer:
            writer.append(io.encode_product(product))
    camera = SimpleNamespace(detectors=[SimpleNamespace(name=name, box=SimpleNamespace(area=1200)) for name in ("D0", "D1")])
    run = SimpleNamespace(library=library, camera=camera, config=SimpleNamespace(calibs=SimpleNamespace(sky=SkyConfig())))
    scales = Chooser(run)._sky_scales(library.path("sky", "r", "one", "D0").parent)
    assert scales == pytest.approx({"D0": 0.9, "D1": 1.1}, rel=1e-6)
    choice = Choice(library.path("sky", "r", "one", "D1"), "id", scale=scales["D1"])
    assert np.allclose(assemble({"sky": choice}, "camera", "D1", shape).sky, 1.1)
