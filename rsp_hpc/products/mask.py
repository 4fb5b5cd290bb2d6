"""The mask planes: the only list of them. Files carry this table; readers go by name, never by bit."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MaskPlane", "PLANES", "bits", "names_of"]


class MaskPlane(NamedTuple):
    """One plane: its bit number and what a set bit means."""

    bit: int
    meaning: str


PLANES: dict[str, MaskPlane] = {
    name: MaskPlane(bit, meaning)
    for bit, (name, meaning) in enumerate((
        ("BAD", "defect of the detector: hot, dead, or without calibration"),
        ("SAT", "saturated, or bled into"),
        ("INTRP", "value interpolated from neighbours"),
        ("CR", "hit by a cosmic ray"),
        ("EDGE", "too near the edge for the detection filter"),
        ("DETECTED", "part of a detected source"),
        ("DETECTED_NEGATIVE", "part of a negative detection"),
        ("SUSPECT", "near saturation, linearity uncertain"),
        ("NO_DATA", "no input covers this pixel"),
        ("CROSSTALK", "ghost of another amplifier's bright source"),
        ("NOT_DEBLENDED", "in a blend that was left as it is"),
        ("UNMASKEDNAN", "not a number, without a known reason"),
        ("CLIPPED", "an input was clipped here by the coadd"),
        ("REJECTED", "an input was left out here because it was masked"),
        ("SENSOR_EDGE", "the edge of an input lies here"),
        ("INEXACT_PSF", "inputs change within the cell: the PSF is not exact here"),
        ("STREAK", "satellite or aircraft trail"),
        ("VIGNETTED", "outside the unvignetted field"),
        ("ITL_DIP", "dip beside a bright star of an ITL detector"),
        ("HIGH_VARIANCE", "variance far above its surroundings"),
        ("SPIKE", "diffraction spike of a bright star"),
    ))
}


def bits(*names: str) -> int:
    """The bit mask of the named planes; KeyError for an unknown name."""
    value = 0
    for name in names:
        value |= 1 << PLANES[name].bit
    return value


def names_of(value: int) -> list[str]:
    """The names of the planes set in a mask value."""
    return [name for name, plane in PLANES.items() if value >> plane.bit & 1]
