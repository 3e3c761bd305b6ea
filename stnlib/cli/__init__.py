"""The command `stnlib`. Options are checked here; what does the work is imported when it is called for."""

from .. import __version__
from ..benchmark import DEVICES
from ._options import click
from .bench import _with_a_bar as _with_a_bar
from .bench import bench
from .reproduce import reproduce
from .training import evaluate, train, visualise

__all__ = ["DEVICES", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="stnlib")
def main() -> None:
    """Spatial transformers from the ground up: the package's command.

    \b
    stnlib train st-cnn --transform tps --data E    train a network of the paper
    stnlib evaluate runs/st-cnn-tps-E-0             its error on the test digits
    stnlib visualise runs/st-cnn-tps-E-0 --output digits.gif
    stnlib reproduce table1                         every cell of the paper's table
    stnlib bench                                    how fast the engines are here
    """  # noqa: D301


for command in (bench, evaluate, reproduce, train, visualise):
    main.add_command(command)
