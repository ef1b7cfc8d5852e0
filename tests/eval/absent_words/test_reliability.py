import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from eval.absent_words.reliability import BINS, Reliability, average_precision, share

STATEMENTS = st.lists(st.tuples(st.integers(0, 6).map(lambda n: n / 6), st.booleans()), min_size=1, max_size=30)


@given(STATEMENTS)
def test_average_precision_agrees_with_scikit_learn(statements):
    probabilities, right = (np.array(column) for column in zip(*statements, strict=True))
    if not right.any():
        assert np.isnan(average_precision(probabilities, right))
    else:
        assert average_precision(probabilities, right) == pytest.approx(average_precision_score(right, probabilities))


def test_bins_hold_statements_of_like_probability():
    found = Reliability.of(np.array([0.0, 0.81, 0.85, 1.0]), np.array([False, True, False, True]))
    assert found.sums.shape == (3, BINS)
    # 0.81 and 0.85 are both in the bin from 12/15 to 13/15; 1 belongs to the last bin.
    np.testing.assert_allclose(found.points(), [[1, 0, 0], [2, 0.83, 0.5], [1, 1, 1]])
    assert found.calibration_error() == pytest.approx((0 + 2 * 0.33 + 0) / 4)


@given(STATEMENTS, STATEMENTS)
def test_bins_of_photos_add_up(one, other):
    def of(statements) -> Reliability:
        return Reliability.of(*(np.array(column) for column in zip(*statements, strict=True)))

    together = of([*one, *other])
    np.testing.assert_allclose((of(one) + of(other)).sums, together.sums)
    np.testing.assert_allclose(Reliability(np.array(together.sums.tolist())).points(), together.points())


@pytest.mark.filterwarnings("error")
def test_without_a_statement_there_is_no_number_and_no_warning():
    none = np.zeros(0)
    assert np.isnan(average_precision(none, none.astype(bool)))
    assert np.isnan(share(none > 0))
    assert np.isnan(Reliability.of(none, none.astype(bool)).calibration_error())
    assert Reliability().points() == []
