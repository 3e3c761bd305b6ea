import pytest
import torch
from hypothesis import settings

# One machine's failure is the next one's: the examples are the same in every run, unless `nightly` is asked for.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def _torch_repeats_itself():
    """Make sums the same on any number of cores, and a warning an error in whichever test comes first."""
    torch.set_num_threads(1)
    torch.set_warn_always(True)
