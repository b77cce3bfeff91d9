"""The largest difference from each golden file by quantity, kept while the tests run, and written as docs/parity.md."""

from __future__ import annotations

import re

METHODS = {
    r"clip[ _]zero": "CLIP zero-shot",
    r"test_coop|coop ": "CoOp",
    r"test_csp|csp ": "CSP",
    r"dfsp_txt2img": "DFSP text into image (t2i)",
    r"dfsp_img2txt": "DFSP image into text (i2t)",
    r"dfsp_bifusion_257": "DFSP both ways, 257 tokens",
    r"dfsp_bifusion": "DFSP both ways (BiF)",
    r"dfsp_onlyspm": "DFSP without fusion",
    r"troika_mitstates": "Troika, 3 layers",
    r"troika_cgqa": "Troika, 2 layers",
    r"msci_l1h1": "MSCI, N = M = 1",
    r"msci_l3h3": "MSCI, N = M = 3",
    r"msci_l4h4": "MSCI, N = M = 4",
    r"caila_large": "CAILA, mixture from block 12",
    r"caila_vision_only": "CAILA, vision adapters, from block 6",
    r"cams_mitstates": "CAMS, 8 blocks read",
    r"cams_cgqa": "CAMS, 12 blocks read",
    r"vp_cmjl_mitstates": "VP-CMJL, Troika's prompts",
    r"vp_cmjl_cgqa": "VP-CMJL, stray word in the prompts",
}
"""Pattern of what is compared and by which test -> row."""
QUANTITIES = {
    r"gradient": "gradients (relative)",
    r"loss": "losses",
    r"score": "fused scores",
    r"logit": "branch logits",
    r"norm\.(running|num)": "BatchNorm buffers",
    r"text|token vectors|proxy/comp": "text features",
    r"attention|image|patch|stage|cmt|tokens": "image features",
}
"""Pattern of what is compared -> column; the first that is found counts."""
COLUMNS = (
    *("text features", "image features", "branch logits", "fused scores", "losses", "gradients (relative)"),
    "BatchNorm buffers",
)

_largest: dict[tuple[str, str], float] = {}
_limits: dict[str, float] = {}


def keep(what: str, difference: float, limit: float) -> None:
    """Note a difference; what says what was compared, then which test did it."""
    row = next((name for pattern, name in METHODS.items() if re.search(pattern, what)), None)
    compared = what.rpartition(" ")[0]
    column = next((name for pattern, name in QUANTITIES.items() if re.search(pattern, compared)), None)
    if row is not None and column is not None:
        _largest[row, column] = max(_largest.get((row, column), 0.0), difference)
        _limits[column] = max(_limits.get(column, 0.0), limit)


def table() -> str:
    """Return the page: a row per golden file, a column per quantity, the largest absolute difference in each."""
    lines = [
        "# Equality with the released codes",
        "",
        "The released codes were run with random weights on a small random CLIP (fp32, CPU, dropout 0; each in",
        "evaluation and in training). Given the same weights and images, our methods give the same numbers. Largest",
        "absolute differences over all entries of a kind, training and evaluation together; a gradient's is divided by",
        "its largest entry. The golden numbers lie in `tests/golden`; this page is written by",
        "",
        "    pytest tests/methods -n 0 --parity-table docs/parity.md",
        "",
        "Logits are scaled cosines of up to 16, features of size 1 to 6. Rounding alone moves the released codes' own",
        "logits by 2e-5 between fp32 and fp64. CAILA's scores are bare cosines of up to 0.2, held to 2e-6. VP-CMJL's",
        "logits hold attention weights too, up to 45, and its loss is about 30: its losses may differ by 1e-4, those",
        "of the others by 2e-5.",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for row in METHODS.values():
        cells = [f"{_largest[row, column]:.1e}" if (row, column) in _largest else "–" for column in COLUMNS]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    limits = [f"{_limits[column]:.0e}" if column in _limits else "–" for column in COLUMNS]
    return "\n".join([*lines, "| *tolerance of the tests* | " + " | ".join(limits) + " |"]) + "\n"
