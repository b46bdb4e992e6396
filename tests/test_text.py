import pytest

from llamafactory_dids.text import beginning, byte_size, one_line, without_middle


def test_one_line_has_one_space_for_each_run_of_white_space():
    assert one_line("  a\n\n b\tc ") == "a b c"


@pytest.mark.parametrize("cut", [beginning, without_middle])
def test_a_text_of_the_limit_is_whole(cut):
    assert cut("abcdef", 6) == "abcdef" and cut("", 6) == ""


def test_a_beginning_has_as_many_letters_as_the_limit():
    assert beginning("abcdefg", 6) == "abcdef …"


def test_a_beginning_of_whole_words_leaves_the_last_out_unless_it_is_the_only_one():
    assert beginning("one two three", 9, whole_words=True) == "one two …"
    assert beginning("onetwothree", 9, whole_words=True) == "onetwothr …"


def test_a_beginning_takes_what_its_letters_take():
    assert beginning("aé漢b", 6, size=lambda letter: len(letter.encode())) == "aé漢 …"
    assert beginning("aé漢b", 5, size=lambda letter: len(letter.encode())) == "aé …"
    assert beginning("aé漢b", 7, size=lambda letter: len(letter.encode())) == "aé漢b"


@pytest.mark.parametrize(("limit", "expected"), [(7, "abc…hij"), (6, "ab…hij")])
def test_without_its_middle_a_name_has_as_many_letters_as_the_limit(limit, expected):
    assert without_middle("abcdefghij", limit) == expected and len(expected) == limit


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (15_700_000, "15.7 MB"), (999_700, "1 MB"), (2_000_000_000_000, "2 TB")],
)
def test_bytes_have_three_digits_and_the_unit_that_fits(count, said):
    assert byte_size(count) == said
