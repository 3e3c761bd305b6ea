"""The state of the book: what its tests said, how long its chapters take, and which machine each result is from.

    make test && make status

writes ``results/status.json`` from the reports that `make test` leaves in ``_build/reports``: nbval's, the unit tests',
and what the tests in a browser say of the pages.
"""

from __future__ import annotations

import datetime as dt
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import records

RESULTS = Path("results/status.json")
REPORTS = Path("_build/reports")
PACKAGES = (
    "cupy-cuda13x",
    "jupyter-book",
    "matplotlib",
    "nbval",
    "numba",
    "scikit-image",
    "scipy",
)


def machines(record: Any) -> Counter[str]:
    """Count by machine what was measured, in a file of records.

    Parameters
    ----------
    record : dict or list
        What the file holds. Whatever in it names its environment counts as one measurement.

    Returns
    -------
    collections.Counter
        Of the machines' names, with the versions of PyTorch.

    Examples
    --------
    >>> here = {"processor": "AMD EPYC", "cores": "2", "torch": "2.13.0+cpu"}
    >>> machines([{"seed": 0, "environment": here}, {"seed": 1, "environment": here}])
    Counter({'AMD EPYC, 2 cores; PyTorch 2.13.0+cpu': 2})
    """
    return Counter(_found(record))


def _found(record: Any) -> Iterator[str]:
    if isinstance(record, list):
        for item in record:
            yield from _found(item)
    elif isinstance(record, dict):
        places = (record.get(key) for key in ("environment", "versions"))
        here = next((e for e in places if isinstance(e, dict) and "processor" in e), None)
        if here is None:
            for item in record.values():
                yield from _found(item)
            return
        name = f"{here['processor']}, {here.get('cores', '?')} cores"
        if record.get("device") == "cuda" or "gpu" in here:
            name = here.get("gpu") or record["hardware"]
        yield f"{name}; PyTorch {here['torch']}"


def chapters(report: Path) -> dict[str, dict[str, Any]]:
    """Return of each notebook how many cells were compared, and the seconds that they took.

    Parameters
    ----------
    report : Path
        Of nbval, in JUnit's format.
    """
    found: dict[str, dict[str, Any]] = {}
    for case in ET.parse(report).iter("testcase"):
        name = case.attrib["classname"].removesuffix(".ipynb").rpartition(".")[2]
        chapter = found.setdefault(name, {"cells": 0, "seconds": 0.0})
        chapter["cells"] += 1
        chapter["seconds"] += float(case.attrib["time"])
    for chapter in found.values():
        chapter["seconds"] = round(chapter["seconds"], 1)
    return dict(sorted(found.items()))


def counts(report: Path) -> dict[str, float]:
    """Return how many tests passed, were skipped and failed, and the seconds from the first to the last.

    Parameters
    ----------
    report : Path
        Of pytest, in JUnit's format.
    """
    suite = next(ET.parse(report).iter("testsuite")).attrib
    failed = int(suite["failures"]) + int(suite["errors"])
    skipped = int(suite["skipped"])
    return {
        "passed": int(suite["tests"]) - failed - skipped,
        "skipped": skipped,
        "failed": failed,
        "seconds": round(float(suite["time"])),
    }


def main() -> None:
    """Write the record from the last reports."""
    record = {
        "command": "make test && make status",
        "date": dt.date.today().isoformat(),
        "environment": records.environment(*PACKAGES),
        "chapters": chapters(REPORTS / "nbval.xml"),
        "tests": counts(REPORTS / "unit.xml"),
        "pages": records.read(REPORTS / "pages.json"),
    }
    records.write(RESULTS, record)
    print(f"{RESULTS}: {record['tests']}")


if __name__ == "__main__":
    main()
