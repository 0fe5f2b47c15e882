import pytest

from covector.errors import ArgumentError
from covector.language.encoding import Encoder, pad_rows, plain_ids


def words(tokenizer, ids):
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def test_a_long_text_loses_its_end_and_the_template_stays(tokenizer):
    encoder = Encoder(tokenizer, "this {text} It was", max_length=6)
    short, long = encoder(["a b", "a b c d e f g h"])
    assert words(tokenizer, short) == "this a b It was"
    assert words(tokenizer, long) == "this a b c It was"


def test_truncation_keeps_as_much_text_as_fits(tokenizer):
    text = "a b c d e f g h"
    for length in range(3, 14):
        (ids,) = Encoder(tokenizer, "{text} It was", length)([text])
        assert len(ids) == min(length, 10)


def test_room_that_is_reserved_is_left_free(tokenizer):
    encoder = Encoder(tokenizer, "{text} It was", max_length=8)
    rows = encoder(["a b c d e f g h", "a b c d e f g h"], reserve=[0, 5])
    assert [words(tokenizer, row) for row in rows] == ["a b c d e f It was", "a It was"]


def test_begin_token_is_kept_and_end_token_left_out(begin_end_tokenizer):
    (ids,) = Encoder(begin_end_tokenizer, "{text} It was", max_length=5)(["a b c d"])
    assert words(begin_end_tokenizer, ids) == "[BOS] a b It was"


def test_braces_in_a_text_are_text(tokenizer):
    encoder = Encoder(tokenizer, "{text} It was", max_length=8)
    assert encoder.render("{0} {text} {") == "{0} {text} { It was"


def test_no_texts_give_no_rows(tokenizer):
    assert Encoder(tokenizer)([]) == []
    assert plain_ids(tokenizer, []) == []


@pytest.mark.parametrize("template", ["It was", "{text} {text}", "{words}"])
def test_a_template_without_one_slot_is_refused(tokenizer, template):
    with pytest.raises(ArgumentError, match="template"):
        Encoder(tokenizer, template)


def test_a_length_that_holds_no_text_is_refused(tokenizer):
    with pytest.raises(ArgumentError, match="max_length=2"):
        Encoder(tokenizer, "{text} It was", max_length=2)


def test_padding_goes_to_the_side_asked_for():
    assert pad_rows([[1, 2, 3], [4]], 9, "right").tolist() == [[1, 2, 3], [4, 9, 9]]
    assert pad_rows([[1, 2, 3], [4]], 9, "left").tolist() == [[1, 2, 3], [9, 9, 4]]
