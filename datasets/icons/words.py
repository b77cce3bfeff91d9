"""The words of icon_states: objects and their icons, implausible pairs, and the extra words of pretraining."""

from __future__ import annotations

CATEGORIES: dict[str, tuple[str, ...]] = {
    "animal": ("dog", "cat", "horse", "cow", "frog", "fish", "crow", "spider", "dragon", "hippo"),
    "vehicle": (
        *("car", "truck", "bus", "bicycle", "motorcycle", "helicopter"),
        *("plane", "rocket", "tractor", "sailboat", "train"),
    ),
    "place": ("house", "church", "tent", "tree", "mountain", "igloo"),
    "food": ("apple", "lemon", "carrot", "cheese", "burger", "cookie"),
    "household": ("chair", "couch", "bed", "toilet", "umbrella", "bell", "key", "scissors", "bucket", "book"),
    "clothing": ("shirt", "mitten", "crown", "hat", "glasses"),
    "thing": ("camera", "guitar", "drum", "anchor", "skull", "robot", "trophy", "heart"),
}
"""The benchmark's 56 objects by category."""

EXTRA_OBJECTS: tuple[str, ...] = (
    *("star", "ghost", "taxi", "ship", "dove", "otter", "hand", "tooth", "bone", "feather", "gift", "bulb", "clock"),
    *("hammer", "wrench", "broom", "hospital", "mug", "hourglass", "snowman", "scroll", "knight", "bomb", "leaf"),
    *("flask", "pepper", "envelope", "shield", "basket"),
)
"""Objects that only the pretraining of the tiny CLIP shows."""

ICONS: dict[str, str] = {
    "apple": "apple_whole",
    "basket": "basket_shopping",
    "bulb": "lightbulb",
    "hat": "hat_cowboy",
    "knight": "chess_knight",
    "mug": "mug_hot",
    "pepper": "pepper_hot",
    "shield": "shield_halved",
    "train": "train_subway",
}
"""Font Awesome's name where it is not the word itself."""

CLUTTER: tuple[str, ...] = (
    *("cube", "gear", "paperclip", "puzzle_piece", "bolt", "tag", "shapes", "wifi", "location_dot", "flag"),
    "magnet",
)
"""Icons that appear small and dim beside the object; none of them is an object of the vocabulary."""

IMPLAUSIBLE: dict[str, tuple[str, ...]] = {
    # state: categories or objects it never describes; such pairs are in no split, and are what an open-world
    # feasibility score should learn to refuse.
    "bitten": ("vehicle", "place", "crown", "glasses", "anchor", "camera", "robot", "scissors", "key"),
    "rusty": ("animal", "food", "clothing", "tree", "mountain", "tent", "igloo", "heart", "book", "couch"),
    "torn": ("vehicle", "house", "church", "mountain", "igloo", "skull", "anchor", "trophy", "robot"),
    "wooden": ("food", "igloo", "mountain", "glasses", "mitten"),
    "patched": ("food", "mountain", "igloo", "tree", "scissors", "key", "glasses"),
    "mossy": ("food", "glasses", "crown", "shirt"),
    # These icons are drawn slanted, so turning them shows nothing.
    "tilted": ("guitar", "carrot", "rocket", "lemon", "key", "cookie", "cheese"),
}


def icon_of(word: str) -> str:
    """Return the Font Awesome name of an object word.

    >>> icon_of("hat"), icon_of("dog")
    ('hat_cowboy', 'dog')
    """
    return ICONS.get(word, word)


def objects() -> tuple[str, ...]:
    """Return the benchmark's objects in code-point order."""
    return tuple(sorted(word for words in CATEGORIES.values() for word in words))


def is_plausible(state: str, obj: str) -> bool:
    """Tell whether a pair may occur at all, by the table of implausible pairs."""
    barred = IMPLAUSIBLE.get(state, ())
    return obj not in barred and not any(obj in CATEGORIES.get(name, ()) for name in barred)
