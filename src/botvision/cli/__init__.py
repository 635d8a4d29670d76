"""The ``botvision`` command: a thin map from commands to the package's functions."""

import os
import sys

import typer

from botvision.cli import (
    attention_health,
    attention_map,
    benchmark,
    data,
    demo,
    models,
    predict,
    repeat,
    runs,
    train,
    val,
)
from botvision.errors import BotvisionError, Interrupted

app = typer.Typer(
    name="botvision",
    help="Bottleneck Transformers for vision: train, evaluate and look at BoTNet detectors.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo")(demo.demo)
app.command("models")(models.models)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("repeat")(repeat.repeat)
app.command("val")(val.val)
app.command("runs")(runs.runs)
app.command("predict")(predict.predict)
app.command("attention-map")(attention_map.attention_map)
app.command("attention-health")(attention_health.attention_health)
app.add_typer(benchmark.app, name="benchmark")


def main() -> None:
    """Run the command; a user's error is one line and exit status 2."""
    try:
        app()
    except BotvisionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stopped:
        if os.environ.get("RANK", "0") == "0":  # all processes of a run know it
            print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        from botvision.processes import out_of_memory

        if not out_of_memory(error):
            raise
        print("error: out of memory; free some, or lower what is done at a time", file=sys.stderr)
        sys.exit(2)
