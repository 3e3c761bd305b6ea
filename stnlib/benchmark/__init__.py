"""What `stnlib bench` measures, and how: the engines against whatever other samplers are installed.

``cases`` says what is computed, ``contenders`` by whom, ``timing`` and ``memory`` what that costs; ``suite`` puts them
together, and ``report`` and ``chart`` show what came out. ``scaling``, ``first_call`` and ``training`` measure what a
table of times does not say.
"""

DEVICES = ("cpu", "cuda")

SIZES = {
    "cpu": {"a": "64x1x60x60:30x30", "b": "16x64x56x56", "c": "8x3x512x512"},
    "cuda": {"d": "64x1x1024x1024", "e": "64x3x1024x1024", "f": "256x1x60x60:30x30"},
}
"""The named sizes, N×C×H×W of the input and, if they differ, H×W of the output; and on which device they are usual."""

DIRECTIONS = {
    "forward": ("output",),
    "forward+backward": ("output", "grad_input", "grad_theta"),
    "backward": ("grad_input", "grad_theta"),
    "grid": ("output",),
}
"""What is computed, and what comes out; from theta, but for the last, which is handed a grid."""

USUAL = {"cpu": ("forward", "forward+backward", "grid"), "cuda": tuple(DIRECTIONS)}
"""The directions that are measured on a device unless others are asked for."""

OURS = ("stnlib", "stnlib-arrays", "stnlib-deterministic", "reference")
PEERS = ("torch", "torch-planar", "kornia", "opencv", "scipy", "cupy")

BASELINE = "torch"
"""The contender to which ratios are taken."""
