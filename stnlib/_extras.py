"""What to say when an optional package is missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(package: str, extra: str, user: str) -> ModuleType:
    """Import an optional package, or say in one sentence which extra brings it.

    Parameters
    ----------
    package : str
        Name to import.
    extra : str
        The extra of stnlib that installs it.
    user : str
        What needs it, as the sentence's subject.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise  # the package is there and lacks something itself
        raise ModuleNotFoundError(
            f'{user} needs {package}, which is not installed: pip install "stnlib[{extra}]"',
            name=package,
        ) from None
