"""The predictions of images as a picture: each image beside bars of its candidates' probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.report import fonts
from benchmarks.report.prediction import Prediction
from benchmarks.report.style import pyplot, words
from datasets.pictures import UnreadablePicture, read_picture
from errors import UserError

DRAWN = 512  # pixels of the longer side of an image in a figure


def _thumbnail(image: Path) -> Image.Image:
    """Return the picture as it was scored, upright, no larger than a figure shows."""
    try:
        picture = read_picture(image, turned=True)
    except UnreadablePicture as error:
        raise UserError(
            f"The image {image} cannot be drawn.", f"It could be read before, and now: {error}.", "Restore the file."
        ) from error
    picture.thumbnail((DRAWN, DRAWN))
    return picture


def draw(predictions: Sequence[Prediction], path: Path) -> str:
    """Draw each image beside bars of its candidates' probabilities into a picture file.

    Return a sentence on letters that no installed font has, "" if there are none.
    """
    pictures = [_thumbnail(prediction.image) for prediction in predictions]
    plot = pyplot()
    figure, axes = plot.subplots(
        len(predictions),
        2,
        figsize=(6.6, 1.7 * len(predictions)),
        squeeze=False,
        gridspec_kw={"width_ratios": [1, 2]},
        layout="constrained",
    )
    for (left, right), prediction, picture in zip(axes, predictions, pictures, strict=True):
        left.imshow(picture)
        left.set_axis_off()
        left.set_title(words(prediction.image.name), fontsize=7)
        guesses = prediction.guesses[::-1]
        right.barh(
            range(len(guesses)),
            [guess.probability for guess in guesses],
            color=["#0072B2" if guess.seen else "#E69F00" for guess in guesses],
        )
        right.set_yticks(
            range(len(guesses)),
            [f"{words(f'{guess.state} {guess.object}')}{'' if guess.seen else ' (unseen)'}" for guess in guesses],
        )
        right.set_xlim(0, 1)
        right.tick_params(labelsize=7)
        right.set_xlabel("probability; orange: unseen pair", fontsize=7)
    lacking = fonts.supply(fonts.texts_of(figure))
    try:
        with plot.rc_context({"pdf.fonttype": fonts.pdf_type(fonts.texts_of(figure))}):
            figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The picture {path} cannot be written.", f"The reason: {error}.", "Pass a .png, .pdf or .svg file."
        ) from error
    finally:
        plot.close(figure)
    return fonts.sentence(lacking)
