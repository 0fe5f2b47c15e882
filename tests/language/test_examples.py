import json
import random

import pytest

from covector.errors import ArgumentError, DataError
from covector.language import by_field, read_jsonl, shape_of, split


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ({"text": "a"}, "text"),
        ({"prompt": "a", "completion": "b"}, "prompt"),
        ({"text": "a", "label": 1}, "label"),
        ({"text": "a", "label": "good", "domain": "news"}, "label"),
        ({"prompt": "a", "completion": "b", "text": "c"}, "prompt"),
    ],
)
def test_each_shape_is_recognized_and_keys_are_kept(tmp_path, line, shape):
    examples = read_jsonl(write(tmp_path / "data.jsonl", line, "", line))
    assert examples == [line, line]
    assert shape_of(examples) == shape


def test_labeled_text_can_be_read_for_language_modeling(tmp_path):
    file = write(tmp_path / "data.jsonl", {"text": "a", "label": 1}, {"text": "b"})
    assert len(read_jsonl(file, shape="text")) == 2


def test_line_separators_inside_a_text_do_not_end_a_line(tmp_path):
    line = json.dumps({"text": "one\u2028two\x85three"}, ensure_ascii=False)
    assert read_jsonl(write(tmp_path / "data.jsonl", line)) == [{"text": "one\u2028two\x85three"}]


def test_an_empty_file_is_an_empty_data_set(tmp_path):
    assert read_jsonl(write(tmp_path / "data.jsonl", "", "  ")) == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"text": "a"}', "{text}"], "line 2 is not JSON"),
        (['{"text": "a"}', "[1]"], "line 2 is a JSON list.*'prompt' and 'completion'"),
        (['{"body": "a", "id": 3}'], "line 1 has the keys 'body', 'id'; expected 'text'"),
        (["{}"], "line 1 has no keys"),
        (['{"text": "a", "label": 1}', "", '{"text": "b"}'], "line 3 has the keys 'text'.*needs 'text' and 'label'"),
        (['{"text": 5}'], "line 1 has text=5; expected a string"),
        (['{"text": "a", "label": 0.5}'], "label=0.5; expected a string or a whole number"),
        (['{"text": "a", "label": null}'], "label=None"),
    ],
)
def test_what_does_not_fit_is_named_by_line_and_keys(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        read_jsonl(write(tmp_path / "data.jsonl", *lines))


def test_a_missing_or_binary_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"no file .*gone.jsonl"):
        read_jsonl(tmp_path / "gone.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_jsonl(tmp_path / "binary")


def test_an_unknown_shape_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="shape='tabular'"):
        read_jsonl(tmp_path / "x", shape="tabular")


def test_the_shape_of_nothing_is_refused():
    with pytest.raises(ArgumentError, match="at least one example"):
        shape_of([])


def test_clients_are_the_values_of_a_field():
    examples = [{"text": t, "by": b} for t, b in [("1", "Zoe"), ("2", "Ann"), ("3", "Zoe"), ("4", 7)]]
    clients = by_field(examples, "by")
    assert list(clients) == ["7", "Ann", "Zoe"]
    assert [example["text"] for example in clients["Zoe"]] == ["1", "3"]


def test_a_listed_client_may_be_empty_and_an_unlisted_one_is_an_error():
    examples = [{"text": "1", "by": "Ann"}]
    assert by_field(examples, "by", clients=["Zoe", "Ann"]) == {"Zoe": [], "Ann": examples}
    with pytest.raises(DataError, match=r"by='Ann'.*clients=\['Zoe'\]"):
        by_field(examples, "by", clients=["Zoe"])


def test_a_field_that_is_missing_is_named():
    with pytest.raises(DataError, match=r"example 1 has no 'by'.*'text'"):
        by_field([{"text": "1", "by": "Ann"}, {"text": "2"}], "by")


def corpus(n=400):
    return [{"text": f"text {i}", "label": int(i % 4 == 0), "by": "AB"[i % 2]} for i in range(n)]


def test_splits_are_disjoint_complete_and_in_order():
    examples = corpus()
    parts = split(examples)
    position = {example["text"]: i for i, example in enumerate(examples)}
    for part in parts:
        places = [position[example["text"]] for example in part]
        assert places == sorted(places)
    assert sorted(e["text"] for part in parts for e in part) == sorted(e["text"] for e in examples)


def test_splits_are_stratified():
    parts = split(corpus(), validation=0.25, test=0.25, strata=("label", "by"))
    for part, share in zip(parts, (0.5, 0.25, 0.25), strict=True):
        for label, by, n in ((1, "A", 100), (0, "A", 100), (0, "B", 200)):
            assert sum(e["label"] == label and e["by"] == by for e in part) == share * n


def test_a_split_depends_on_the_seed_and_not_on_the_order():
    examples = corpus()
    shuffled = random.Random(0).sample(examples, len(examples))
    texts = [{e["text"] for e in part} for part in split(examples, seed=1)]
    assert texts == [{e["text"] for e in part} for part in split(shuffled, seed=1)]
    assert texts != [{e["text"] for e in part} for part in split(examples, seed=2)]


def test_equal_texts_stay_on_one_side_even_with_different_labels():
    examples = [{"text": f"text {i // 5}", "label": i % 3} for i in range(300)]
    train, validation, test = ({e["text"] for e in part} for part in split(examples, 0.2, 0.2))
    assert train
    assert validation
    assert test
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_prompts_split_like_texts():
    parts = split([{"prompt": f"p {i}", "completion": "c"} for i in range(50)], validation=0, test=0.5)
    assert [len(part) for part in parts] == [25, 0, 25]


def test_nothing_splits_into_nothing():
    assert split([]) == ([], [], [])


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.2), (0.1, 1.0), (0.5, 0.5)])
def test_impossible_fractions_are_refused(validation, test):
    with pytest.raises(ArgumentError):
        split(corpus(8), validation, test)
