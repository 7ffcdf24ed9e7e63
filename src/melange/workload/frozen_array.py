"""Tables from files and callers as read-only arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from melange.errors import InputError


def frozen_array(values: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """``values`` as a read-only float array of ``shape``.

    Raises
    ------
    InputError
        The values are not numbers or have another shape; a transposed array is reported as such.
    """
    try:
        found = np.asarray(values)
        if found.dtype.kind not in "iuf":
            raise TypeError(f"cells of {found.dtype}")
        array = np.array(found, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{name}: must be a table of numbers with {' x '.join(map(str, shape))} cells") from error
    if array.shape != shape:
        looks = " (it looks transposed)" if array.ndim >= 2 and array.swapaxes(-1, -2).shape == shape else ""
        raise InputError(
            f"{name}: must have {' x '.join(map(str, shape))} cells, got {' x '.join(map(str, array.shape))}{looks}",
            hint="rows are input sizes, columns are output sizes",
        )
    array.flags.writeable = False
    return array
