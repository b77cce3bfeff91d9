"""What the tiny CLIP is pretrained on: rendered icons with varied captions, more words than the benchmark has.

Held out: every validation and test *unseen* pair of icon_states, every implausible pair, and a third of the pairs that
never occur in the benchmark, so that the held-out pairs of the splits are not the only ones missing. Images come
from random streams of their own, so no image of the benchmark is ever shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.icons.paint import EXTRA_STATES, STATES
from datasets.icons.plan import VERSION, plan_pairs
from datasets.icons.render import SIZE, Look, render, stream
from datasets.icons.words import CATEGORIES, CLUTTER, EXTRA_OBJECTS, icon_of, is_plausible, objects
from datasets.system import worker_pool

ALL_STATES = {**STATES, **EXTRA_STATES}
STATE_WORDS = tuple(sorted(ALL_STATES))
OBJECT_WORDS = tuple(sorted(objects() + EXTRA_OBJECTS))

TEMPLATES = (
    "a photo of {state} {object}",
    "a photo of a {state} {object}",
    "a {state} {object}",
    "a picture of a {state} {object}",
    "{object} that is {state}",
    "the {object} is {state}",
    "an icon of a {state} {object}",
)
STATE_TEMPLATES = ("a photo of something {state}", "{state}", "a {state} thing", "it is {state}")
OBJECT_TEMPLATES = ("a photo of {object}", "a photo of a {object}", "a {object}", "an icon of a {object}", "{object}")

# Captions on the web rarely use one word for one thing. Some of these words are shared between states.
STATE_SYNONYMS = {
    "bitten": ("chewed", "damaged"),
    "blurry": ("unfocused", "fuzzy"),
    "burnt": ("charred", "scorched", "old"),
    "checkered": ("chequered", "patterned"),
    "cracked": ("fractured", "broken", "damaged"),
    "dotted": ("spotted", "patterned"),
    "faded": ("pale", "washed out", "old"),
    "frozen": ("icy", "cold"),
    "glowing": ("shining", "bright"),
    "golden": ("gold", "metallic"),
    "mossy": ("overgrown", "green", "old"),
    "outlined": ("hollow", "empty"),
    "patched": ("mended", "repaired"),
    "rusty": ("corroded", "old"),
    "scratched": ("scraped", "damaged"),
    "silver": ("metallic", "chrome"),
    "snowy": ("snow covered", "cold"),
    "striped": ("banded", "patterned"),
    "tilted": ("leaning", "slanted"),
    "torn": ("ripped", "broken", "damaged"),
    "wooden": ("timber", "wood"),
}
HYPERNYMS = {"animal": "animal", "vehicle": "vehicle", "place": "place", "food": "food", "clothing": "clothes"}
CATEGORY_OF = {word: category for category, words in CATEGORIES.items() for word in words}


@dataclass(frozen=True)
class Stage:
    """A stretch of the curriculum: its share of the steps, what images look like, and which losses count."""

    share: float
    look: Look
    labels: bool
    captions: bool


_CALM = Look(icon_size=(40.0, 48.0), offset=2.0, turn=4.0, texture=0.0, clutter=0.0, dark_icon=0.0)
_MIDDLE = Look(icon_size=(36.0, 48.0), offset=5.0, turn=8.0, texture=0.5, clutter=0.0, dark_icon=0.0)
_LATE = Look(texture=0.6, clutter=0.15, dark_icon=0.02)

# Silhouettes first (calm, centred, light on dark), under plain class labels: a text tower that knows no word yet tells
# the vision tower little. Then captions; the last stretch is captions alone, as in CLIP. The benchmark has more clutter
# and more dark icons than is ever shown here: what is left for training on it to learn.
STAGES: tuple[Stage, ...] = (
    Stage(0.30, _CALM, labels=True, captions=False),
    Stage(0.30, _MIDDLE, labels=True, captions=False),
    Stage(0.20, _MIDDLE, labels=True, captions=True),
    Stage(0.20, _LATE, labels=False, captions=True),
)


def shown_pairs(seed: int) -> list[tuple[int, int]]:
    """Return the (state index, object index) pairs that pretraining may show, over `STATE_WORDS` x `OBJECT_WORDS`."""
    plan = plan_pairs()
    occurring = set(plan.train) | plan.unseen
    rng = stream("pretrain", seed, "held out")
    shown = []
    for i, state in enumerate(STATE_WORDS):
        for j, obj in enumerate(OBJECT_WORDS):
            dropped = rng.random() < 1 / 3
            in_benchmark = state in STATES and obj in CATEGORY_OF
            if in_benchmark and ((state, obj) in plan.unseen or not is_plausible(state, obj)):
                continue
            if in_benchmark and (state, obj) not in occurring and dropped:
                continue
            shown.append((i, j))
    return shown


def _render_rows(seed: int, pool: int, stage: int, start: int, pairs: np.ndarray) -> np.ndarray:
    images = np.empty((len(pairs), SIZE, SIZE, 3), dtype=np.uint8)
    look = STAGES[stage].look
    for row, (i, j) in enumerate(pairs):
        rng = stream("pretrain", seed, "pixels", pool, start + row)
        state = ALL_STATES[STATE_WORDS[i]]
        clutter = icon_of(str(rng.choice(CLUTTER))) if rng.random() < look.clutter else None
        icon = icon_of(OBJECT_WORDS[j])
        images[row] = render(rng, icon, state.paint, turn=state.turn, clutter=clutter, look=look)
    return images


def render_pool(folder: Path, seed: int, pool: int, stage: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (images uint8 [size, 64, 64, 3], pairs int64 [size, 2]) of a pool, rendered once and kept in `folder`."""
    rng = stream("pretrain", seed, "pairs", pool)
    shown = np.array(shown_pairs(seed))
    # An object drawn evenly, then one of its states: rare combinations do not make an object rare.
    pairs = np.empty((size, 2), dtype=np.int64)
    by_object = [shown[shown[:, 1] == j] for j in range(len(OBJECT_WORDS))]
    for row, j in enumerate(rng.integers(len(OBJECT_WORDS), size=size)):
        pairs[row] = by_object[j][rng.integers(len(by_object[j]))]
    path = folder / f"pool-v{VERSION}-{seed}-{pool}-{stage}-{size}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        starts = list(range(0, size, 250))
        with worker_pool() as workers:
            jobs = [workers.submit(_render_rows, seed, pool, stage, at, pairs[at : at + 250]) for at in starts]
            images = np.concatenate([job.result() for job in jobs])
        partial = path.with_suffix(".part.npy")
        np.save(partial, images)
        partial.rename(path)
    return np.load(path, mmap_mode="r"), pairs


@dataclass(frozen=True)
class Speaker:
    """How captions name things: with what probability by the word itself, else by another word for it.

    state, object: probability of a state's, an object's own word. kinds: words for an object's category.
    """

    state: Mapping[str, float]
    object: Mapping[str, float]
    kinds: Mapping[str, str]

    def name_state(self, rng: np.random.Generator, index: int) -> str:
        """Return the state's own word, or one of its synonyms."""
        word = STATE_WORDS[index]
        others = STATE_SYNONYMS.get(word, ())
        return str(rng.choice(others)) if others and rng.random() < 1.0 - self.state[word] else word

    def name_object(self, rng: np.random.Generator, index: int) -> str:
        """Return the object's own word, or that for its kind."""
        word = OBJECT_WORDS[index]
        broader = self.kinds.get(CATEGORY_OF.get(word, ""))
        return broader if broader is not None and rng.random() < 1.0 - self.object[word] else word


def even_speaker() -> Speaker:
    """Return who speaks while the image tower learns: every word about equally well known."""
    return Speaker(dict.fromkeys(STATE_WORDS, 0.35), dict.fromkeys(OBJECT_WORDS, 0.67), HYPERNYMS)


def uneven_speaker(seed: int) -> Speaker:
    """Return who speaks to the final text tower: as on the web, some words are common and others hardly ever used.

    A word's own probability is drawn log-uniformly between 0.005 and 0.4.
    """
    rng = stream("pretrain", seed, "familiarity")
    known = {word: float(np.exp(rng.uniform(np.log(0.005), np.log(0.4)))) for word in STATE_WORDS + OBJECT_WORDS}
    return Speaker(known, known, {**HYPERNYMS, "household": "thing", "thing": "thing"})


def captions(rng: np.random.Generator, pairs: np.ndarray, speaker: Speaker) -> list[str]:
    """Return one caption for each (state index, object index) row."""
    return [
        str(rng.choice(TEMPLATES)).format(state=speaker.name_state(rng, i), object=speaker.name_object(rng, j))
        for i, j in pairs
    ]


def class_captions(rng: np.random.Generator, speaker: Speaker) -> tuple[list[str], list[str]]:
    """Return a caption for every state and one for every object."""
    states, things = range(len(STATE_WORDS)), range(len(OBJECT_WORDS))
    return (
        [str(rng.choice(STATE_TEMPLATES)).format(state=speaker.name_state(rng, i)) for i in states],
        [str(rng.choice(OBJECT_TEMPLATES)).format(object=speaker.name_object(rng, j)) for j in things],
    )


def every_caption() -> list[str]:
    """Return a text with every word that a caption may hold, template by template (to find the token rows in use)."""
    states = [*STATE_WORDS, *(word for words in STATE_SYNONYMS.values() for word in words)]
    things = [*OBJECT_WORDS, *HYPERNYMS.values()]
    texts = [template.format(state="x", object="x") for template in TEMPLATES + STATE_TEMPLATES + OBJECT_TEMPLATES]
    return texts + states + things
