"""Coverage-guided fuzzing with atheris: `make fuzz`, or `python -m fuzz TARGET [options of libFuzzer]`.

Each target is a module with `one_input(data)`, which raises when its invariant does not hold, and `seeds()`. It needs
no atheris: the test suite runs each target over its seeds, and over inputs that once were found.
"""
