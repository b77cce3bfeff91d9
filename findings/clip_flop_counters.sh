#!/usr/bin/env bash
# FLOPs of CLIP's image tower: four counters, and two of them count a third less where no gradient is taken.
#
# Surprising: open_clip's blocks use torch.nn.MultiheadAttention. In eval mode without gradient it runs as one operation
# (_native_multi_head_attention) that torch's own FlopCounterMode and fvcore do not know, so the projections of all twelve
# layers count as nothing: 67 % of the ViT-B-32 are left, with torch's counter without a word. With gradient on a
# processor, attention itself (scaled_dot_product_attention) is still nothing to both. thop goes by modules and sees none
# of the two projections, nor their parameters: 59 of 88 million. ptflops counts either everything (backend "pytorch") or
# misses attention (backend "aten"). So "GFLOPs" of two papers compare only if counter and mode are the same.
#
# Here: benchmarks/cost/counting.py counts the suite's own blocks, which have no such operation, with formulas for
# attention on every device, and a test holds it to a calculation by hand.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q open_clip_torch==3.3.0 torch==2.14.1 torchvision==0.29.1 \
    fvcore==0.1.5.post20221221 thop==0.1.1.post2209072238 ptflops==0.7.5
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import logging
import sys
from importlib.metadata import version

logging.disable(logging.WARNING)

import open_clip
import torch
from fvcore.nn import FlopCountAnalysis
from ptflops import get_model_complexity_info
from thop import profile
from torch.utils.flop_counter import FlopCounterMode

SIZE, PATCH, WIDTH, LAYERS, OUT = 224, 32, 768, 12, 512
tokens = (SIZE // PATCH) ** 2 + 1
linear = LAYERS * tokens * 12 * WIDTH**2  # qkv 3, out 1, mlp 8
attention = LAYERS * 2 * tokens**2 * WIDTH
ends = (tokens - 1) * 3 * PATCH**2 * WIDTH + WIDTH * OUT
by_hand = linear + attention + ends

images = torch.randn(1, 3, SIZE, SIZE)


def tower() -> torch.nn.Module:
    return open_clip.create_model("ViT-B-32").visual.eval()


def of_torch(grad: bool) -> int:
    model = tower()
    with torch.set_grad_enabled(grad), FlopCounterMode(display=False) as counted:
        model(images)
    return counted.get_total_flops() // 2


def of_fvcore(grad: bool) -> int:
    with torch.set_grad_enabled(grad):
        return int(FlopCountAnalysis(tower(), images).total())


def of_ptflops(backend: str) -> int:
    found, _ = get_model_complexity_info(
        tower(), (3, SIZE, SIZE), as_strings=False, print_per_layer_stat=False, backend=backend
    )
    return int(found)


macs, parameters = profile(tower(), (images,), verbose=False)
rows = {
    "torch, no gradient": of_torch(False),
    "torch, gradient": of_torch(True),
    "fvcore, no gradient": of_fvcore(False),
    "fvcore, gradient": of_fvcore(True),
    "thop": int(macs),
    "ptflops, pytorch": of_ptflops("pytorch"),
    "ptflops, aten": of_ptflops("aten"),
}
print(", ".join(f"{name} {version(name)}" for name in ("torch", "open_clip_torch", "fvcore", "thop", "ptflops")))
print(f"ViT-B-32, one image, multiplications with their additions; by hand {by_hand / 1e9:.3f} G")
for name, found in rows.items():
    print(f"{name:<20} {found / 1e9:.3f} G  {100 * found / by_hand:5.1f} %")
real = sum(one.numel() for one in tower().parameters())
print(f"thop: {parameters / 1e6:.1f} M parameters of {real / 1e6:.1f} M")

projections = LAYERS * tokens * 4 * WIDTH**2
same = rows["torch, gradient"] == by_hand - attention
same = same and rows["torch, no gradient"] == by_hand - attention - projections
same = same and [round(rows[name] / by_hand, 2) for name in rows] == [0.67, 0.99, 0.67, 0.99, 0.67, 1.0, 0.99]
same = same and (round(parameters / 1e6), round(real / 1e6)) == (59, 88)
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
