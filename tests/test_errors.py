"""A user's error says what was asked, what is there and what to do next; numbers go with their nouns."""

import pytest

from errors import UserError, counted, did_you_mean, nearest, some


def test_message_has_three_parts():
    error = UserError("No suite is called 'quik'.", "The suites are main, quick.", "Did you mean 'quick'?")
    assert str(error) == "No suite is called 'quik'. The suites are main, quick. Did you mean 'quick'?"
    assert (error.asked, error.there, error.next_step) == (
        "No suite is called 'quik'.",
        "The suites are main, quick.",
        "Did you mean 'quick'?",
    )


def test_empty_parts_leave_no_blanks():
    assert str(UserError("Too little.", "", "Give more.")) == "Too little. Give more."
    assert str(UserError("Too little.")) == "Too little."


def test_nearest_ignores_case_and_returns_the_known_spelling():
    assert nearest("csq", ["CSP", "troika"]) == ["CSP"]
    assert nearest("VIT-B-16", ["ViT-B-16", "ViT-B-32"])[0] == "ViT-B-16"


def test_nothing_near_suggests_nothing():
    assert nearest("zzz", ["csp", "troika"]) == []
    assert did_you_mean("zzz", ["csp", "troika"]) == ""
    assert did_you_mean("anything", []) == ""


def test_at_most_three_suggestions():
    known = [f"method_{letter}" for letter in "abcdef"]
    assert len(nearest("method_", known)) == 3


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (1, ("image",), "1 image"),
        (0, ("image",), "0 images"),
        (1200, ("image",), "1,200 images"),
        (1, ("run is", "runs are"), "1 run is"),
        (2, ("run is", "runs are"), "2 runs are"),
    ],
)
def test_numbers_go_with_their_nouns(number, words, said):
    assert counted(number, *words) == said


def test_names_in_a_sentence_are_few():
    assert some("abc") == "a, b, c"
    assert some(map(str, range(1200))).endswith("8, 9 and 1,190 more")
    assert some(["x"] * 7, 5, "; ", "; and ") == "x; x; x; x; x; and 2 more"
