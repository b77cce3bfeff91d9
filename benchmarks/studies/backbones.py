"""Which of open_clip's models can be the backbone, what they offer, and whether their features are open_clip's.

    python -m benchmarks.studies.backbones                      # what is not in the record yet
    python -m benchmarks.studies.backbones --seconds 500        # begin no model after so long; run it again to go on
    python -m benchmarks.studies.backbones --update docs/backbones.md

Every definition that takes at most 2 GB is built with random weights, and the features of made images and texts that
the suite computes block by block are held against `encode_image` and `encode_text`; larger ones are run on the meta
device, by shapes. What was seen is kept in `docs/backbones.json` after each model. No network is needed.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.runs import files
from benchmarks.studies.program import page_with, program
from methods.backbone import Backbone, build_clip
from methods.backbone.text_tower import text_part
from methods.offers import COMMITTED, OFFERS, Offers, all_offers, config_of, offers_of_config
from registry import METHODS

BEGIN, END = "<!-- measured by benchmarks.studies.backbones -->", "<!-- end -->"
RECORD = Path("docs/backbones.json")
LIMIT = 2_000_000_000
"""Bytes of weights up to which a model is built."""
TOLERANCE = 1e-5
"""The largest difference that is none, relative to the largest number of a feature."""
LIBRARIES = ("open_clip_torch", "timm", "torch")


@dataclass(frozen=True)
class Seen:
    """What was seen of a definition.

    numbers: of its weights.
    image, text: the largest difference of our features from open_clip's, relative to the largest number of these; None
        where shapes alone were compared.
    libraries: versions.
    """

    numbers: int
    image: float | None
    text: float | None
    libraries: Mapping[str, str]


def look_at(name: str) -> Seen:
    """Compare a definition with open_clip; offers or shapes that differ raise AssertionError."""
    config = config_of(name)
    assert config is not None, f"open_clip has no {name}"
    with torch.device("meta"):
        shapes = wrapped(name, config)
    numbers = sum(tensor.numel() for tensor in shapes.clip.parameters())
    assert shapes.offers == offers_of_config(config).names, f"{name} offers {sorted(shapes.offers)} once it is built"
    libraries = {library: version(library) for library in LIBRARIES}
    if 4 * numbers > LIMIT:
        compare_shapes(name, shapes)
        return Seen(numbers, None, None, libraries)
    del shapes
    backbone = wrapped(name, config)
    stir(backbone)
    differences = compare(backbone)
    return Seen(numbers, *differences, libraries)


def wrapped(name: str, config: Mapping[str, Any]) -> Backbone:
    """Return the backbone of a definition with random weights and without its tokenizer."""
    return Backbone.from_open_clip(build_clip(config, name), cast(Any, None), name, digest="")


@torch.no_grad()
def stir(backbone: Backbone) -> None:
    """Add noise to all weights: fresh biases are zero, fresh norms one and fresh scales tiny, which hides mistakes."""
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(1))
    for tensor in backbone.clip.parameters():
        flat = tensor.view(-1)
        for start in range(0, len(flat), len(noise)):
            part = flat[start : start + len(noise)]
            part.add_(noise[: len(part)], alpha=0.02 + 0.3 * float(part.std(correction=0)))


@torch.no_grad()
def compare(backbone: Backbone) -> tuple[float, float]:
    """Return the relative differences of image and text features from those of open_clip."""
    images, ids = made_images(backbone), made_ids(backbone)
    normalised = {"normalize": False}  # CoCa's default is otherwise
    return (
        relative(backbone.image_embedding(images), backbone.clip.encode_image(images, **normalised)),
        relative(backbone.encode_ids(ids), backbone.clip.encode_text(ids, **normalised)),
    )


@torch.no_grad()
def compare_shapes(name: str, backbone: Backbone) -> None:
    """Run a backbone on the meta device; another shape than open_clip's raises AssertionError."""
    backbone.clip.requires_grad_(True)  # open_clip's own MLP then: ours asks for autocast, which meta tensors have not
    ids = made_ids(backbone).to("meta")
    images = torch.empty(2, 3, backbone.image_size, backbone.image_size, device="meta")
    ours = (backbone.image_embedding(images), backbone.encode_text(backbone.token_embedding(ids), ids.shape[1] - 1))
    theirs = (backbone.clip.encode_image(images, normalize=False), backbone.clip.encode_text(ids, normalize=False))
    assert [part.shape for part in ours] == [part.shape for part in theirs], name


def made_images(backbone: Backbone) -> Tensor:
    """Return an image of noise as the backbone takes it."""
    size = backbone.image_size
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))


def made_ids(backbone: Backbone) -> Tensor:
    """Return ids of three texts of different lengths, padded to the context; the last fills it."""
    reading, table = backbone.reading, text_part(backbone.clip).token_embedding
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(10, table.num_embeddings - 3, (3, reading.context), generator=generator)
    for row, length in zip(ids, (4, reading.context // 2, reading.context), strict=True):
        row[length - 1] = table.num_embeddings - 1 if reading.end_id is None else reading.end_id
        row[length:] = 0
    return ids


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, divided by the largest number of what was expected."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


# The document --------------------------------------------------------------------------------------------------------


def document(seen: Mapping[str, Seen]) -> str:
    """Return the counts and the table of the document, as Markdown."""
    offers = {name: found for name, found in all_offers().items() if name not in COMMITTED}
    needs = {name: METHODS.get(name).info.needs for name in METHODS.names()}
    supported = {name: found for name, found in offers.items() if found.names}
    compared = [entry for name, entry in seen.items() if name in supported and entry.image is not None]
    worst = max((max(entry.image or 0, entry.text or 0) for entry in compared), default=0.0)
    looked_at = sum(name in seen for name in supported)
    versions = sorted({", ".join(f"{k} {v}" for k, v in seen[n].libraries.items()) for n in supported if n in seen})
    lines = [
        f"Of open_clip's {len(offers)} definitions {len(supported)} can be the backbone. "
        f"{'All' if looked_at == len(supported) else f'{looked_at} of'} these "
        f"were compared with open_clip ({'; '.join(versions)}): {len(compared)} by values, built with "
        f"random weights, the largest relative difference being {worst:.0e}; {looked_at - len(compared)} by shapes, "
        "for they take more than 2 GB."
        + (f" {len(supported) - looked_at} were not compared yet." if looked_at < len(supported) else ""),
        "",
        "| offer | definitions | what it is |",
        "| --- | ---: | --- |",
        *(
            f"| `{name}` | {sum(name in f.names for f in supported.values())} | {what} |"
            for name, what in OFFERS.items()
        ),
        "",
        "| definition | image tower | text tower | methods that do not run | parameters (M) | image | text |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
        *(row(name, found, needs, seen.get(name)) for name, found in offers.items()),
    ]
    return "\n".join(lines)


def row(name: str, offers: Offers, needs: Mapping[str, Sequence[str]], seen: Seen | None) -> str:
    """Return the line of a definition."""
    text = offers.text + (f" ({offers.package})" if offers.package else "")
    barred = ", ".join(method for method, wanted in needs.items() if offers.lacking(wanted)) or "–"
    if not offers.names:
        return f"| {name} | {offers.images} | {text} | all | | | |"
    if seen is None:
        return f"| {name} | {offers.images} | {text} | {barred} | | not yet | not yet |"
    parity = ["shape" if value is None else f"{value:.0e}" for value in (seen.image, seen.text)]
    return f"| {name} | {offers.images} | {text} | {barred} | {seen.numbers / 1e6:.0f} | {' | '.join(parity)} |"


def read_record(path: Path) -> dict[str, Seen]:
    """Return what was seen so far."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: Seen(**entry) for name, entry in stored.items()}


@program
def main(arguments: Sequence[str] | None = None) -> None:
    """Look at what is not in the record, or put the table into a document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="definitions; without: all that can be a backbone")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no model after so long")
    parser.add_argument("--record", type=Path, default=RECORD, help="JSON file of what was seen")
    parser.add_argument("--update", type=page_with(BEGIN, END), help="put the table into this document instead")
    options = parser.parse_args(arguments)
    seen = read_record(options.record)
    if options.update is not None:
        files.put_between(options.update, BEGIN, END, f"\n{document(seen)}\n")
        return
    torch.set_num_threads(1)
    start = time.monotonic()
    offers = {name: found for name, found in all_offers().items() if found.names and name not in COMMITTED}
    wrong: list[str] = []
    for name in options.names or [name for name in offers if name not in seen]:
        if time.monotonic() - start > options.seconds:
            break
        try:
            entry = look_at(name)
        except AssertionError as error:
            wrong.append(str(error))
            continue
        print(f"{name}: image {entry.image}, text {entry.text}", flush=True)
        seen = dict(sorted({**read_record(options.record), name: entry}.items()))
        files.write_json(options.record, {key: asdict(value) for key, value in seen.items()})
        gc.collect()
    for name, entry in seen.items():
        if (worst := max(entry.image or 0, entry.text or 0)) > TOLERANCE:
            wrong.append(f"{name}: the largest relative difference is {worst:.1e}, above {TOLERANCE:.0e}")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
