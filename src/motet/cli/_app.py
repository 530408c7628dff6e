"""The `motet` command: commands, exit codes, and errors without a traceback."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import cyclopts

from motet import __version__
from motet._errors import MotetError, RequestError, RequestTypeError
from motet.cli._output import fail

DONE, FAILED, WRONG = 0, 1, 2

app = cyclopts.App(
    name="motet",
    help="One model for several things to predict, and proof that none got worse.",
    version=f"motet {__version__}",
    result_action="return_value",
    # Ctrl-C must reach `main`, which says what is left and how to go on.
    suppress_keyboard_interrupt=False,
)
app.command("motet.cli._fit:fit", name="fit", help="Fit one table with several targets.")
app.command("motet.cli._predict:predict", name="predict", help="Predict every target for a table.")
app.command("motet.cli._evaluate:evaluate", name="evaluate", help="Score a model on a labelled table.")
app.command("motet.cli._effects:effects", name="effects", help="What each feature is worth to each target.")
app.command("motet.cli._export:export", name="export", help="Write a run as one ONNX graph.")
app.command("motet.cli._report:report", name="report", help="Write report.html and card.md again.")
app.command("motet.cli._merge:merge", name="merge", help="Merge fine-tuned checkpoints of one base into one.")
app.command("motet.cli._bench:bench", name="bench", help="Compare balancing methods, or sharing architectures.")
app.command("motet.cli._synth:synth", name="synth", help="Write a synthetic table whose truth is known.")
app.command("motet.cli._methods:methods", name="methods", help="List the methods that motet knows.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 done, 1 the work failed, 2 the request was wrong.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that wait for one another by spinning take each other's cores when anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    as_json = "--json" in words
    try:
        app(words, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        return fail(
            f"{str(error).strip()} `motet {_command(words)}--help` lists what there is.", WRONG, as_json=as_json
        )
    except (RequestError, RequestTypeError) as error:
        return fail(str(error), WRONG, as_json=as_json)
    except MotetError as error:
        return fail(str(error), FAILED, as_json=as_json)
    except KeyboardInterrupt:
        return fail(_stopped(words), FAILED, as_json=as_json)
    except MemoryError:
        return fail("There is not enough memory for this table. Fit fewer rows or columns.", FAILED, as_json=as_json)
    except BrokenPipeError:
        # The reader of our output has gone; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return fail(_unexpected(error), FAILED, as_json=as_json)
    return DONE


def _command(words: Sequence[str]) -> str:
    known = {"fit", "predict", "evaluate", "effects", "export", "report", "merge", "bench", "methods", "synth"}
    return f"{words[0]} " if words and words[0] in known else ""


def _stopped(words: Sequence[str]) -> str:
    if words[:1] == ["fit"] and "--out" in words[:-1]:
        out = words[words.index("--out") + 1]
        if (Path(out) / "run.json").exists():
            return f"Stopped. What was done is kept in '{out}': the same command with --resume goes on from there."
    if words[:1] == ["merge"] and "--plan" not in words:
        return "Stopped. No output was made, and what was merged is kept: the same command with --resume goes on."
    if words[:1] == ["bench"]:
        return "Stopped. What was measured is kept: the same command goes on from there."
    return "Stopped. Nothing was written."


def _unexpected(error: Exception) -> str:
    if os.environ.get("MOTET_TRACEBACK"):
        traceback.print_exc()
    text = f"{type(error).__name__}: {error}".strip()
    return (
        f"motet met an error that it did not expect ({text}). Set MOTET_TRACEBACK=1 to see where, and please report it."
    )
