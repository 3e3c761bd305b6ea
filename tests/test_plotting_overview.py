import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

mpl.use("Agg")

import matplotlib.pyplot as plt
from PIL import Image

from stnlib.data import mnist
from stnlib.data.distortions import RTS
from stnlib.plotting import RED, overview

PICTURE = Path(__file__).parents[1] / "book" / "_static" / "overview.png"


@pytest.fixture
def figure():
    figure = overview.overview()
    yield figure
    plt.close(figure)


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_distortion_lies_within_rts():
    low, high = RTS.scales
    assert low <= overview.SCALE <= high
    assert abs(overview.ANGLE) <= RTS.max_angle
    half = overview.SCALE * overview.DIGIT / 2
    for position, length in zip(overview.CENTRE, RTS.size[::-1], strict=True):
        assert half <= position + 0.5 <= length - half


def test_theta_undoes_the_distortion():
    input, theta, output = overview.example()
    digit = mnist.load("test")[0][overview.INDEX] / 255
    assert input.shape == (1, 42, 42)
    # Twice interpolated, so blurred, but in its place: it correlates with the digit, and not with its mirror images.
    assert np.corrcoef(output[0].ravel(), digit.ravel())[0, 1] > 0.95
    assert np.corrcoef(output[0, ::-1].ravel(), digit.ravel())[0, 1] < 0.7
    assert np.corrcoef(output[0, :, ::-1].ravel(), digit.ravel())[0, 1] < 0.7
    area = np.linalg.det(theta[:, :2]) * RTS.size[0] * RTS.size[1] / overview.DIGIT**2
    assert area == pytest.approx(overview.SCALE**2, rel=1e-12)


def test_images_are_the_input_and_the_output(figure):
    input, _, output = overview.example()
    left, right, _ = figure.axes
    np.testing.assert_array_equal(left.images[0].get_array(), input[0])
    np.testing.assert_array_equal(right.images[0].get_array(), output[0])
    assert (left.get_title(), right.get_title()) == ("input U", "output V")
    assert left.get_xlim() == (-0.5, 41.5)
    assert left.get_ylim() == (41.5, -0.5)


def test_grid_lies_where_the_output_is_read(figure):
    _, theta, _ = overview.example()
    *lines, corner = figure.axes[0].lines
    assert len(lines) == 18
    # A corner pixel's centre is half a pixel of 28 from the output's edge.
    edge = 1 - 1 / overview.DIGIT
    for line, (x, y) in (
        (lines[0], (-edge, -edge)),
        (lines[8], (-edge, edge)),
        (lines[9], (-edge, -edge)),
    ):
        expected = (theta @ (x, y, 1) + 1) * 21 - 0.5
        np.testing.assert_allclose(line.get_xydata()[0], expected, atol=1e-12)
    np.testing.assert_allclose(corner.get_xydata()[0], lines[0].get_xydata()[0])
    assert all(line.get_color() == RED for line in lines)
    inside = np.concatenate([line.get_xydata() for line in lines])
    assert inside.min() > -0.5
    assert inside.max() < 41.5


def test_parts_are_named_and_in_order(figure):
    texts = {text.get_text().replace("\n", " "): text for text in figure.axes[2].texts}
    localisation, generator, sampler = (
        texts[name].get_position()
        for name in ("localisation network", "grid generator", "sampler")
    )
    assert localisation[0] < texts["θ"].get_position()[0] < generator[0]
    assert localisation[1] == generator[1] > texts["grid"].get_position()[1] > sampler[1]
    assert sampler[0] == generator[0]


def test_theta_shown_is_the_theta_used(figure):
    _, theta, _ = overview.example()
    shown = [text.replace("−", "-").split() for text in _texts(figure) if text.count(".") == 3]
    np.testing.assert_allclose(np.array(shown, dtype=float), theta, atol=0.005)


def test_nothing_is_smaller_than_nine_points_or_leaves_the_figure(figure):
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    for ax in figure.axes:
        for text in (ax.title, *ax.texts):
            if text.get_text():
                assert text.get_fontsize() >= 9
                box = text.get_window_extent()
                assert box.x0 >= 0
                assert box.y0 >= 0
                assert box.x1 <= width
                assert box.y1 <= height


def test_parts_do_not_touch(figure):
    figure.draw_without_rendering()
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.axes[2].texts
        if text.get_text()
    ]
    for i, (name, box) in enumerate(boxes):
        for other, other_box in boxes[:i]:
            assert not box.overlaps(other_box), f"{name} over {other}"


def test_style_is_left_as_it_was():
    before = dict(mpl.rcParams)
    plt.close(overview.overview())
    assert dict(mpl.rcParams) == before


def test_command_writes_a_transparent_picture(tmp_path):
    path = tmp_path / "overview.png"
    overview.main([str(path)])
    plt.close("all")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels[0, 0, 3] == 0
    assert 0.3 < (pixels[..., 3] == 0).mean() < 0.9
    assert 1100 <= pixels.shape[1] <= 1300


def test_command_wants_a_path():
    result = subprocess.run(
        [sys.executable, "-m", "stnlib.plotting.overview"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "path" in result.stderr


def test_picture_in_the_book_is_light_and_of_the_same_shape(tmp_path):
    assert PICTURE.stat().st_size <= 150_000
    overview.main([str(tmp_path / "now.png")])
    plt.close("all")
    with Image.open(PICTURE) as stored, Image.open(tmp_path / "now.png") as now:
        stored_pixels, pixels = (
            np.asarray(image.convert("RGBA"), dtype=float) for image in (stored, now)
        )
    assert stored_pixels.shape == pixels.shape
    # Fonts are drawn a little differently from one version of matplotlib to the next.
    assert np.abs(stored_pixels - pixels).mean() < 3
