"""Somebody's own images: the rules of a drawn split, the way through a CSV file and back, and every mistake named."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import here
from PIL import Image

from datasets.content import content_hashes
from datasets.icons.paint import STATES
from datasets.icons.render import render, stream
from datasets.own import folder as folder_module
from datasets.own.folder import load, main
from datasets.own.images import split_pair
from datasets.own.split import SplitOptions, draw_split
from errors import UserError
from registry import DATASETS

ROOT = Path(__file__).parents[2]
GRID = [(state, obj) for state in ("dry", "old", "wet") for obj in ("cat", "dog", "fox", "pig")]


def make_folder(root: Path, pairs=GRID, images=4, separator=" ") -> Path:
    """Images of a pixel, each of its own colour, in a folder per pair."""
    number = 0
    for state, obj in pairs:
        below = root / f"{state}{separator}{obj}"
        below.mkdir(parents=True, exist_ok=True)
        for name in range(images):
            number += 1
            Image.new("RGB", (1, 1), (number % 256, number // 256, 7)).save(below / f"{name}.png")
    return root


def listed(dataset) -> set[tuple[str, str, str, str]]:
    words = dataset.vocabulary
    return {
        (phase, name, words.states[s], words.objects[o])
        for phase, split in dataset.splits.items()
        for name, s, o in zip(split.images, split.states, split.objects, strict=True)
    }


def error_of(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def write_csv(path: Path, rows, columns=("path", "state", "object", "split")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


# The drawn split


@st.composite
def collections(draw):
    """Labels and contents of a made collection: some pairs of a grid, some images each, now and then a copy."""
    grid = [(f"s{i}", f"o{j}") for i in range(draw(st.integers(1, 5))) for j in range(draw(st.integers(1, 5)))]
    pairs = draw(st.lists(st.sampled_from(grid), unique=True, min_size=1))
    labels, contents = [], []
    for pair in pairs:
        for number in range(draw(st.integers(1, 7))):
            copies = draw(st.sampled_from([1, 1, 1, 2]))
            labels += [pair] * copies
            contents += [f"{pair}{number}"] * copies
    return labels, contents


def words(pairs) -> tuple[set[str], set[str]]:
    return {state for state, _ in pairs}, {obj for _, obj in pairs}


@settings(max_examples=150, deadline=None)
@given(collections(), st.integers(0, 3), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.randoms(use_true_random=False))
def test_a_drawn_split_obeys_the_rules_or_is_refused(made, seed, share, random):
    labels, contents = made
    options = SplitOptions(seed, unseen=share)
    try:
        phases = draw_split(labels, contents, options)
    except UserError as error:
        pairs = set(labels)
        if "too few pairs" in str(error):
            assert not any(words(pairs - set(two)) == words(pairs) for two in combinations(sorted(pairs), 2))
        else:
            assert "has no seen pair" in str(error)
        return
    by_phase = {phase: {p for p, own in zip(labels, phases, strict=True) if own == phase} for phase in set(phases)}
    train = by_phase["train"]
    unseen = set(labels) - train
    assert 2 <= len(unseen) <= max(2, round(share * len(set(labels))))
    assert not by_phase["val"] & by_phase["test"] & unseen, "an unseen pair belongs to one phase"
    assert words(train) == words(labels)
    for phase in ("val", "test"):
        assert by_phase[phase] & train and by_phase[phase] - train
    assert abs(len(by_phase["test"] & unseen) - len(by_phase["val"] & unseen)) <= 1
    where = {}
    for label, content, phase in zip(labels, contents, phases, strict=True):
        assert where.setdefault((label, content), phase) == phase, "copies stay together"
    order = list(range(len(labels)))
    random.shuffle(order)
    again = draw_split([labels[i] for i in order], [contents[i] for i in order], options)
    assert again == [phases[i] for i in order], "the order of the images does not matter"


def test_seen_pairs_give_every_phase_its_share():
    labels = [pair for pair in GRID for _ in range(20)]
    phases = draw_split(labels, [str(i) for i in range(len(labels))], SplitOptions(unseen=0.25))
    counts = Counter(zip(labels, phases, strict=True))
    seen = {pair for pair, phase in counts if phase == "train"}
    assert len(seen) == 9
    assert {(counts[pair, "train"], counts[pair, "val"], counts[pair, "test"]) for pair in seen} == {(14, 3, 3)}


def test_pairs_with_two_images_serve_val_and_test_in_turn():
    labels = [pair for pair in GRID for _ in range(2)]
    phases = draw_split(labels, [str(i) for i in range(len(labels))], SplitOptions())
    counts = Counter(phase for label, phase in zip(labels, phases, strict=True))
    assert counts == {"train": 10, "val": 7, "test": 7}


def test_seeds_differ_and_the_default_never_changes():
    labels = [pair for pair in GRID for _ in range(4)]
    contents = [str(i) for i in range(len(labels))]
    drawn = [tuple(draw_split(labels, contents, SplitOptions(seed))) for seed in range(4)]
    assert len(set(drawn)) == 4
    assert hashlib.sha256(repr(drawn).encode()).hexdigest() == DRAWN, "raise folder.VERSION if meant"


DRAWN = "aa320ab0fcfdfa7bd3e0f734f2d45f3f7ef4a41762ab0ae0b70fb84d77d65148"


@pytest.mark.parametrize("options", [{"unseen": 0.0}, {"val": 1.0}, {"test": -0.1}, {"val": 0.5, "test": 0.5}])
def test_impossible_shares_are_refused(options):
    assert "Choose" in error_of(lambda: SplitOptions(**options))


# A folder


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("wet cat", ("wet", "cat")),
        ("wet_cat", ("wet", "cat")),
        ("wet_traffic light", ("wet", "traffic light")),
        ("deep fried_green egg", ("deep fried", "green egg")),
        ("Faux.Fur_Shoes.Boat-Shoes", ("Faux.Fur", "Shoes.Boat-Shoes")),
    ],
)
def test_a_name_is_divided_at_its_one_separator(name, pair):
    assert split_pair(name) == pair


@pytest.mark.parametrize("name", ["cat", "wet_traffic_light", "wet traffic light", "_cat", "wet_", " cat", "wet_ "])
def test_other_names_are_no_pairs(name):
    with pytest.raises(ValueError, match="one underscore or one space"):
        split_pair(name)


@pytest.mark.parametrize("separator", [" ", "_"])
def test_a_folder_becomes_a_data_set(tmp_path, separator):
    made = make_folder(tmp_path / "my photos", separator=separator)
    (made / f"wet{separator}cat/deeper").mkdir()
    (made / f"wet{separator}cat/0.png").rename(made / f"wet{separator}cat/deeper/0.PNG")
    (made / "readme.txt").write_text("x")
    Image.new("RGB", (1, 1)).save(made / "cover.png")
    (made / f"wet{separator}cat/Thumbs.db").write_text("x")
    (made / ".hidden").mkdir()
    dataset = load(str(made))
    assert dataset.name == "folder:my photos"
    assert dataset.vocabulary.states == ("dry", "old", "wet")
    assert {len(split.images) for split in dataset.splits.values()} != {0}
    assert len(listed(dataset)) == 48
    for phase, split in dataset.splits.items():
        assert dataset.load_image(phase, 0).size == (1, 1)
        assert dataset.image_path(phase, 0) == made / split.images[0]
        assert list(split.images) == sorted(split.images)
    assert "Left out, because they are in no folder of a pair: 1 (cover.png)." in dataset.notes
    assert "Left out, because they are no images: 1 (readme.txt)." in dataset.notes
    assert any("systems or storage left them there: 2 (1 x .hidden, 1 x Thumbs.db)." in note for note in dataset.notes)
    assert "48 images of 12 pairs (3 states x 4 objects)" in dataset.notes[0]
    assert "drawn with seed 0: 2 of 12 pairs are unseen" in dataset.notes[1]
    candidates = dataset.candidates("test")
    assert (len(candidates), candidates.seen.sum()) == (11, 10)
    assert len(dataset.candidates("test", "open")) == 12


def test_a_missing_image_of_ones_own_is_never_to_be_deleted(tmp_path):
    dataset = load(str(make_folder(tmp_path / "photos")))
    dataset.image_path("val", 0).unlink()
    message = error_of(dataset.load_image, "val", 0)
    assert "Restore the file" in message and "delete" not in message


# A CSV file


def test_the_written_split_gives_the_same_data_set(tmp_path, monkeypatch):
    photos = make_folder(tmp_path / "photos")
    first = load(str(photos))
    note = next(note for note in first.notes if "is written to" in note)
    files = [Path(note.split(" written to ")[1].split(";")[0])]
    for out in (tmp_path / "beside.csv", photos / "inside.csv", tmp_path / "elsewhere/far.csv"):
        out.parent.mkdir(exist_ok=True)
        assert main([str(photos), "--out", str(out)]) == 0
        files.append(out)
    assert (photos / "inside.csv").read_text().splitlines()[1].startswith("dry cat/0.png,dry,cat,")
    assert (tmp_path / "beside.csv").read_text().splitlines()[1].startswith("photos/dry cat/0.png,dry,cat,")
    (photos / "inside.csv").rename(photos / "inside.CSV")
    files[2] = photos / "inside.CSV"
    shuffled = files[1].read_text().splitlines()
    files.append(tmp_path / "shuffled.csv")
    files[-1].write_text("\ufeff" + "\r\n".join([shuffled[0], *reversed(shuffled[1:]), ""]))
    for file in files:
        monkeypatch.chdir(file.parent)
        again = load(file.name)
        assert (again.name, again.digest) == (first.name, first.digest)
        assert listed(again) == listed(first)
        for phase in ("train", "val", "test"):
            assert again.splits[phase].images == first.splits[phase].images
            assert (again.candidates(phase).pairs == first.candidates(phase).pairs).all()
            assert again.image_path(phase, 0) == first.image_path(phase, 0)


def test_the_digest_tells_pixels_labels_and_splits_apart(tmp_path):
    def digest(change=lambda rows, root: None):
        root = tmp_path / str(len(list(tmp_path.iterdir()))) / "photos"
        make_folder(root)
        rows = [list(row) for row in csv.reader(base.open())][1:]
        change(rows, root)
        return load(str(write_csv(root / "split.csv", rows))).digest

    photos = make_folder(tmp_path / "0/photos")
    base = tmp_path / "0/photos/base.csv"
    main([str(photos), "--out", str(base)])

    def repaint(rows, root):
        Image.new("RGB", (1, 1), "white").save(root / rows[0][0])

    def relabel(rows, root):
        rows[0][1:3] = "wet", "pig"

    def move(rows, root):
        row = next(row for row in rows if row[3] == "train")
        row[3] = "test"

    found = [digest(), digest(), digest(repaint), digest(relabel), digest(move)]
    assert found[0] == found[1] == load(str(photos)).digest
    assert len(set(found)) == 4


def test_contents_are_hashed_once(tmp_path, own_cache):
    paths = [make_folder(tmp_path / "photos", GRID[:1]) / f"dry cat/{i}.png" for i in range(4)]
    first = content_hashes(paths)
    store = max((own_cache / "content").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    known = json.loads(store.read_text())
    assert sorted(known) == ["0.png", "1.png", "2.png", "3.png"]
    known["0.png"][2] = "remembered"
    store.write_text(json.dumps(known))
    assert content_hashes(paths) == ["remembered", *first[1:]]
    paths[0].write_bytes(b"other bytes")
    assert content_hashes(paths)[0] not in ("remembered", first[0])
    for spoilt in ("{", "[]", '{"1.png": [1, 2]}'):
        store.write_text(spoilt)
        assert content_hashes(paths)[1:] == first[1:]


def test_a_csv_without_a_split_gets_one(tmp_path):
    photos = make_folder(tmp_path / "photos")
    rows = [(f"photos/{s} {o}/{i}.png", s, o) for s, o in GRID for i in range(4)]
    plain = write_csv(tmp_path / "plain.csv", rows, ("path", "state", "object"))
    empty = write_csv(tmp_path / "empty.csv", [(*row, "") for row in rows])
    assert load(str(plain)).digest == load(str(empty)).digest == load(str(photos)).digest


def test_copies_are_reported(tmp_path):
    photos = make_folder(tmp_path / "photos")
    (photos / "wet cat/copy.png").write_bytes((photos / "wet cat/0.png").read_bytes())
    dataset = load(str(photos))
    assert "Copies of other images, byte for byte: 1; contents found in several phases: 0." in dataset.notes


# Labels in several spellings, MIT-States' words for none, published layouts


SPELLINGS = {
    "capitals": ("soaked", "Soaked"),
    "full stop": ("traffic light", "traffic.light"),
    "no-break space": ("traffic light", "traffic\u00a0light"),
    "narrow no-break space": ("traffic light", "traffic\u202flight"),
    "two spaces": ("traffic light", "traffic  light"),
    "decomposed": ("café", "cafe\u0301"),
    "soft hyphen": ("traffic", "traf\u00adfic"),
}


@pytest.mark.parametrize("column", [1, 2])
@pytest.mark.parametrize("one, other", SPELLINGS.values(), ids=SPELLINGS)
def test_one_label_in_two_spellings_is_refused_and_merged(tmp_path, capsys, one, other, column):
    rows = good_rows(tmp_path)
    old = rows[0][column]
    for row in rows:
        row[column] = one if row[column] == old else row[column]
    clean = load(str(write_csv(tmp_path / "clean.csv", rows)))
    for row in rows[1::3]:
        row[column] = other if row[column] == one else row[column]
    odd = write_csv(tmp_path / "odd split.csv", rows)
    message = error_of(load, str(odd))
    assert "written in several ways" in message and "--merge-labels --out merged.csv'" in message
    assert ("state '" if column == 1 else "object '") in message and message.count(" images)") == 2
    assert main([str(odd), "--merge-labels", "--out", str(tmp_path / "merged.csv")]) == 0
    assert "is merged into" in capsys.readouterr().out
    merged = load(str(tmp_path / "merged.csv"))
    assert merged.digest == clean.digest and merged.vocabulary == clean.vocabulary


def test_a_word_may_be_a_state_and_an_object(tmp_path):
    rows = good_rows(tmp_path)
    for row in rows:
        row[2] = "Wet" if row[2] == "cat" else row[2]
    assert load(str(write_csv(tmp_path / "x.csv", rows))).vocabulary.objects[0] == "Wet"


def test_folders_of_one_pair_are_one_pair_and_folders_of_two_spellings_are_refused(tmp_path):
    photos = make_folder(tmp_path / "photos")
    (photos / "wet_cat").mkdir()
    Image.new("RGB", (1, 1)).save(photos / "wet_cat/0.png")
    assert "49 images of 12 pairs" in load(str(photos)).notes[0]
    (photos / "wet_cat").rename(photos / "Wet_cat")
    message = error_of(load, str(photos))
    assert "1 label is written" in message and "state 'Wet' (1 image) = 'wet' (16 images)" in message
    assert "Wet" not in load(str(photos), merge_labels=True).vocabulary.states


def test_folders_without_a_state_are_left_out(tmp_path):
    photos = make_folder(tmp_path / "photos")
    before = load(str(photos)).digest
    make_folder(photos, [("adj", "cat"), ("adj", "dog")], images=2)
    dataset = load(str(photos))
    assert dataset.digest == before
    assert any("4 images of 2 folders (adj cat, adj dog)" in note for note in dataset.notes)
    make_folder(tmp_path / "none", [("adj", "cat"), ("adj", "dog")])
    assert "'adj' stands for no state" in error_of(load, str(tmp_path / "none"))


@pytest.mark.parametrize("beside", ["compositional-split-natural/x.txt", "metadata_compositional-split-natural.t7"])
def test_the_layout_of_a_published_data_set_is_not_split_anew_in_silence(tmp_path, beside):
    root = tmp_path / "mit-states"
    make_folder(root / "images")
    (root / beside).parent.mkdir(exist_ok=True)
    (root / beside).write_text("x")
    message = error_of(load, str(root))
    assert "another split" in message and "--dataset mit_states" in message and "CZSL_DATA" in message
    assert "if that is meant" not in message
    assert any("which is not used" in note for note in load(str(root / "images")).notes)


# Mistakes


def test_paths_that_are_not_there(tmp_path):
    for name in ("./nothing", str(tmp_path / "none.csv")):
        DATASETS.check(name)
        assert "There is no folder or CSV file" in error_of(DATASETS.get(name))
    with pytest.raises(UserError, match="No data set is called 'nothing'"):
        DATASETS.check("nothing")


def test_a_folder_in_the_working_directory_needs_no_separator(tmp_path, monkeypatch):
    make_folder(tmp_path / "photos")
    (tmp_path / "icon_states").mkdir()
    monkeypatch.chdir(tmp_path)
    assert DATASETS.get("photos")().name == "folder:photos"
    assert getattr(DATASETS.get("icon_states"), "__name__", "") == "load", "a data set's own name comes first"


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda root: root.mkdir(), ["There are no images in", "no folder of a pair", "Put images into"]),
        (lambda root: (root / "wet cat").mkdir(parents=True), ["There are no images in"]),
        (lambda root: make_folder(root, [("wet", "cat")]), ["too few pairs", "Of its 1 pairs none can be left out"]),
        (lambda root: make_folder(root, GRID[:4]), ["too few pairs", "Of its 4 pairs none can be left out"]),
        (lambda root: make_folder(root, [*GRID[:2], GRID[4]]), ["too few pairs", "Of its 3 pairs 1 can be left out"]),
        (lambda root: make_folder(root, images=1), ["has no seen pair", "Give val images"]),
        (lambda root: make_folder(root / "images"), ["names no pair", "images, if that is meant"]),
        (lambda root: make_folder(root, [("very wet", "cat")]), ["'very wet cat'", "divided by its one underscore"]),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_split(tmp_path, prepare, words):
    prepare(tmp_path / "photos")
    message = error_of(load, str(tmp_path / "photos"))
    for word in words:
        assert word in message


def good_rows(tmp_path) -> list[list[str]]:
    """A split of GRID that is in order: ('wet', 'cat') is unseen in val, ('dry', 'dog') in test."""
    make_folder(tmp_path / "photos")
    rows = []
    for state, obj in GRID:
        phases = {("wet", "cat"): ["val"] * 4, ("dry", "dog"): ["test"] * 4}
        for number, phase in enumerate(phases.get((state, obj), ["train", "train", "val", "test"])):
            rows.append([f"photos/{state} {obj}/{number}.png", state, obj, phase])
    return rows


def set_rows(where, **values):
    """Return a change: set columns in the rows that `where` picks."""
    columns = {"path": 0, "state": 1, "object": 2, "split": 3}

    def change(rows):
        for row in filter(where, rows):
            for name, value in values.items():
                row[columns[name]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_rows(lambda row: row[0] == "photos/dry cat/1.png", split="valid"),
         ["Line 3 of", "has the split 'valid'", "A split is train, val or test.", "Did you mean 'val'?"]),
        (set_rows(lambda row: row[0] == "photos/dry cat/1.png", split=""), ["Only 47 of the 48", "line 3"]),
        (set_rows(lambda row: row[0] == "photos/dry cat/1.png", state=" "),
         ["Line 3", "does not have a path, a state"]),
        (set_rows(lambda row: row[0] == "photos/dry cat/1.png", path="photos/./dry cat/0.png"),
         ["is listed twice", "line 2", "line 3"]),
        (set_rows(lambda row: row[0] == "photos/dry cat/1.png", path="photos/gone.png"),
         ["1 of the 48 images", "gone.png", "line 3"]),
        (set_rows(lambda row: row[1:3] == ["wet", "cat"], state="red"),
         ["The val pair 'red cat' of", "has a state never trained: 'red'", "Give train a pair with 'red'"]),
        (set_rows(lambda row: row[1:3] == ["dry", "dog"], object="gnu"),
         ["The test pair 'dry gnu' of", "has an object never trained: 'gnu'"]),
        (set_rows(lambda row: row[3] == "val", split="test"), ["has no val images"]),
        (set_rows(lambda row: row[1:3] == ["wet", "cat"], split="train"), ["The val split of", "has no unseen pair"]),
        (set_rows(lambda row: row[3] == "test" and row[1:3] != ["dry", "dog"], split="val"),
         ["The test split of", "has no seen pair"]),
        (lambda rows: rows.append(["photos/wet pig/0.png", "wet", "pig", "train", "more"]),
         ["more fields than columns"]),
        (lambda rows: rows.clear(), ["There are no images"]),
    ],
)  # fmt: skip
def test_mistakes_in_a_csv_are_named(tmp_path, change, words):
    rows = good_rows(tmp_path)
    load(str(write_csv(tmp_path / "good.csv", rows)))
    change(rows)
    message = error_of(load, str(write_csv(tmp_path / "bad.csv", rows)))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,state,object,label\n", ["has a column 'label'", "The columns are path, state, object, split"]),
        ("path,state,objects\n", ["'objects'", "Did you mean 'object'?"]),
        ("path;state;object\n", ["has a column 'path;state;object'", "divided by commas"]),
        ("path,state\n", ["It lacks object."]),
        ("path,state,object,state\n", ["twice"]),
        ("", ["It lacks path, state, object."]),
        ('path,state,object\n"a,b,c\n', ["is no CSV"]),
    ],
)
def test_headings_that_are_not_understood(tmp_path, text, words):
    (tmp_path / "x.csv").write_text(text)
    message = error_of(load, str(tmp_path / "x.csv"))
    for word in words:
        assert word in message
    (tmp_path / "x.csv").write_bytes("path,state,object\nä".encode("utf-16"))
    assert "no text in UTF-8" in error_of(load, str(tmp_path / "x.csv"))


def test_unseen_pairs_of_both_phases_are_noted(tmp_path):
    rows = good_rows(tmp_path)
    set_rows(lambda row: row[0] == "photos/wet cat/0.png", split="test")(rows)
    notes = load(str(write_csv(tmp_path / "x.csv", rows))).notes
    assert any("Unseen pairs in both val and test: 1;" in note for note in notes)


def test_the_program_refuses_to_overwrite(tmp_path, capsys):
    photos = make_folder(tmp_path / "photos")
    (tmp_path / "x.csv").write_text("precious")
    assert main([str(photos), "--seed", "3", "--unseen", "0.4", "--out", str(tmp_path / "x.csv")]) == 2
    said = capsys.readouterr()
    assert "The file exists." in said.err
    assert "seed 3: 5 of 12 pairs are unseen" in said.out
    assert (tmp_path / "x.csv").read_text() == "precious"


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    photos = make_folder(tmp_path / "photos")
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("CZSL_HOME", str(tmp_path / "file/home"))
    assert "set CZSL_HOME" in error_of(load, str(photos))
    assert folder_module.VERSION == 1


# The whole way


def test_run_on_a_folder_and_on_its_csv_is_one_run(tmp_path):
    for state in ("golden", "mossy", "striped"):
        for obj in ("car", "dog", "tree"):
            (tmp_path / f"toys/{state} {obj}").mkdir(parents=True)
            for number in range(4):
                name = f"{state} {obj}/{number}.png"
                pixels = render(stream("own", name), obj, STATES[state].paint, turn=STATES[state].turn)
                Image.fromarray(pixels).save(tmp_path / "toys" / name)

    command = ["run", "--methods", "csp", "--epochs", "1", "--dataset"]
    done = here(*command, "toys", cwd=tmp_path)
    assert "toys: 36 images of 9 pairs (3 states x 3 objects)" in done.stdout
    result = json.loads(next(tmp_path.glob("results/csp-folder-toys-*/result.json")).read_text())
    assert result["counts"]["test_candidates"] == 8
    written = done.stdout.split("is written to ")[1].split(";")[0]
    assert "Nothing new to do" in here(*command, written, cwd=tmp_path).stdout
    spec = json.loads(next(tmp_path.glob("results/csp-folder-toys-*/spec.json")).read_text())["spec"]
    assert spec["dataset"] == "folder:toys"
    assert str(tmp_path) not in json.dumps(spec)
