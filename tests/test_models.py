"""The paper's networks for distorted MNIST: their sizes, their budgets, and what is exported of them."""

import pytest
import torch
from torch import nn

from stnlib.nn import SpatialTransformer
from stnlib.nn.models import CNN, FCN, MODELS, STCNN, STFCN, count_parameters
from stnlib.transforms import Affine, Projective, ThinPlateSpline

FAMILIES = [Affine(), Projective(), ThinPlateSpline(4, 4)]
TRANSFORMING = ["st-fcn", "st-cnn"]
CASES = [(name, {}) for name in MODELS] + [
    (name, {"transform": family}) for name in TRANSFORMING for family in FAMILIES
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def numbers(network):
    return sum(value.numel() for value in network.state_dict().values())


@pytest.mark.parametrize("length", [28, 42, 60])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_network_keeps_the_budget_and_makes_use_of_it(name, options, length):
    network = MODELS[name]((length, length), **options)
    assert count_parameters(network) == numbers(network)
    assert 0.9 * 400_000 < numbers(network) <= 400_000
    assert network(torch.rand(2, 1, length, length)).shape == (2, 10)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("parameters", [100_000, 1_000_000])
def test_another_budget_is_kept_too(name, parameters):
    network = MODELS[name]((42, 42), parameters)
    assert 0.85 * parameters < numbers(network) <= parameters


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(28, 40), (40, 28)])
def test_images_need_not_be_square(name, size):
    network = MODELS[name](size)
    assert numbers(network) <= 400_000
    assert network(torch.rand(2, 1, *size)).shape == (2, 10)


@pytest.mark.parametrize("name", TRANSFORMING)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_family_is_the_transformer_s(name, family):
    network = MODELS[name](transform=family)
    assert network.transformer.transform is family
    last = [m for m in network.transformer.localisation.modules() if isinstance(m, nn.Linear)][
        -1
    ]
    assert last.out_features == len(family.identity())


# The convolutional networks


@pytest.mark.parametrize("length", [24, 28, 42, 60])
@pytest.mark.parametrize("parameters", [20_000, 123_456, 400_000, 2_000_000])
def test_filters_are_multiples_of_8_and_as_many_as_the_budget_pays_for(length, parameters):
    layers = CNN((length, length), parameters).layers
    first, second = (m for m in layers if isinstance(m, nn.Conv2d))
    f, g = first.out_channels, second.out_channels
    assert (first.kernel_size, second.kernel_size) == ((9, 9), (7, 7))
    assert f % 8 == g % 8 == 0
    assert f <= g <= 2 * f
    places = layers[-1].in_features // g

    def cost(f, g):
        return f * (81 + 1) + g * (49 * f + 1) + 10 * (g * places + 1)

    assert cost(f, g) == numbers(layers) <= parameters
    # No other pair that keeps the budget costs more.
    others = [(a, b) for a in range(8, 400, 8) for b in range(a, 2 * a + 1, 8)]
    assert max(c for c in (cost(*pair) for pair in others) if c <= parameters) == cost(f, g)


def test_a_cnn_sees_as_many_places_as_its_poolings_leave():
    # 42 → 34 → 17 → 11 → 5: convolutions of 9 and 7 take away 8 and 6, poolings the half, rounded down.
    layers = CNN((42, 42)).layers
    assert layers[-1].in_features == 25 * layers[3].out_channels
    assert layers[:-2](torch.rand(1, 1, 42, 42)).shape[2:] == (5, 5)


@pytest.mark.parametrize(("length", "seen"), [(28, 28), (32, 32), (42, 21), (60, 30)])
def test_an_st_cnn_hands_on_a_digit_and_looks_at_large_frames_from_afar(length, seen):
    network = STCNN((length, length))
    images = torch.rand(2, 1, length, length)
    assert network.transformer(images).shape == (2, 1, 28, 28)
    assert network.transformer.localisation[0](images).shape == (2, 1, seen, seen)
    filters = [
        m.out_channels for m in network.transformer.localisation if isinstance(m, nn.Conv2d)
    ]
    assert filters == [20, 20]


def test_an_st_cnn_at_its_start_is_its_classifier_at_28():
    network, images = STCNN((28, 28)), torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(network(images), network.classifier(images), rtol=0, atol=1e-5)
    assert isinstance(network.transformer, SpatialTransformer)


# Refusals


@pytest.mark.parametrize(
    ("network", "least"), [(CNN, 24), (STCNN, 16)], ids=lambda value: str(value)
)
def test_images_that_nothing_is_left_of_are_refused(network, least):
    assert network((least, least))(torch.rand(1, 1, least, least)).shape == (1, 10)
    for size in ((least - 1, 60), (60, least - 1), (1, 1)):
        with pytest.raises(ValueError, match=rf"size: expected at least {least} pixels a side"):
            network(size)


@pytest.mark.parametrize("name", MODELS)
def test_budgets_that_are_too_small_are_refused(name):
    with pytest.raises(ValueError, match=r"^parameters: -?\d+ do not pay for (one|eight)"):
        MODELS[name](parameters=1000)


@pytest.mark.parametrize("network", [CNN, STCNN, FCN, STFCN])
@pytest.mark.parametrize(
    ("size", "kind", "message"),
    [
        (28, TypeError, "size: expected a height and a width, got 28"),
        ((0, 28), ValueError, "size: expected a height and a width of at least 1"),
        ((28, 28, 28), ValueError, "size: expected a height and a width"),
    ],
)
def test_sizes_are_a_height_and_a_width(network, size, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        network(size)


# Export


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODELS)
def test_exported_to_onnx_it_computes_the_same(name):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    network, images = MODELS[name]((28, 28), 60_000).eval(), torch.rand(3, 1, 28, 28)
    if (
        name in TRANSFORMING
    ):  # whose thetas are to differ from the identity, and from one another
        last = network.transformer.localisation[-1]
        with torch.no_grad():
            last.weight.normal_(std=0.3)
            last.bias += 0.2 * torch.randn(6)
    model = torch.onnx.export(
        network, (images,), dynamo=True, opset_version=20, verbose=False
    ).model_proto
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = network(images)
    assert expected.std(0).max() > 1e-3
    torch.testing.assert_close(torch.as_tensor(found), expected, rtol=0, atol=1e-5)
