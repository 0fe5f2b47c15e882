"""A fine-tuning on Flower's real processes ends with the bits of the same one in this process."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from covector import finetune as ft
from covector.errors import ArgumentError, DataError, MissingExtraError, ProtocolError
from covector.federated.flower_processes import FlowerProcesses
from covector.finetune.engines import _node_configs, _run_config
from covector.finetune.methods import make_clients, make_header, make_server
from covector.finetune.node import make_client

pytest.importorskip("flwr")


def settings(folder, texts, method="sketch", **values):
    base = {"rounds": 2, "local_steps": 2, "seeds": 64, "lr": 5e-3, "batch_size": 8, "check_every": 2}
    return ft.Settings(model=str(folder), data=str(texts), by="store", method=method, **{**base, **values})


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """The processes that Flower starts, too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.processes
@pytest.mark.slow
def test_flower_ends_with_the_ledger_and_the_bytes_of_one_process(folder, texts, tmp_path):
    chosen = settings(folder, texts)
    here = ft.finetune(chosen, tmp_path / "here", save=False)
    there = ft.finetune(chosen, tmp_path / "there", engine=ft.Flower(tmp_path / "logs"))
    assert there.main.ledger.digest() == here.main.ledger.digest()
    assert there.main.digest == here.main.digest
    assert int(there.main.ledger.coefficients.abs().max()) > 0
    assert there.patch.read_bytes() == here.patch.read_bytes()
    for mine, other in zip(there.main.records, here.main.records, strict=True):
        assert (mine.round, mine.up, mine.down, mine.events) == (other.round, other.up, other.down, [])
        assert mine.losses == pytest.approx(other.losses)
    assert (tmp_path / "there" / "report.html").exists()


@pytest.mark.processes
@pytest.mark.slow
def test_a_run_begun_in_one_process_goes_on_with_a_superlink_that_is_there(folder, texts, tmp_path):
    chosen = settings(folder, texts, "kseed")
    whole = ft.finetune(chosen, tmp_path / "whole", save=False)

    class Stop(Exception):
        pass

    def stop(record):
        if record.round == 1:
            raise Stop

    with pytest.raises(Stop):
        ft.finetune(chosen, tmp_path / "parts", listeners=[stop], save=False)
    bench = ft.Workbench(chosen, tmp_path / "bench")
    job = SimpleNamespace(settings=chosen, federation=bench.federation)
    with FlowerProcesses(tmp_path / "deployment") as deployment:
        address = deployment.superlink()
        deployment.supernodes(address, _node_configs(job, deployment.private))
        engine = ft.Flower(tmp_path / "logs", superlink=address, nodes=2)
        ended = ft.finetune(chosen, tmp_path / "parts", resume=True, engine=engine, save=False)
        assert all(process.poll() is None for process in deployment.started.values())
        started = list(deployment.started.values())
    assert all(process.poll() is not None for process in started)
    assert [record.round for record in ended.main.records] == [0, 1, 2]
    assert ended.main.digest == whole.main.digest


def context(job, tmp_path, number, **extra):
    configs = list(_node_configs(job, tmp_path).values())
    return SimpleNamespace(
        node_id=number, node_config={**configs[number], **extra}, run_config=_run_config(job, tmp_path / "relay")
    )


@pytest.mark.parametrize("method", ["sketch", "sketch-zo", "kseed", "kseed-pro"])
def test_a_node_built_from_its_own_file_answers_as_the_client_of_the_federation(method, folder, texts, tmp_path):
    chosen = settings(folder, texts, method)
    bench = ft.Workbench(chosen, tmp_path / "bench")
    job = SimpleNamespace(settings=chosen, federation=bench.federation)
    header = make_header(chosen, bench.replica)
    here = make_clients(chosen, bench.replica, bench.federation, header)
    server = make_server(chosen, header, None)
    for number, (name, message) in enumerate(server.open_round(list(here)).items()):
        node = make_client(context(job, tmp_path, number))
        assert node.handle(message) == here[name].handle(message)


def test_what_a_node_is_told_holds_no_example_of_another(folder, texts, tmp_path):
    chosen = settings(folder, texts)
    bench = ft.Workbench(chosen, tmp_path / "bench")
    job = SimpleNamespace(settings=chosen, federation=bench.federation)
    told = json.dumps(_run_config(job, tmp_path / "relay"))
    files = {name: Path(config["train"]).read_text() for name, config in _node_configs(job, tmp_path).items()}
    for name, text in files.items():
        assert len(text.splitlines()) == len(bench.federation.train[name]) > 0
        for other, examples in bench.federation.train.items():
            assert all((json.dumps(example["text"]) in text) == (other == name) for example in examples)
            assert not any(example["text"] in told for example in examples)


def test_a_node_without_data_says_what_it_needs(folder, texts, tmp_path):
    chosen = settings(folder, texts)
    bench = ft.Workbench(chosen, tmp_path / "bench")
    job = SimpleNamespace(settings=chosen, federation=bench.federation)
    node = context(job, tmp_path, 0)
    del node.node_config["train"]
    with pytest.raises(ArgumentError, match=r"train=None.*--node-config"):
        make_client(node)
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        make_client(context(job, tmp_path, 0, train="missing.jsonl"))


def test_an_engine_for_a_method_without_clients_is_refused(folder, texts, tmp_path):
    with pytest.raises(ArgumentError, match=r"method='backprop'.*kseed"):
        ft.finetune(settings(folder, texts, "backprop"), tmp_path / "out", engine=ft.Flower(tmp_path / "logs"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 2}, "nodes=2"),
        ({"root_certificates": "ca.pem"}, "root_certificates='ca.pem'"),
        ({"superlink": "localhost:1", "nodes": 0}, "nodes=0"),
        ({"timeout": 0.0}, "timeout=0.0"),
        ({"timeout": float("nan")}, "timeout=nan"),
    ],
)
def test_options_of_flower_that_cannot_work_name_themselves(options, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        ft.Flower(tmp_path, **options)


def test_without_flower_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"covector\[federated\]"):
        ft.Flower(tmp_path)


@pytest.mark.processes
@pytest.mark.slow
def test_a_superlink_that_is_not_there_is_reported_in_flowers_words(folder, texts, tmp_path):
    engine = ft.Flower(tmp_path / "logs", superlink="127.0.0.1:9", nodes=1)
    with pytest.raises(ProtocolError, match="Flower did not start the run: run ended with"):
        ft.finetune(settings(folder, texts), tmp_path / "out", engine=engine, save=False)
