"""Images, tables and series, fetched for real, against published counts and other readers."""

import pytest
import torch

from covector import data
from covector.data.arrays import Arrays
from covector.data.digits import read_idx
from covector.data.rfiles import read_rda
from covector.errors import ArgumentError, DataError, MissingExtraError

ARRAYS = [entry.name for entry in data.list() if entry.kind in ("image", "tabular", "series")]
CLASSIFIED = ["breast-cancer", "digits", "fashion-mnist", "letter", "mnist", "satellite", "spambase"]


@pytest.mark.parametrize("name", ARRAYS)
def test_splits_are_disjoint_and_cover_the_data(name):
    arrays = data.load(name)
    indices = torch.cat(list(arrays.splits.values()))
    assert torch.equal(indices.sort().values, torch.arange(len(arrays.y)))
    assert all(len(chosen) for chosen in arrays.splits.values())
    assert len(arrays.x) == len(arrays.y)
    assert torch.isfinite(arrays.x).all()


@pytest.mark.parametrize("name", CLASSIFIED)
def test_validation_has_the_class_shares_of_train(name):
    arrays = data.load(name)
    classes = len(arrays.classes)
    share = {s: torch.bincount(arrays.y[i], minlength=classes) / len(i) for s, i in arrays.splits.items()}
    limit = 1.5 / len(arrays.splits["validation"])
    assert (share["validation"] - share["train"]).abs().max() < limit


def test_mnist_has_the_standard_class_counts():
    arrays = data.load("mnist")
    assert arrays.x.shape == (70_000, 1, 28, 28)
    assert (arrays.x.min(), arrays.x.max()) == (0.0, 1.0)
    test = torch.bincount(arrays.y[arrays.splits["test"]])
    assert test.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert len(arrays.splits["validation"]) == 5000
    training = torch.bincount(arrays.y) - test
    assert training.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert arrays.x[:60_000].mean().item() == pytest.approx(0.1307, abs=1e-4)  # the mean everyone normalizes with


def test_fashion_mnist_has_7000_of_each_class_and_the_published_mean():
    arrays = data.load("fashion-mnist")
    assert torch.bincount(arrays.y).tolist() == [7000] * 10
    assert arrays.x[:60_000].mean().item() == pytest.approx(0.2860, abs=1e-4)


def test_digits_and_breast_cancer_equal_scikit_learns():
    from sklearn.datasets import load_breast_cancer, load_digits

    x, y = load_digits(return_X_y=True)
    ours = data.load("digits")
    assert torch.equal(ours.x.flatten(1) * 16, torch.tensor(x, dtype=torch.float32))
    assert torch.equal(ours.y, torch.tensor(y))
    theirs = load_breast_cancer()
    ours = data.load("breast-cancer")
    assert torch.equal(ours.x, torch.tensor(theirs.data, dtype=torch.float32))
    assert torch.equal(ours.y, torch.tensor(theirs.target))
    assert ours.features == tuple(theirs.feature_names)
    assert ours.classes == tuple(theirs.target_names)


@pytest.mark.parametrize(
    ("name", "shape", "mean"),
    [("ames", (2930, 73), 180_796.06), ("concrete", (1030, 8), 35.818), ("diamonds", (53_940, 9), 3932.80)],
)
def test_regression_tables_have_the_published_target_mean(name, shape, mean):
    arrays = data.load(name, encode="codes")
    assert arrays.x.shape == shape
    assert arrays.y.double().mean().item() == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "shape", "largest"),
    [
        ("letter", (20_000, 16), ("U", 813)),
        ("shuttle", (58_000, 9), ("Rad.Flow", 45_586)),
        ("satellite", (6435, 36), ("red soil", 1533)),
        ("spambase", (4601, 57), ("nonspam", 2788)),
    ],
)
def test_classification_tables_have_the_published_counts(name, shape, largest):
    arrays = data.load(name)
    assert arrays.x.shape == shape
    counts = torch.bincount(arrays.y)
    assert (arrays.classes[int(counts.argmax())], int(counts.max())) == largest


def test_one_hot_columns_are_the_codes():
    codes, hot = data.load("diamonds", encode="codes"), data.load("diamonds")
    cut = [k for k, feature in enumerate(hot.features) if feature.startswith("cut=")]
    assert torch.equal(hot.x[:, cut].argmax(dim=1).float(), codes.x[:, codes.features.index("cut")])
    assert torch.equal(hot.x[:, cut].sum(dim=1), torch.ones(len(hot.y)))
    assert hot.features[cut[-1]] == "cut=Ideal"


def test_standardized_columns_have_mean_0_and_variance_1_on_train_only():
    arrays = data.load("concrete", standardize=True)
    train = arrays.x[arrays.splits["train"]]
    torch.testing.assert_close(train.mean(dim=0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.var(dim=0, correction=0), torch.ones(8), atol=1e-4, rtol=0)
    assert arrays.x[arrays.splits["test"]].mean(dim=0).abs().max() > 1e-3
    table = data.load("ames", standardize=True)
    street = [k for k, feature in enumerate(table.features) if feature.startswith("Street=")]
    assert set(table.x[:, street].flatten().tolist()) == {0.0, 1.0}


def test_an_unknown_encoding_is_refused():
    with pytest.raises(ArgumentError, match="encode='hot'"):
        data.load("ames", encode="hot")


def test_movielens_has_671_users_who_are_in_every_split():
    arrays = data.load("movielens")
    assert arrays.x.max(dim=0).values.tolist() == [670, 9065]
    assert arrays.y.double().mean().item() == pytest.approx(3.5436, abs=1e-4)
    for split in arrays.splits:
        assert len(arrays.clients(split)) == 671
    ratings, stars = arrays.clients("train")["15"].tensors
    assert set(ratings[:, 0].tolist()) == {14}
    assert set(stars.tolist()) <= {k / 2 for k in range(1, 11)}


@pytest.mark.parametrize(
    ("name", "shape", "test"),
    [
        ("gun-point", (200, 1, 150), 150),
        ("italy-power-demand", (1096, 1, 24), 1029),
        ("basic-motions", (80, 6, 100), 40),
    ],
)
def test_series_have_the_published_sizes(name, shape, test):
    arrays = data.load(name)
    assert arrays.x.shape == shape
    assert len(arrays.splits["test"]) == test


def test_photos_are_square_and_the_stereo_pair_is_in_one_split():
    arrays = data.load("photos", size=64)
    assert arrays.x.shape == (16, 3, 64, 64)
    assert 0.0 <= arrays.x.min() < arrays.x.max() <= 1.0
    camera = arrays.x[arrays.classes.index("camera")]
    assert torch.equal(camera[0], camera[2])  # a gray photo
    pair = {arrays.classes.index("motorcycle_left"), arrays.classes.index("motorcycle_right")}
    assert any(pair <= set(chosen.tolist()) for chosen in arrays.splits.values())


def test_a_loader_shuffles_by_its_seed_alone():
    arrays = data.load("digits")
    first = [y.tolist() for _, y in arrays.loader("train", 32, shuffle=True, seed=1)]
    torch.manual_seed(99)
    assert [y.tolist() for _, y in arrays.loader("train", 32, shuffle=True, seed=1)] == first
    assert [y.tolist() for _, y in arrays.loader("train", 32, shuffle=True, seed=2)] != first
    plain = torch.cat([y for _, y in arrays.loader("train", 32)])
    assert torch.equal(plain, arrays.y[arrays.splits["train"]])


def test_data_without_clients_and_unknown_splits_are_refused():
    toy = Arrays("toy", torch.zeros(2, 1), torch.zeros(2), {"train": torch.tensor([0, 1])})
    with pytest.raises(ArgumentError, match="natural clients"):
        toy.clients("train")
    with pytest.raises(ArgumentError, match="split='tset'"):
        toy.dataset("tset")


def test_an_idx_file_of_another_type_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(bytes([0, 0, 0x0D, 1, 0, 0, 0, 1, 0]))
    with pytest.raises(DataError, match="not an IDX file"):
        read_idx(tmp_path / "x")


def test_a_missing_reader_of_r_files_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'rdata' is not installed.*covector\[data\]"):
        read_rda(tmp_path / "x.rda", "x")
