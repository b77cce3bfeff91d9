#!/usr/bin/env bash
# open_clip: pictures are not always resized with the interpolation that the configuration says.
#
# Surprising, in image_transform of 3.3.0, each without a warning:
# - The picture is resized first and made RGB afterwards. Pillow resizes a palette picture (GIF, many PNG) with nearest
#   neighbour, whatever is asked: its pixels are not those of the same picture saved as RGB.
# - The transform for training is bicubic for tags whose configuration says bilinear (21 of 196: MobileCLIP, CLIPA,
#   PE-Core), unless timm's augmentation is asked for.
# - "shortest" to a size that is not square is bicubic, whatever is asked. No tag has such a size today.
#
# Here: pictures become RGB when they are read, before anything else; training resizes as evaluation does, with the
# interpolation of the weights (datasets/transforms.py); sizes are square.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q open_clip_torch==3.3.0 torch==2.14.1 torchvision==0.29.1 pillow==13.0.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import open_clip
import PIL
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_kwargs
from PIL import Image

print(f"open_clip {open_clip.__version__}, Pillow {PIL.__version__}")


def transform(train=False, **asked):
    return image_transform_v2(PreprocessCfg(**merge_preprocess_kwargs(PreprocessCfg(), **asked)), is_train=train)


# Stripes of three pixels, black and white; as a palette picture they have the very same colours.
stripes = np.tile((np.arange(500) // 3 % 2 * 255).astype(np.uint8), (300, 1))
colours = Image.fromarray(stripes).convert("RGB")
palette = Image.fromarray(stripes).convert("P")
same_colours = np.array_equal(np.asarray(palette.convert("RGB")), np.asarray(colours))
prepare = transform(size=37, mean=(0.0,) * 3, std=(1.0,) * 3)
apart = float((prepare(palette) - prepare(colours)).abs().max() * 255)
print(f"the same colours: {same_colours}; after the transform the palette picture differs by up to {apart:.0f} of 255")

asked = [(name, open_clip.get_pretrained_cfg(*name)) for name in open_clip.list_pretrained()]
bilinear = [(name, source) for name, source in asked if source["interpolation"] == "bilinear"]
trained = {transform(True, **source).transforms[0].interpolation.value for _, source in bilinear}
evaluated = {transform(False, **source).transforms[0].interpolation.value for _, source in bilinear}
print(f"{len(bilinear)} of {len(asked)} tags say bilinear: evaluation {evaluated}, training {trained}")

oblong = transform(size=(224, 336), interpolation="bilinear").transforms[0].interpolation.value
print(f"bilinear to 224 x 336: {oblong}")
same = same_colours and apart > 50 and (len(bilinear), len(asked)) == (21, 196)
same = same and (trained, evaluated, oblong) == ({"bicubic"}, {"bilinear"}, "bicubic")
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
