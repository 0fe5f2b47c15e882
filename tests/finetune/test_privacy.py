"""Privacy and screening of a fine-tuning: without effect they change no bit, with it they do and say how much."""

import json
import math

import dp_accounting
import pytest

from covector import finetune as ft
from covector.errors import ArgumentError, MismatchError, MissingExtraError
from covector.federated import Grads
from covector.finetune.methods import make_clients, make_header, make_server
from covector.finetune.privacy import account, noise_of

FEDERATED = ["sketch", "sketch-zo", "kseed", "kseed-pro"]


def settings(folder, texts, method="kseed", **values):
    base = {"rounds": 3, "local_steps": 2, "seeds": 64, "lr": 5e-3, "batch_size": 8, "check_every": 3}
    return ft.Settings(model=str(folder), data=str(texts), by="store", method=method, **{**base, **values})


@pytest.mark.parametrize("method", FEDERATED)
def test_a_huge_clip_without_noise_changes_no_bit(method, folder, texts, tmp_path):
    plain = ft.finetune(settings(folder, texts, method), tmp_path / "plain", save=False)
    clipped = ft.finetune(settings(folder, texts, method, dp_clip=1e30), tmp_path / "clipped", save=False)
    assert clipped.main.ledger.digest() == plain.main.ledger.digest()
    assert clipped.main.digest == plain.main.digest
    assert clipped.main.privacy["epsilon"] is None
    assert plain.main.privacy is None


@pytest.mark.parametrize("method", FEDERATED)
def test_a_small_clip_bounds_what_a_client_says(method, folder, texts, tmp_path):
    free, bound = (settings(folder, texts, method, dp_clip=clip) for clip in (1e30, 1e-3))
    sizes = [float(said(chosen, tmp_path / str(i)).norm()) for i, chosen in enumerate((free, bound))]
    # the one-byte code rounds up by at most one step of its scale
    assert sizes[1] < 2e-3 * math.sqrt(2) < sizes[0]


def said(chosen, out):
    """The numbers that the first client sends in the first round, a norm for coordinates."""
    from covector.federated.kseed import scalars
    from covector.federated.payloads import DENSE, read_coordinates

    bench = ft.Workbench(chosen, out)
    header = make_header(chosen, bench.replica)
    clients = make_clients(chosen, bench.replica, bench.federation, header)
    server = make_server(chosen, header, None)
    name, message = next(iter(server.open_round(list(clients)).items()))
    grads = Grads.from_bytes(clients[name].handle(message), header)
    if grads.payload.kind in DENSE:
        return read_coordinates(grads.payload)
    return scalars(header, server._settings, grads.payload)


@pytest.mark.parametrize(("method", "each"), [("sketch", 1), ("sketch-zo", 2), ("kseed", 2)])
def test_epsilon_is_the_accountants_and_stands_in_the_report(method, each, folder, texts, tmp_path):
    chosen = settings(folder, texts, method, dp_noise=3.0, dp_clip=0.5, dp_delta=1e-6)
    outcome = ft.finetune(chosen, tmp_path, save=False)
    accountant = dp_accounting.rdp.RdpAccountant()
    for _ in range(3 * each):
        accountant.compose(dp_accounting.GaussianDpEvent(3.0))
    expected = accountant.get_epsilon(1e-6)
    assert outcome.main.privacy["epsilon"] == pytest.approx(expected, rel=1e-9)
    assert outcome.main.privacy["releases"] == 3 * each
    kept = json.loads((tmp_path / "results.json").read_text())["methods"][method]["privacy"]
    assert kept == outcome.main.privacy
    report = (tmp_path / "report.html").read_text()
    assert f"ε = {expected:.3g}" in report
    assert "Training loss of each client" not in report
    assert all(record.losses == {} for record in outcome.main.records)


def test_noise_differs_from_run_to_run_and_sizes_do_not_leave(folder, texts, tmp_path):
    chosen = settings(folder, texts, dp_noise=3.0, dp_clip=0.5)
    digests = {ft.finetune(chosen, tmp_path / str(i), save=False).main.digest for i in range(2)}
    assert len(digests) == 2
    bench = ft.Workbench(chosen, tmp_path / "bench")
    assert make_header(chosen, bench.replica).weighting == "equal"
    assert make_header(chosen.changed(dp_noise=0.0), bench.replica).weighting == "examples"


def test_only_the_client_asked_most_often_counts_and_a_resume_counts_once_more():
    chosen = ft.Settings(method="kseed", local_steps=4, dp_noise=2.0, dp_clip=1.0)
    rounds = [{"a": 9, "b": 9}, {"a": 9}, {"b": 9}, {"a": 9}]
    records = [ft.RoundRecord("kseed", i + 1, down=down) for i, down in enumerate(rounds)]
    assert account(chosen, records)["releases"] == 3 * 4
    assert account(chosen, records, resumed=2)["releases"] == 5 * 4
    assert account(chosen, records, resumed=2)["epsilon"] > account(chosen, records)["epsilon"]
    assert account(chosen, [])["epsilon"] == 0.0


def test_a_private_method_is_compared_with_others_without_noise(folder, texts, tmp_path):
    chosen = settings(folder, texts, dp_noise=3.0, dp_clip=0.5)
    outcome = ft.finetune(chosen, tmp_path, compare=["backprop"], save=False)
    assert outcome.main.privacy["epsilon"] > 0
    assert outcome.results["backprop"].privacy is None
    assert outcome.results["backprop"].settings.dp_noise == 0.0


def test_resuming_with_other_protection_is_refused_by_name(folder, texts, tmp_path):
    chosen = settings(folder, texts, dp_noise=3.0, dp_clip=0.5)
    ft.finetune(chosen, tmp_path, save=False)
    for name, value in (
        ("dp_noise", 4.0), ("dp_clip", 9.0), ("screen_bound", 8.0), ("screen_policy", "drop"), ("late", "apply"),
    ):  # fmt: skip
        with pytest.raises(MismatchError, match=name):
            ft.finetune(chosen.changed(**{name: value}), tmp_path, resume=True, save=False)
    assert ft.finetune(chosen, tmp_path, resume=True, save=False).main.privacy["releases"] == (3 + 1) * 2


def test_a_folder_of_before_there_was_protection_can_be_resumed(folder, texts, tmp_path):
    chosen = settings(folder, texts)
    done = ft.finetune(chosen, tmp_path, save=False)
    path = tmp_path / "settings.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k[:3] not in ("dp_", "scr", "lat", "res")}
    path.write_text(json.dumps(old))
    assert ft.finetune(chosen, tmp_path, resume=True, save=False).main.digest == done.main.digest


@pytest.mark.parametrize("method", ["sketch", "sketch-zo", "kseed"])
def test_a_tight_screen_reports_and_changes_the_run_and_none_lets_all_pass(method, folder, texts, tmp_path):
    runs = {
        (bound, policy): ft.finetune(
            settings(folder, texts, method, local_steps=8, screen_bound=bound, screen_policy=policy),
            tmp_path / f"{bound}{policy}",
            save=False,
        ).main
        for bound, policy in ((0.0, "clip"), (1.001, "clip"), (1.001, "drop"))
    }
    events = {key: " ".join(line for r in run.records for line in r.events) for key, run in runs.items()}
    assert "absurd" not in events[(0.0, "clip")].lower()
    assert "absurd" in events[(1.001, "clip")].lower()
    assert len({run.digest for run in runs.values()}) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dp_noise": -1.0, "dp_clip": 1.0}, "dp_noise=-1.0"),
        ({"dp_noise": math.nan, "dp_clip": 1.0}, "dp_noise=nan"),
        ({"dp_noise": 1.0}, "dp_clip=0.0"),
        ({"dp_clip": math.inf}, "dp_clip=inf"),
        ({"dp_delta": 0.0}, "dp_delta=0.0"),
        ({"dp_delta": 1.0}, "dp_delta=1.0"),
        ({"dp_clip": 1.0, "method": "backprop"}, "dp_clip=1.0.*backprop"),
        ({"screen_bound": 1.0}, "screen_bound=1.0"),
        ({"screen_bound": math.nan}, "screen_bound=nan"),
        ({"screen_policy": "ignore"}, "screen_policy='ignore'"),
        ({"late": "maybe"}, "late='maybe'"),
    ],
)
def test_values_that_cannot_work_name_themselves(values, message):
    with pytest.raises(ArgumentError, match=message):
        ft.Settings(**values)


def test_without_the_accountant_nothing_is_run(folder, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"covector\[federated\]"):
        ft.finetune(settings(folder, texts, dp_noise=3.0, dp_clip=0.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_noise_is_asked_for_by_default():
    assert noise_of(ft.Settings()) is None
