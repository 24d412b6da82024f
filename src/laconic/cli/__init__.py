"""The command line: a table of commands, each a public function plus argument parsing.

stdout carries data, stderr progress and messages. Heavy imports stand inside the commands.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

import click

from laconic.cli import making, measuring, reproducing, searching, training
from laconic.errors import LaconicError

_OBJECTS = 200_000  # that imports make and keep: looking through them again and again frees nothing


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="laconic")
def app() -> None:
    """Make reasoning models think in fewer words by merging weights, and measure it."""


for _room in (making, measuring, reproducing, training, searching):
    for _command in vars(_room).values():
        if isinstance(_command, click.Command):
            app.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit code 0 done, 2 an expected error, 130 interrupted."""
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
    try:
        code = app.main(args=arguments, prog_name="laconic", standalone_mode=False)
    except LaconicError as error:
        code = _complain(str(error))
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 0
    except OSError as error:
        code = _complain(f"{error.filename or 'input or output'}: {error.strerror}")
    sys.exit(code or 0)


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
