"""What every detector keeps: direction, determinism, odd inputs, graphs, contributions, contaminated periods."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import ModelProto

from oddlog.detectors.catalogue import NAMES, create
from oddlog.detectors.detector import Detector, FitData, Matrix
from oddlog.detectors.iforest import IForest
from oddlog.errors import UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer, fit_features
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.simulation.traffic import simulate

WIDTH = len(FEATURE_NAMES)


def period(rows: int = 1_500, *, attacks: float = 0.05, seed: int = 0) -> tuple[FitData, npt.NDArray[np.bool_]]:
    """A made-up fitted period: rare things in long tails, attacks shifted in most columns; few behaviours of them."""
    rng = np.random.default_rng(seed)
    attack = rng.random(rows) < attacks
    features = rng.gamma(1.0, 0.3, (rows, WIDTH)) + attack[:, None] * rng.uniform(0.5, 3.0, (rows, WIDTH))
    behaviour = np.where(attack, rows + rng.integers(0, 5, rows), rng.integers(0, rows // 3, rows))
    data = FitData(
        features=features.astype(np.float32),
        weights=1.0 / rng.integers(1, 20, rows),
        behaviour=behaviour.astype(np.int64),
        names=FEATURE_NAMES,
    )
    return data, attack


def run(model: ModelProto, features: Matrix) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"features": features})
    return np.asarray(result)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fitted(name: str) -> Detector:
    return create(name).fit(period()[0], seed=3)


@pytest.fixture(scope="module")
def rows() -> Matrix:
    """Unseen rows: ordinary ones, and what nobody expects."""
    ordinary = period(400, attacks=0.3, seed=9)[0].features
    odd = ordinary[:6].copy()
    odd[0, :] = np.nan
    odd[1, ::2] = np.nan
    odd[2, 3] = np.inf
    odd[3, :] = -np.inf
    odd[4, :] = 3.4e38
    odd[5, :] = 0.0
    return np.concatenate([ordinary, odd])


def test_it_is_a_detector_of_its_name(name: str, fitted: Detector) -> None:
    assert isinstance(fitted, Detector)
    assert fitted.name == name


def test_higher_is_more_anomalous(fitted: Detector) -> None:
    data, attack = period(1_000, attacks=0.2, seed=5)
    scores = fitted.score(data.features)
    assert scores.dtype == np.float32
    assert scores.shape == (1_000,)
    assert np.median(scores[attack]) > np.quantile(scores[~attack], 0.95)


def test_deterministic_by_seed(name: str, rows: Matrix) -> None:
    data = period()[0]
    first, second = (create(name).fit(data, seed=11) for _ in range(2))
    np.testing.assert_array_equal(first.score(rows), second.score(rows))
    for graph in ("score_graph", "contribution_graph"):
        assert getattr(first, graph)().SerializeToString() == getattr(second, graph)().SerializeToString()
    assert first.parameters() == second.parameters()


def test_finite_for_every_input(fitted: Detector, rows: Matrix) -> None:
    assert np.isfinite(fitted.score(rows)).all()
    assert np.isfinite(fitted.contributions(rows)).all()


def test_nan_counts_as_the_typical_value(fitted: Detector) -> None:
    """A row of nothing known scores like the weighted mean row, below what attacks score."""
    data, attack = period()
    mean = np.average(data.features.astype(np.float64), axis=0, weights=data.weights).astype(np.float32)
    unknown = fitted.score(np.full((1, WIDTH), np.nan, dtype=np.float32))
    np.testing.assert_allclose(unknown, fitted.score(mean[None, :]), rtol=1e-3, atol=1e-3)
    assert unknown[0] < np.median(fitted.score(data.features[attack]))


def test_no_rows(name: str, fitted: Detector) -> None:
    none = np.empty((0, WIDTH), dtype=np.float32)
    assert fitted.score(none).shape == (0,)
    assert fitted.contributions(none).shape == (0, WIDTH)
    assert run(fitted.score_graph(), none).shape == (0,)
    assert run(fitted.contribution_graph(), none).shape == (0, WIDTH)
    data = FitData(none, np.empty(0), np.empty(0, dtype=np.int64), FEATURE_NAMES)
    with pytest.raises(UsageError, match="no rows"):
        create(name).fit(data, seed=0)


def test_missing_features_are_named(name: str) -> None:
    data = period(50)[0]
    with pytest.raises(UsageError, match="path_rarity"):
        create(name).fit(FitData(data.features, data.weights, data.behaviour, ("x",) * WIDTH), seed=0)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_rows(name: str, count: int, rows: Matrix) -> None:
    whole = period()[0]
    data = FitData(whole.features[:count], whole.weights[:count], whole.behaviour[:count], FEATURE_NAMES)
    detector = create(name).fit(data, seed=0)
    scores = detector.score(rows)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(run(detector.score_graph(), rows), scores, rtol=1e-4, atol=1e-5)


def test_constant_columns_tell_when_they_move(name: str) -> None:
    data, _ = period()
    features = data.features.copy()
    features[:, 2:] = 0.25
    detector = create(name).fit(FitData(features, data.weights, data.behaviour, FEATURE_NAMES), seed=0)
    same = np.median(detector.score(features))
    assert np.isfinite(same)
    moved = features[:20].copy()
    moved[:, 2:] = 5.0
    assert (detector.score(moved) > same).all()
    np.testing.assert_allclose(run(detector.score_graph(), moved), detector.score(moved), rtol=1e-4, atol=1e-5)


def test_the_period_may_be_all_alike(name: str) -> None:
    data = period(200)[0]
    features = np.full_like(data.features, 0.5)
    detector = create(name).fit(FitData(features, data.weights, np.zeros(200, np.int64), FEATURE_NAMES), seed=0)
    odd = np.full((1, WIDTH), 4.0, dtype=np.float32)
    assert detector.score(odd)[0] > detector.score(features[:1])[0]


def test_scores_do_not_depend_on_the_other_rows(fitted: Detector, rows: Matrix) -> None:
    scores = fitted.score(rows)
    alone = np.concatenate([fitted.score(rows[i : i + 1]) for i in range(0, len(rows), 13)])
    np.testing.assert_allclose(alone, scores[::13], rtol=1e-5, atol=1e-6)


def test_the_score_graph_equals_the_reference_row_by_row(fitted: Detector, rows: Matrix) -> None:
    np.testing.assert_allclose(run(fitted.score_graph(), rows), fitted.score(rows), rtol=1e-4, atol=1e-5)


def test_the_contribution_graph_equals_the_reference_row_by_row(fitted: Detector, rows: Matrix) -> None:
    graph = run(fitted.contribution_graph(), rows)
    assert graph.shape == rows.shape
    np.testing.assert_allclose(graph, fitted.contributions(rows), rtol=1e-4, atol=1e-5)


def test_graphs_hold_their_weights(fitted: Detector) -> None:
    for model in (fitted.score_graph(), fitted.contribution_graph()):
        assert all(not tensor.external_data for tensor in model.graph.initializer)
        assert [i.name for i in model.graph.input] == ["features"]
    assert [o.name for o in fitted.score_graph().graph.output] == ["score"]
    assert [o.name for o in fitted.contribution_graph().graph.output] == ["contributions"]


def test_contributions_sum_to_what_is_stated(fitted: Detector, rows: Matrix) -> None:
    total = fitted.contributions(rows).astype(np.float64).sum(axis=1)
    if isinstance(fitted, IForest):
        stated = fitted.expected_depth - fitted.mean_depth(rows)
    else:
        stated = fitted.score(rows).astype(np.float64)
    np.testing.assert_allclose(total, stated, rtol=1e-4, atol=1e-4)


def test_the_feature_that_moved_contributes_most(fitted: Detector) -> None:
    base = np.median(period()[0].features, axis=0)
    for column in (FEATURE_NAMES.index("client_error_1h"), FEATURE_NAMES.index("client_token_1d")):
        row = base[None, :].copy()
        row[0, column] = 6.0
        assert fitted.contributions(row)[0].argmax() == column


Fitted = tuple[FitData, Matrix]


@pytest.fixture(scope="module")
def contaminated() -> tuple[Fitted, Fitted, npt.NDArray[np.bool_]]:
    """Simulated traffic, two fifths of it attacks: the first half as it is, and the same without its attacks.

    With each, the features of the second half under that baseline; and the truth of the second half.
    """
    traffic = simulate(seed=7, lines=8_000, days=4.0, attack_share=0.4)
    events = parse(records_from_lines([line.encode() for line in traffic.lines])).events
    truth = np.array([label != "benign" for label in traffic.labels])[events["oddlog.position.offset"].to_numpy()]
    half = len(events) // 2
    fitted = []
    for period in (events[:half], events[:half].filter(~truth[:half])):
        baseline, data = fit_features(period)
        fitted.append((data, FeatureComputer(baseline).compute(events)[half:]))
    assert 0.3 < truth[:half].mean() < 0.5
    return fitted[0], fitted[1], truth[half:]


def test_the_ranking_stays_right_when_two_fifths_of_the_period_are_attacks(
    name: str, contaminated: tuple[Fitted, Fitted, npt.NDArray[np.bool_]]
) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    as_it_is, cleaned, attack = contaminated
    scores, best = (create(name).fit(data, seed=0).score(features) for data, features in (as_it_is, cleaned))
    assert roc_auc_score(attack, scores) > 0.9
    assert average_precision_score(attack, scores) > average_precision_score(attack, best) - 0.05


def test_an_unknown_detector_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError, match="iforest, autoencoder, surprise"):
        create("forest")


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("iforest", {"trees": 20, "max_samples": 64, "sound_share": 0.3, "background": 0.1}, "n_estimators"),
        ("autoencoder", {"outer": 4, "inner": 1, "alpha": 0.1, "sound_share": 0.5, "max_rows": 500}, "alpha"),
    ],
)
def test_parameters_beat_the_defaults_in_reference_and_graph(
    name: str, parameters: dict[str, int | float], told: str, rows: Matrix
) -> None:
    data = period()[0]
    own, other = create(name).fit(data, seed=3), create(name, parameters).fit(data, seed=3)
    assert other.parameters()[told] in parameters.values()
    assert other.parameters()[told] != own.parameters()[told]
    scores = other.score(rows)
    assert not np.allclose(scores, own.score(rows))
    np.testing.assert_allclose(run(other.score_graph(), rows), scores, rtol=1e-4, atol=1e-5)


def test_parameters_that_are_none_or_make_no_detector_are_refused() -> None:
    with pytest.raises(UsageError, match="iforest has no parameter depth") as caught:
        create("iforest", {"depth": 3})
    assert caught.value.expected == "trees, max_samples, sound_share, background"
    with pytest.raises(UsageError, match="surprise has no parameter trees") as caught:
        create("surprise", {"trees": 3})
    assert caught.value.expected == "none: it has nothing to set"
    for name, wrong in (("iforest", {"trees": 0}), ("iforest", {"sound_share": 1.5}), ("autoencoder", {"inner": 0})):
        with pytest.raises(UsageError, match=f"{name} with"):
            create(name, wrong)
