"""Every bijector of the registry, with redrawn weights in float64, through the properties of its maps."""

import numpy as np
import pytest
from cases import BIJECTORS

from tfp_flows import testing

# The Jacobians of five events take fifteen: with as many elsewhere, what is compiled for one check serves the next.
ROWS = [15]
by_name = pytest.mark.parametrize("case", BIJECTORS, ids=lambda case: case.name)
# The code of another case with other masks, orders, sizes or networks. Their maps and log-dets are checked always.
ALIKE = ("planar_1d", "sylvester_triangular", "real_nvp_last", "maf_right_to_left", "tfp_maf", "tfp_real_nvp")
ALIKE += ("maf_affine", "maf_no_hidden", "rotation_deep", "maf_circular_spline")
by_code = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow) if c.name in ALIKE else c for c in BIJECTORS],
    ids=lambda case: case.name,
)


@pytest.fixture(scope="module")
def built():
    return {case.name: case.build() for case in BIJECTORS}


@by_name
def test_moves_and_round_trip(case, built):
    bijector, x = built[case.name], testing.draw_events([case.event_size], ROWS)
    testing.check_moves(bijector, x)
    testing.check_round_trip(bijector, x, case.tolerance)


@by_name
def test_log_det(case, built):
    testing.check_log_det(built[case.name], testing.draw_events([case.event_size]), case.tolerance)


@by_code
def test_batch_shapes(case, built):
    testing.check_batch_shapes(built[case.name], [case.event_size], case.tolerance)


@by_code
def test_gradients(case, built):
    testing.check_gradients(built[case.name], testing.draw_events([case.event_size], ROWS))


# Where all depends on all, `test_log_det` has seen the whole Jacobian; of a differential equation it takes a trace more.
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow) if c.name == "continuous" else c for c in BIJECTORS],
    ids=lambda case: case.name,
)
def test_jacobian_zeros(case, built):
    allowed = np.ones([case.event_size] * 2, bool) if case.zeros is None else case.zeros
    testing.check_jacobian_zeros(built[case.name], testing.draw_events([case.event_size], [40]), allowed)


@by_name
def test_tracking(case, built):
    testing.check_tracking(built[case.name], [case.event_size])
