#!/usr/bin/env bash
# safetensors: a numpy array whose columns were chosen is saved scrambled, with its shape, type and values all there.
#
# Surprising: since 0.8.0 safetensors.numpy writes the memory of an array as it lies, and its shape as if by rows.
# scores[:, candidates], which brings a matrix to some pairs or to another order of them, lies by columns in numpy, and
# so do its softmax and its half precision. What is read back has the same numbers at other places: minimum, maximum and
# mean are right, the winners are chance. A slice of the columns gets numbers of its neighbours. Nothing is warned of.
# With 0.7.0 the same lines are right, numpy.save is right in any order, and safetensors.torch refuses such tensors.
#
# Here: the suite saves tensors alone, with safetensors.torch. `bench.py score` advises numpy.save and reads .npy in any
# order (benchmarks/evaluation/matrix_files.py). It takes a .safetensors file as it was written: one that its writer
# scrambled cannot be told from bad scores.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6
"$work/venv/bin/pip" install -q --no-deps --target "$work/before" safetensors==0.7.0
cd "$work"
cat >show.py <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

IMAGES, PAIRS, CANDIDATES = 2000, 100, 50

broken = sys.argv[1] == "broken"
random = np.random.default_rng(0)
scores = random.standard_normal((IMAGES, PAIRS)).astype(np.float32)
candidates = random.permutation(PAIRS)[:CANDIDATES]
chosen = scores[:, candidates]
cases = {
    "scores": (scores, True),
    "scores[:, candidates]": (chosen, not broken),
    "its softmax": (np.exp(chosen) / np.exp(chosen).sum(1, keepdims=True), not broken),
    "its half precision": (chosen.astype(np.float16), not broken),
    "scores[:, :50]": (scores[:, :CANDIDATES], not broken),
    "np.ascontiguousarray of it": (np.ascontiguousarray(chosen), True),
}
print(f"safetensors {safetensors.__version__}, numpy {np.__version__}")
same = True
for name, (array, right) in cases.items():
    save_file({"scores": array}, "scores.safetensors")
    found = load_file("scores.safetensors")["scores"]
    np.save("scores.npy", array)
    equal = np.array_equal(found, array)
    values = np.array_equal(np.sort(found, axis=None), np.sort(array, axis=None))
    winners = float((found.argmax(1) == array.argmax(1)).mean())
    print(f"{name:<26} equal {equal!s:<5}  same values {values!s:<5}  same winner in {100 * winners:5.1f} % of images")
    same = same and (found.shape, found.dtype) == (array.shape, array.dtype)
    same = same and equal is right and (winners == 1 if right else winners < 0.1)
    same = same and values is (right or not name.startswith("scores[:, :"))  # a slice gets its neighbours' numbers
    same = same and np.array_equal(np.load("scores.npy"), array)
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
"$work/venv/bin/python" show.py broken
PYTHONPATH="$work/before" "$work/venv/bin/python" show.py right
