"""`python -m fuzz TARGET [options]`: seeds and finds lie in .fuzz/TARGET; a found input is named crash-..."""

import importlib
import sys
import warnings
from hashlib import blake2b
from pathlib import Path

import atheris

TARGETS = ("wire", "flow_http", "rules")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz {'|'.join(TARGETS)} [options of libFuzzer]")
    name = sys.argv[1]
    with atheris.instrument_imports(include=["vxsniff"]):
        target = importlib.import_module(f"fuzz.{name}")
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", FutureWarning)  # of regular expressions that a later Python may read otherwise
    folder = Path(".fuzz") / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / blake2b(seed, digest_size=8).hexdigest()).write_bytes(seed)
    options = ["-max_len=1024", "-len_control=0", "-timeout=20", f"-artifact_prefix={folder}/", *sys.argv[2:]]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
