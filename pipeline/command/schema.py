"""`headwater schema`: the pipeline file as JSON Schema, for an editor."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = ("headwater schema --output pipeline.schema.json",)
STATUS = {
    1: "the file cannot be written",
    2: "wrong usage",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="write it there instead of printing it")


def main(options: argparse.Namespace) -> int:
    text = schema_text()
    if options.output is None:
        print(text)
        return 0
    try:
        options.output.write_text(text + "\n")
    except OSError as error:
        print(f"{options.output}: {error.strerror}", file=sys.stderr)
        return 1
    print(f'{options.output}: name it in the first line of a pipeline file: "#:schema ./{options.output.name}"')
    return 0


def schema_text() -> str:
    import orjson

    from pipeline.file_schema import schema
    from pipeline.trial.block import TestBlock

    return orjson.dumps(schema(TestBlock), option=orjson.OPT_INDENT_2).decode()
