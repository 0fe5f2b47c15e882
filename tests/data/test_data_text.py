"""The text corpora, fetched for real."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covector import data
from covector.data.documents import _parts, passages
from covector.errors import ArgumentError

CORPORA = ["austen", "brown", "moby-dick", "sentiment", "sotu", "spam"]


@pytest.mark.parametrize("name", CORPORA)
def test_splits_are_disjoint_and_cover_the_corpus(name):
    corpus = data.load(name)
    indices = [index for split in corpus.splits.values() for index in split]
    assert sorted(indices) == list(range(len(corpus.examples)))
    assert all(corpus.splits.values())


@pytest.mark.parametrize("name", CORPORA)
def test_no_text_and_no_id_is_in_two_splits(name):
    corpus = data.load(name)
    for key in ("text", "id"):
        values = [{example[key] for example in corpus.split(split)} for split in corpus.splits]
        assert len(set.union(*values)) == sum(len(found) for found in values)


@pytest.mark.parametrize("name", CORPORA)
def test_every_example_has_text_and_client_and_loading_again_gives_the_same(name):
    corpus = data.load(name)
    assert all(example["text"].strip() and example["client"] for example in corpus.examples)
    again = data.load(name)
    assert (again.examples, again.splits) == (corpus.examples, corpus.splits)


def test_sentiment_has_four_domains_with_200_to_evaluate_on():
    corpus = data.load("sentiment")
    for split in ("validation", "test"):
        clients = corpus.clients(split)
        assert list(clients) == ["movies", "news", "products", "tweets"]
        assert all(len(examples) >= 200 for examples in clients.values())


def test_sentiment_splits_keep_the_share_of_positive_texts_in_each_domain():
    balance = {split: data.load("sentiment").balance(split) for split in ("train", "validation", "test")}
    for domain, counts in balance["train"].items():
        share = counts[1] / sum(counts.values())
        for split in ("validation", "test"):
            own = balance[split][domain]
            assert own[1] / sum(own.values()) == pytest.approx(share, abs=0.03)


def test_sentiment_labels_are_the_sign_of_clear_ratings():
    for minimum in (1.0, 2.0):
        for example in data.load("sentiment", minimum=minimum).examples:
            assert abs(example["rating"]) >= minimum
            assert example["label"] == (example["rating"] > 0)


def test_sentiment_examples_keep_their_split_whatever_the_threshold():
    wide, narrow = data.load("sentiment", minimum=0.5), data.load("sentiment", minimum=2.0)
    for split in wide.splits:
        assert {e["id"] for e in narrow.split(split)} < {e["id"] for e in wide.split(split)}


def test_sentiment_sentences_of_one_article_stay_together():
    corpus = data.load("sentiment", minimum=0.1)
    articles = [{e["id"].split("_")[0] for e in corpus.split(s)} for s in corpus.splits]
    assert len(set.union(*articles)) == sum(len(found) for found in articles)


@pytest.mark.parametrize("minimum", [0.0, -1.0, 4.5])
def test_sentiment_refuses_a_threshold_that_keeps_nothing_or_everything(minimum):
    with pytest.raises(ArgumentError, match="minimum"):
        data.load("sentiment", minimum=minimum)


def test_sotu_has_the_published_counts():
    corpus = data.load("sotu")
    assert len({example["document"] for example in corpus.examples}) == 233
    for split in corpus.splits:
        assert len(corpus.clients(split)) == 43
    words = Counter()
    for example in corpus.examples:
        words[example["client"]] += len(example["text"].split())
    assert words.total() == pytest.approx(1.79e6, rel=0.01)
    assert words["Theodore Roosevelt"] == pytest.approx(157e3, rel=0.01)


def test_brown_has_500_documents_and_every_genre_in_every_split():
    corpus = data.load("brown")
    assert len(corpus.examples) == 500
    assert Counter(e["client"] for e in corpus.examples)["learned"] == 80
    for split in corpus.splits:
        assert len(corpus.clients(split)) == 15
    assert {(e["client"], e["label"]) for e in corpus.examples} == {
        (genre, number) for number, genre in enumerate(sorted({e["client"] for e in corpus.examples}))
    }


def test_brown_reads_as_running_text():
    first = next(e for e in data.load("brown").examples if e["document"] == "ca01")
    assert first["text"].startswith(
        "The Fulton County Grand Jury said Friday an investigation of Atlanta's recent primary election "
        'produced "no evidence" that any irregularities took place. The jury further said'
    )


def test_austen_has_the_chapters_of_the_six_novels():
    chapters = Counter(e["client"] for e in data.load("austen").split("train"))
    assert chapters == {
        "Pride and Prejudice": 61, "Emma": 55, "Sense and Sensibility": 50, "Mansfield Park": 48,
        "Northanger Abbey": 31, "Persuasion": 24,
    }  # fmt: skip


def test_moby_dick_has_135_chapters_and_starts_with_ishmael():
    corpus = data.load("moby-dick")
    assert len(corpus.clients("train")) == 135
    assert corpus.examples[0]["text"].startswith("Call me Ishmael.")


def test_spam_shows_no_headers_and_is_stratified_by_group():
    corpus = data.load("spam")
    assert all(e["label"] == e["client"].startswith("spam") for e in corpus.examples)
    # nearly every mail has this header; what is left are bodies that quote one
    assert sum("Delivered-To:" in e["text"] for e in corpus.examples) < 0.01 * len(corpus.examples)
    counts = {split: Counter(e["client"] for e in corpus.split(split)) for split in corpus.splits}
    for group, count in counts["train"].items():
        assert counts["test"][group] == pytest.approx(count / 8, abs=1)


@pytest.mark.parametrize("name", ["austen", "brown", "moby-dick", "sotu"])
def test_passages_keep_every_word_in_its_split(name):
    whole, cut = data.load(name), data.load(name, words=64)
    for split in whole.splits:
        assert all(len(e["text"].split()) <= 64 for e in cut.split(split))
        words = [word for e in whole.split(split) for word in e["text"].split()]
        assert [word for e in cut.split(split) for word in e["text"].split()] == words


@given(st.text(alphabet='ab .!?;"\n'), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_passages_and_parts_lose_nothing(text, words):
    found = passages(text, words)
    assert " ".join(found).split() == text.split()
    assert all(1 <= len(passage.split()) <= words for passage in found)
    assert "".join("".join(_parts(text)).split()) == "".join(text.split())


def test_documents_refuse_passages_without_words():
    with pytest.raises(ArgumentError, match="words=0"):
        data.load("sotu", words=0)
