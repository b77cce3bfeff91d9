"""A user's error says what was asked, what is there and what to do next."""

from errors import UserError, did_you_mean, nearest


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
