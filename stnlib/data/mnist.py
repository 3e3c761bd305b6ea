"""The MNIST database of handwritten digits, embedded in the package, so that everything runs offline.

Y. LeCun, C. Cortes and C. J. C. Burges compiled it; by their statement it is available under the Creative Commons
Attribution-ShareAlike 3.0 licence. See ``mnist_files/README.md``.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "mnist_files"

# SHA-256 of the decompressed files.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
PREFIX = {"train": "train", "test": "t10k"}


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Load the digits of one split, after checking that no bit of them has changed.

    Parameters
    ----------
    split : {"train", "test"}
        60,000 digits to learn from, or 10,000 to be tested on.

    Returns
    -------
    images : array of uint8, shape (N, 28, 28)
        0 is the background, 255 full ink.
    labels : array of uint8, shape (N,)
        Which digit each image shows, 0 to 9.

    Raises
    ------
    ValueError
        If split is neither name.
    OSError
        If a file is missing, cut short or changed: the sentence names it.

    Examples
    --------
    >>> images, labels = load("test")
    >>> images.shape, labels[:5]
    ((10000, 28, 28), array([7, 2, 1, 0, 4], dtype=uint8))
    """
    if split not in tuple(PREFIX):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    images = _read(f"{PREFIX[split]}-images-idx3-ubyte")
    labels = _read(f"{PREFIX[split]}-labels-idx1-ubyte")
    # Both files open with a header, of 16 and 8 bytes; the checksum has vouched for what it says.
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(
        labels, np.uint8, offset=8
    )


def to_input(images: np.ndarray) -> np.ndarray:
    """Convert images as `load` returns them to a batch for a network or a sampler.

    Parameters
    ----------
    images : array of uint8, shape (N, H, W)

    Returns
    -------
    array of float32, shape (N, 1, H, W)
        0 is the background, 1 full ink.

    Raises
    ------
    TypeError, ValueError
        If images is not such an array.

    Examples
    --------
    >>> to_input(np.full((1, 2, 2), 255, np.uint8)).max()
    np.float32(1.0)
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        what = getattr(images, "dtype", type(images).__name__)
        raise TypeError(
            f"images: expected a NumPy array of uint8, as load returns them, got {what}"
        )
    if images.ndim != 3:
        raise ValueError(f"images: expected shape (N, H, W), got {images.shape}")
    return images[:, None].astype(np.float32) / 255


def _read(name: str) -> bytearray:
    path = FOLDER / f"{name}.gz"
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise OSError(f"{path} is missing; install stnlib again") from None
    except (OSError, EOFError, zlib.error) as error:
        raise OSError(
            f"{path} is corrupt or cut short ({error}); install stnlib again"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise OSError(
            f"{path} has changed: expected SHA-256 {SHA256[name]}, got {found}; install stnlib again"
        )
    return bytearray(content)  # of which NumPy makes arrays that can be written to
