"""The fast algorithms give rsatoolbox's numbers on rsatoolbox's own draws."""

import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from experiments.rsa.bootstrap import ClassPairs, bootstrap_rho_a, draw, rho_a
from experiments.rsa.rdm import RDMAccumulator, label_rdm
from experiments.rsa.toolbox import from_rsatoolbox, to_rsatoolbox
from experiments.rsa.weighted import WeightedModel, bootstrap_weighted, split
from experiments.statistics import summarize_bootstrap

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies warn about themselves
    import rsatoolbox
    from rsatoolbox.inference import bootstrap_crossval, crossvalsets, eval_bootstrap_pattern
    from rsatoolbox.inference import evaluate as rsatoolbox_evaluate

pytestmark = pytest.mark.filterwarnings("ignore")

# Sizes differ, and the class order is not the order of first appearance in a sorted list.
CLASSES = np.repeat([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [2, 3, 1, 4, 2, 3, 2, 2, 3, 1, 2, 4])


def activations(seed: int, noise: float = 1.0) -> NDArray[np.float64]:
    shared = np.random.default_rng(0).normal(size=(len(CLASSES), 7))
    return shared + noise * np.random.default_rng(seed).normal(size=shared.shape)


def our_rdm(x: NDArray[np.float64]) -> NDArray[np.float64]:
    accumulator = RDMAccumulator(len(x))
    accumulator.add(torch.from_numpy(x))
    return accumulator.vector()


def their_rdm(x: NDArray[np.float64]) -> "rsatoolbox.rdm.RDMs":
    dataset = rsatoolbox.data.Dataset(x, obs_descriptors={"classes": CLASSES})
    return rsatoolbox.rdm.calc_rdm(dataset, method="euclidean")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsatoolbox_evaluate.tqdm, "trange", range)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.int64]]:
    """What rsatoolbox draws, as it draws it."""
    seen: list[NDArray[np.int64]] = []
    draw = np.random.randint

    def randint(*arguments: object, **options: object) -> NDArray[np.int64]:
        seen.append(draw(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(np.random, "randint", randint)
    np.random.seed(3)
    return seen


def test_rdms_are_rsatoolboxs_squared_euclidean_distances() -> None:
    for offset in (0, 1000):  # far from the origin the expansion of the square loses digits
        x = activations(1) + offset
        exact = ((x[:, None] - x[None]) ** 2).mean(axis=2)[np.triu_indices(len(x), 1)]
        np.testing.assert_allclose(our_rdm(x), exact, rtol=1e-9)
    np.testing.assert_allclose(
        our_rdm(activations(1)), their_rdm(activations(1)).get_vectors()[0], atol=1e-12
    )
    labels = their_rdm(np.eye(21)[CLASSES])
    np.testing.assert_allclose(label_rdm(CLASSES, 21), labels.get_vectors()[0], atol=1e-15)


@pytest.mark.parametrize("algorithm", ["order", "class_pairs"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("unit", ["classes", "index"])
def test_bootstrapped_rho_a_is_rsatoolboxs(
    algorithm: str, ties: bool, unit: str, quiet: None, drawn: list[NDArray[np.int64]]
) -> None:
    places = 0 if ties else 12
    data, *models = (np.round(our_rdm(activations(seed, noise)), places) for seed, noise in
                     ((1, 1.0), (2, 0.5), (3, 2.0), (4, 9.0)))  # fmt: skip
    images = [f"image-{i}" for i in range(len(CLASSES))]
    theirs = to_rsatoolbox({"data": data}, CLASSES, images)
    result = eval_bootstrap_pattern(
        [rsatoolbox.model.ModelFixed(str(i), to_rsatoolbox({"m": m}, CLASSES, images))
         for i, m in enumerate(models)],
        theirs, method="rho-a", N=60, pattern_descriptor=unit, boot_noise_ceil=False,
    )  # fmt: skip
    groups = CLASSES if unit == "classes" else np.arange(len(CLASSES))
    ours = bootstrap_rho_a(data, np.stack(models), groups, np.stack(drawn), algorithm)
    np.testing.assert_allclose(ours, result.evaluations[:, :, None].squeeze(), atol=1e-12)
    low, high = result.get_ci(0.95, test_type="bootstrap")
    for m, summary in enumerate(map(summarize_bootstrap, ours.T)):
        assert summary.mean == pytest.approx(result.get_means()[m], abs=1e-12)
        assert (summary.low, summary.high) == pytest.approx((low[m], high[m]), abs=1e-12)
        # Theirs divides by n where ours divides by n + 1.
        theirs_p = result.test_zero(test_type="bootstrap")[m]
        assert summary.p_zero == pytest.approx(float(np.squeeze(theirs_p)) * 60 / 61, abs=1e-12)


def test_rho_a_without_weights_is_rsatoolboxs() -> None:
    x, y = (np.round(our_rdm(activations(seed)), 1) for seed in (1, 2))
    assert rho_a(x, y) == pytest.approx(rsatoolbox.rdm.compare_rho_a(x[None], y[None]).item(), abs=1e-13)


def test_bootstraps_of_fewer_than_three_classes_are_not_evaluated() -> None:
    x, y = our_rdm(activations(1)), our_rdm(activations(2))
    draws = np.array([[5] * 12, [5] * 6 + [7] * 6, [5] * 6 + [7] * 5 + [8]])
    for algorithm in ("order", "class_pairs"):
        result = bootstrap_rho_a(x, y[None], CLASSES, draws, algorithm)
        assert np.isnan(result[:2]).all()
        assert np.isfinite(result[2]).all()


def test_weighted_models_of_one_rdm_are_rsatoolboxs(
    quiet: None, drawn: list[NDArray[np.int64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled: list[NDArray[np.int64]] = []
    shuffle = np.random.shuffle

    def recorded(values: NDArray[np.int64]) -> None:
        shuffle(values)
        shuffled.append(values.copy())

    monkeypatch.setattr(crossvalsets.np.random, "shuffle", recorded)
    data, close, unlike = our_rdm(activations(1)), our_rdm(activations(2, 0.3)), -our_rdm(activations(1))
    unlike = unlike - unlike.min()
    images = [str(i) for i in range(len(CLASSES))]
    rdms = [to_rsatoolbox({"m": m}, CLASSES, images) for m in (close, unlike)]
    result = bootstrap_crossval(
        [rsatoolbox.model.ModelWeighted(str(i), rdm) for i, rdm in enumerate(rdms)],
        to_rsatoolbox({"data": data}, CLASSES, images),
        method="corr", fitter=rsatoolbox.model.fitter.fit_optimize_positive, N=6, k_rdm=1, k_pattern=2,
        pattern_descriptor="classes", boot_type="pattern",
    )  # fmt: skip
    draws = np.stack([draw for draw in drawn if np.shape(draw) == (12,)])
    orders = iter([order for order in shuffled if len(order) > 1])
    assignments = [
        [split(next(orders), 2) for _ in range(2)] if len(np.unique(draw)) >= 6 else [] for draw in draws
    ]
    ours = bootstrap_weighted(
        data, [close[None], unlike[None]], CLASSES, draws, folds=2, assignments=assignments
    )
    theirs = result.evaluations.mean(axis=(2, 3))
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert (ours[:, 1] == 0).all()  # no weight may be negative
    assert (ours[:, 0] > 0.3).all()


def test_weights_of_two_rdms_correlate_at_least_as_well_as_rsatoolboxs_optimizer_finds() -> None:
    data, first, second = (our_rdm(activations(seed)) for seed in (1, 2, 3))
    pairs = ClassPairs.of(CLASSES)
    everything = np.ones(len(pairs.first))
    ours = WeightedModel(data, np.stack([first, second]), pairs).score(everything, everything)
    images = [str(i) for i in range(len(CLASSES))]
    model = rsatoolbox.model.ModelWeighted("w", to_rsatoolbox({"a": first, "b": second}, CLASSES, images))
    np.random.seed(0)
    theta = rsatoolbox.model.fitter.fit_optimize_positive(
        model, to_rsatoolbox({"data": data}, CLASSES, images), method="corr"
    )
    theirs = np.corrcoef(theta @ np.stack([first, second]), data)[0, 1]
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert ours >= theirs - 1e-12


def test_rdms_survive_the_way_to_rsatoolbox_and_back() -> None:
    rdms = {"hidden1": our_rdm(activations(1)), "cell1": our_rdm(activations(2))}
    back = from_rsatoolbox(to_rsatoolbox(rdms, CLASSES, [str(i) for i in range(len(CLASSES))]))
    assert back.keys() == rdms.keys()
    for name in rdms:
        np.testing.assert_array_equal(back[name], rdms[name])


def test_a_bootstrap_over_images_needs_no_memory_for_each_draw() -> None:
    random = np.random.default_rng(0)
    images, bootstraps = 60, 1000
    rdm = random.normal(size=images * (images - 1) // 2)
    tracemalloc.start()
    bootstrap_rho_a(rdm, rdm[None], np.arange(images), draw(images, bootstraps, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(rdm) * bootstraps / 4  # a quarter of the weights of all pairs in all draws
