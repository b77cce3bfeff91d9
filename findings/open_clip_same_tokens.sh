#!/usr/bin/env bash
# open_clip: texts that differ for a reader and are the same tokens, so the same prompt.
#
# Surprising: CLIP's tokenizer takes digits one by one and signs apart from words, and blanks between them leave no trace:
# "24 7" is "247", "iphone 6" is "iphone6", "mid-calf" is "mid - calf". Two classes of such names have one text feature,
# one score for every image, and no sign of it. It is not that blanks never count: "faux fur" is not "fauxfur", nor
# "t-shirt" "t shirt".
#
# Here: datasets/spelling.py finds labels of the same tokens; own images with such labels are refused or merged
# (--merge-labels), and `bench.py data check` names those of any data set.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q open_clip_torch==3.3.0 torch==2.14.1 torchvision==0.29.1 ftfy==6.3.1 regex==2026.11.19
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import open_clip

SAME = [("24 7", "247"), ("iphone 6", "iphone6"), ("mid-calf", "mid - calf"), ("50% off", "5 0 % off"), ("ﬁre", "fire")]
OTHER = [("faux fur", "fauxfur"), ("t-shirt", "t shirt")]

print(f"open_clip {open_clip.__version__}")
tokenizer = open_clip.get_tokenizer("ViT-B-32")
same = True
for pairs, expected in ((SAME, True), (OTHER, False)):
    for one, other in pairs:
        tokens = tokenizer([f"a photo of {one} shoes", f"a photo of {other} shoes"])
        equal = bool((tokens[0] == tokens[1]).all())
        print(f"{one!r:12} {other!r:12} {'one prompt' if equal else 'two prompts'}: {tokenizer.encode(one)}")
        same = same and equal is expected
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
