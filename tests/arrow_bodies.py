"""What schemathesis is told of this project: how to make a body in Arrow, which no schema describes. It imports this
module because SCHEMATHESIS_HOOKS names it; nobody else needs schemathesis for it.
"""

from __future__ import annotations

import os

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from oddlog.features.declaration import FEATURE_NAMES
from serving.wire import ARROW, encode_matrix

VALUES = st.floats(width=32, allow_infinity=False)
MATRICES = st.integers(0, 8).flatmap(
    lambda rows: st_numpy.arrays(np.float32, (rows, len(FEATURE_NAMES)), elements=VALUES)
)

if os.environ.get("SCHEMATHESIS_HOOKS") == __name__:
    import schemathesis

    schemathesis.openapi.media_type(ARROW, MATRICES.map(lambda matrix: encode_matrix(matrix, list(FEATURE_NAMES))))
