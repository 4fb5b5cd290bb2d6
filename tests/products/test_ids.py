"""Ids unpack to what they were packed from, and refuse what does not fit."""

import pytest

from rsp_hpc.errors import BadData
from rsp_hpc.products.ids import object_ids, source_ids, unpack_object, unpack_source


@pytest.mark.parametrize("pack, unpack, outer, inner", [(source_ids, unpack_source, 2026112000123, 188),
                                                       (source_ids, unpack_source, 20190503235959, 0),
                                                       (source_ids, unpack_source, 235959, 0),
                                                       (object_ids, unpack_object, 18937, 99)])
def test_round_trip(pack, unpack, outer, inner):
    a, b, counter = unpack(pack(outer, inner, 1000))
    assert (a == outer).all() and (b == inner).all() and list(counter) == list(range(1000))


@pytest.mark.parametrize("arguments", [(1, 512, 1), (-1, 0, 1), (1 << 40, 0, 1), (19991231235959, 0, 1), (20190503240000, 0, 1), (1, 1, (1 << 18) + 1)])
def test_what_does_not_fit_is_refused(arguments):
    with pytest.raises(BadData, match="id|must be"):
        source_ids(*arguments)
