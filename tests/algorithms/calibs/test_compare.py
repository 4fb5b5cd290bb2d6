"""Two products of one kind: statistics, difference map, verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rsp_hpc.algorithms.calibs.compare import compare
from rsp_hpc.errors import BadData
from rsp_hpc.products.calibration import CombinedFrames
from rsp_hpc.products.electronics import Crosstalk


def flat(seed=0, level=1.0, noise=0.002) -> CombinedFrames:
    response = 1.0 + 0.01 * np.random.default_rng(99).standard_normal((60, 80))
    image = level * response + noise * np.random.default_rng(seed).standard_normal((60, 80))
    return CombinedFrames("flat", image.astype(np.float32), np.full((60, 80), noise**2, np.float32), band="r")


def test_equal_products_agree_and_changed_ones_do_not():
    one, two = flat(1), flat(2)
    same = compare(one, two)
    assert same.verdict.state == "good" and same.statistics["pull"] == pytest.approx(1.0, abs=0.05)
    assert same.statistics["scatter"] == pytest.approx(0.002 * np.sqrt(2.0), rel=0.05)
    np.testing.assert_array_equal(same.difference, one.image - two.image)
    dust = replace(two, image=two.image.copy())
    dust.image[10:20, 10:20] -= 0.05
    dust.image[0, 0] = np.nan
    changed = compare(one, dust)
    assert changed.verdict.state == "bad" and "2.08% of the pixels differ by more than 5 sigma" in changed.verdict.reasons[0]
    assert changed.statistics["largest"] == pytest.approx(0.05, abs=0.01)
    assert compare(one, flat(2, level=1.03)).verdict.state != "good"


def test_defects():
    one = np.zeros((10, 10), bool)
    one[:2] = True
    two = one.copy()
    two[1, 0], two[5, 5] = False, True
    result = compare(one, two)
    assert result.statistics["common"] == 19 and result.difference[1, 0] == 1 and result.difference[5, 5] == -1
    assert result.verdict.state == "good"
    two[:2, 5:] = False
    assert compare(one, two).verdict.state == "suspect"


def test_electronics_against_their_errors():
    names, two = ("A", "B"), np.array([[0.0, 1e-4], [2e-4, 0.0]])
    one = Crosstalk(names, names, two, np.full((2, 2), 1e-6), 0.0 * two, np.ones((2, 2), np.int64))
    assert compare(one, replace(one, coefficient=two + 2e-6)).verdict.state == "good"
    result = compare(one, replace(one, coefficient=two + 9e-6))
    assert result.verdict.state == "suspect" and "coefficient differs by up to 6.4 sigma" in result.verdict.reasons[0]
    np.testing.assert_allclose(result.fields["coefficient"], -9e-6, rtol=1e-6)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(BadData, match="no two products of one kind"):
        compare(flat(), np.zeros((2, 2)))
    with pytest.raises(BadData, match="80 x 60 and 80 x 30 pixels"):
        compare(flat().image, flat().image[:30])
    with pytest.raises(BadData, match="a flat r and a flat g"):
        compare(flat(), replace(flat(), band="g"))
    with pytest.raises(BadData, match="no pixel has a value in both"):
        compare(flat(), replace(flat(), image=np.full((60, 80), np.nan, np.float32)))
    names = ("A", "B")
    table = Crosstalk(names, names, np.eye(2), np.eye(2), np.eye(2), np.eye(2))
    with pytest.raises(BadData, match="amplifiers are not the same"):
        compare(table, replace(table, amplifiers=("A", "C")))
