"""calibs: the calibration products of a detector, one file per kind.

`frames` combines bias, dark and flat frames and finds defects; the other files build what corrects the electronics.
"""
