"""Hold the conversations with any server.

    python -m tests.conformance --url ws://host:port [--wire NAME] [--only fact_22] [--without accounts]

The server must offer what tests/conformance/app/ddp.py describes. Exit status: 0 if all went well, 1 if not.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.conformance.conversation import WIRES, Failed, Run
from tests.conformance.suite import CONVERSATIONS, FEATURES


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--url", required=True, help="the server, ws://HOST:PORT or http://HOST:PORT")
    parser.add_argument(
        "--wire", action="append", dest="wires", choices=WIRES, help="only this one; by default all are used"
    )
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="names with this in them")
    parser.add_argument(
        "--without", action="append", default=[], choices=FEATURES, help="what it does not have"
    )
    parser.add_argument("--fast", action="store_true", help="leave out what takes half a minute or more")
    parser.add_argument(
        "--patience", type=float, default=10, help="seconds to wait for a message (%(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="show what is said also where all goes well")
    options = parser.parse_args()
    failures = held = 0
    for wire in options.wires or list(WIRES):
        for conversation in CONVERSATIONS:
            if (
                wire not in conversation.wires
                or conversation.needs & set(options.without)
                or (options.fast and conversation.slow)
                or not all(part in conversation.name for part in options.only)
            ):
                continue
            run = Run(options.url, wire, conversation, options.patience)
            begun = time.monotonic()
            try:
                run.hold()
            except Failed as wrong:
                failures += 1
                outcome, text = "FAIL", str(wrong).partition(": ")[2]
            else:
                outcome, text = "pass", "\n".join(run.transcript) if options.verbose else ""
            held += 1
            print(f"{outcome}  {wire:13}  {conversation.name}  {time.monotonic() - begun:.2f} s", flush=True)
            if text:
                print(f"    {text}" if outcome == "FAIL" else text, flush=True)
    print(f"{held - failures} passed, {failures} failed")
    return 1 if failures or not held else 0


if __name__ == "__main__":
    sys.exit(main())
