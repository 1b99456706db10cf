# Short names for what README.md and .ci/run spell out. Without just: run the lines by hand.

set positional-arguments

python := ".venv/bin/python"

# List what there is.
default:
    @just --list

# Make .venv with everything for development in it.
install:
    python3 -m venv .venv
    {{python}} -m pip install -e '.[test,lint]'

# Run the demo.
demo *args: _installed
    {{python}} -m trigger_ddp demo "$@"

# Run the tests, for instance: just test tests/clients -k simpleddp
test *args: _installed
    {{python}} -m pytest "$@"

# Fuzz the entrances, all or those named, for instance: just fuzz ddp http --seconds 600
fuzz *args: _installed
    {{python}} -c 'import atheris' 2>/dev/null || {{python}} -m pip install -e '.[fuzz]'
    {{python}} -m tests.fuzz "$@"

# Check style and types.
lint: _installed
    {{python}} -m ruff check
    {{python}} -m ruff format --check
    {{python}} -m mypy

# Run what CI runs, on the last commit: lint, and the README's test command on the oldest and newest Python.
ci:
    .ci/run

# Run one of benchmarks/, for instance: just bench latency --rate 200
bench name *args: _installed
    shift && {{python}} -m benchmarks.{{name}} "$@"

_installed:
    @[ -x .venv/bin/ruff ] || just install
