"""report.html in a headless browser: it sorts, asks for nothing, and fits a phone. One launch for all."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_reports import THREE, stored, switched

from benchmarks.report import style
from benchmarks.report.page import TEMPLATE
from benchmarks.report.writing import read_report, write_files

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = 390  # pixels

# The page stands in a frame as wide as a phone: a browser's own window may not be made that narrow.
PROBE = """<!doctype html><body><iframe style="width:%dpx;height:800px" srcdoc="%s"></iframe><pre id="found"></pre>
<script>
onload = () => {
  const view = document.querySelector("iframe").contentWindow, page = view.document, found = {};
  found.width = view.innerWidth;
  const root = page.documentElement;
  found.overflow = root.scrollWidth - root.clientWidth;
  for (const part of page.querySelectorAll("details")) part.open = true;
  found.openOverflow = root.scrollWidth - root.clientWidth;
  const loaded = view.performance.getEntriesByType("resource").map(entry => entry.name);
  found.requests = loaded.filter(name => !name.startsWith("data:"));
  const table = page.querySelector("table"), head = table.tHead.rows[0].cells;
  const texts = place => [...table.tBodies[0].rows].map(row => row.cells[place].textContent);
  const state = () => [...head].map(cell => cell.getAttribute("aria-sort"));
  found.before = [texts(0), state()];
  found.presses = [];
  for (const place of [0, 0, 2, 2]) {
    const button = head[place].querySelector("button");
    button.focus();
    const focused = page.activeElement === button;
    button.click();
    found.presses.push([focused, texts(0), state()[place], state().filter(Boolean).length]);
  }
  found.buttons = [...page.querySelectorAll("th")].every(cell => cell.querySelector("button"));
  const boxes = [...page.querySelectorAll(".wide")];
  found.scrolling = boxes.every(box => box.tabIndex === 0 && box.getAttribute("aria-label"));
  found.pictures = [...page.images].every(image => image.complete && image.naturalWidth > 0 && image.alt);
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("results")
    for number, run in enumerate([*THREE, switched("no_dropout", dropout=0.0)]):
        stored(root, run, number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "FORMATS", [known for known in style.FORMATS if known[0] == ".svg"])
        write_files(read_report(root))
    return root / "report.html"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_in_a_browser(page, tmp_path):
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE % (PHONE, html.escape(page.read_text())))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL).group(1)))
    assert found["width"] == PHONE and found["overflow"] == found["openOverflow"] == 0
    assert found["requests"] == []
    rows, state = found["before"]
    assert rows == ["CSP", "CoOp", "CLIP zero-shot"] and state[2] == "descending", "best AUC first"
    words, words_back, numbers, numbers_back = found["presses"]
    assert words == [True, ["CLIP zero-shot", "CoOp", "CSP"], "ascending", 1]
    assert words_back == [True, ["CSP", "CoOp", "CLIP zero-shot"], "descending", 1]
    assert numbers == [True, ["CSP", "CoOp", "CLIP zero-shot"], "descending", 1]
    assert numbers_back == [True, ["CLIP zero-shot", "CoOp", "CSP"], "ascending", 1]
    assert found["buttons"] and found["scrolling"] and found["pictures"]


def test_nothing_points_outside(page):
    text = page.read_text()
    for reference in re.findall(r"(?:src|href|action)=\"([^\"]*)\"|url\(([^)]*)\)|@import ([^;]*)", text):
        assert all(part == "" or part.startswith(("#", "data:")) for part in reference), reference
    assert "fetch(" not in text and "XMLHttpRequest" not in text
    assert text.index('id="leaderboard"') < text.index("<table") < text.index('aria-label="Contents"')


def test_letters_stand_out_in_light_and_in_dark():
    def luminance(colour):
        digits = colour.strip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    palettes = re.findall(r":root \{([^}]*--page[^}]*)\}", TEMPLATE.read_text())
    assert len(palettes) == 2, "light, and dark where the reader asks for it"
    for palette in palettes:
        colours = dict(re.findall(r"--(page|ink|link): (#[0-9a-f]+)", palette))
        for name, least in (("ink", 7), ("link", 4.5)):
            low, high = sorted((luminance(colours["page"]), luminance(colours[name])))
            assert (high + 0.05) / (low + 0.05) > least
