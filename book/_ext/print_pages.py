"""Print the built book: a PDF a page in _build/pdf, by Chromium, for `make print`."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--no-pdf-header-footer",
    "--virtual-time-budget=60000",  # milliseconds of the page's own time, for its formulae
]


def print_pages(pages: list[Path], folder: Path) -> list[Path]:
    """Print pages to PDF files of the same names, and return these."""
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    chromium = next(filter(None, found), None)
    if chromium is None:
        sys.exit("Printing needs Chromium on the PATH: apt install chromium")
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for page in pages:
        made.append(folder / f"{page.stem}.pdf")
        with tempfile.TemporaryDirectory() as profile:
            to = [f"--print-to-pdf={made[-1]}", f"--user-data-dir={profile}"]
            command = [chromium, *FLAGS, *to, page.as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=180)
        print(made[-1])
    return made


if __name__ == "__main__":
    print_pages(sorted((ROOT / "_build/html/book").glob("*.html")), ROOT / "_build/pdf")
