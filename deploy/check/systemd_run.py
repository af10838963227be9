#!/usr/bin/env python3
"""In place of `systemd-run`, where there is no systemd: runs a command with the variables of each `EnvironmentFile`, which
it reads as systemd does, and with no others but `PATH`. Whatever else is asked for is left out."""

import os
import sys
from pathlib import Path


def value(text):
    """What stands behind the `=`: quotes are taken off, a backslash takes the next character as it is, and nothing else has a
    meaning. In single quotes a backslash has none, either."""
    found, quote, characters = "", None, iter(text.strip())
    for character in characters:
        if quote is None and character in "'\"" or character == quote:
            quote = None if quote else character
        elif character == "\\" and quote != "'":
            found += next(characters, "")
        else:
            found += character
    return found


def read(file):
    lines = [line.strip() for line in file.read_text().splitlines()]
    assigned = (line.partition("=") for line in lines if line and line[0] not in "#;")
    return {name.strip(): value(text) for name, equals, text in assigned if equals}


def main():
    words, variables = sys.argv[1:], {"PATH": os.environ["PATH"]}
    while words and words[0].startswith("-"):
        option = words.pop(0)
        assigned = words.pop(0) if option == "-p" else option
        if assigned.startswith("EnvironmentFile="):
            path = assigned.removeprefix("EnvironmentFile=")
            file = Path(path.removeprefix("-"))
            if file.exists() or not path.startswith("-"):
                variables |= read(file)
    os.execvpe(words[0], words, variables)


main()
