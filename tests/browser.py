"""A headless Chromium, where one is installed: what a page asks for, complains of, and looks like."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
OWN_HOSTS = re.compile(
    r"^https?://([a-z0-9-]+\.)*(google|googleapis|gstatic)\.com[/:]"
)  # the browser's errands
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
    "--disable-extensions", "--disable-default-apps", "--enable-logging=stderr",
)  # fmt: skip
MEASURE = """<script>
addEventListener("load", () => {
  const out = [], page = document.documentElement;
  const note = (what, e) => out.push(what + ": " + (e.textContent || e.tagName).trim().slice(0, 60));
  if (page.scrollWidth > innerWidth + 1) out.push("the page is wider than the window");
  for (const e of document.querySelectorAll("td, th, p, li, dd, h1, h2, h3, caption"))
    if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth) note("cut off", e);
  for (const svg of document.querySelectorAll("svg")) {
    const all = svg.getBoundingClientRect(), seen = [];
    for (const e of svg.querySelectorAll("text")) {
      const r = e.getBoundingClientRect();
      if (r.left < all.left - 2 || r.right > all.right + 2 ||
          r.top < all.top - 2 || r.bottom > all.bottom + 2)
        note("outside its picture", e);
      for (const o of seen)
        if (Math.min(r.right, o.right) - Math.max(r.left, o.left) > 2 &&
            Math.min(r.bottom, o.bottom) - Math.max(r.top, o.top) > 4) note("over other words", e);
      seen.push(r);
    }
  }
  const told = document.createElement("pre");
  told.id = "measured";
  told.textContent = JSON.stringify({faults: out, pictures: document.querySelectorAll("svg").length});
  document.body.append(told);
});
</script>"""


def browse(page: Path, scratch: Path, *flags: str) -> subprocess.CompletedProcess[bytes]:
    """Open a page and be done."""
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={scratch / 'profile'}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, timeout=120, check=True)


def requests_of(page: Path, scratch: Path) -> tuple[list[str], list[str]]:
    """What a page asks of the network, and what it writes to the console."""
    log = scratch / "net.json"
    said = browse(page, scratch, f"--log-net-log={log}", "--dump-dom").stderr.decode(errors="replace")
    urls = re.findall(r'"url":"([^"]*)"', log.read_text(encoding="utf-8", errors="replace"))
    asked = {url for url in urls if not OWN_HOSTS.match(url) and not url.startswith(("file:", "chrome"))}
    return sorted(asked), re.findall(r"CONSOLE.*", said)


def measure(page: Path, scratch: Path, width: int) -> dict[str, Any]:
    """Words that are cut off, outside their picture or over others, at a width in pixels."""
    probe = scratch / "probe.html"
    probe.write_text(
        page.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>"), encoding="utf-8"
    )
    dom = browse(probe, scratch, f"--window-size={width},1200", "--dump-dom").stdout.decode()
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-500:]
    return dict(json.loads(unescape(found[1])))


def print_a4(page: Path, scratch: Path) -> tuple[set[tuple[int, int]], int]:
    """Sizes of the pages (points) and their number, as printed."""
    out = scratch / "page.pdf"
    browse(page, scratch, f"--print-to-pdf={out}", "--no-pdf-header-footer")
    content = out.read_bytes()
    boxes = re.findall(rb"/MediaBox ?\[([^\]]*)\]", content)
    sizes = {(round(float(w)), round(float(h))) for _, _, w, h in (box.split() for box in boxes)}
    return sizes, len(re.findall(rb"/Type ?/Page\b", content))
