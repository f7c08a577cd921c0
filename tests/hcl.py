"""HCL (Terraform, buildx bake) as plain values: python-hcl2 keeps the quotes of strings and marks of its own."""

from pathlib import Path

import hcl2


def read(*paths: Path):
    """The blocks of several files as one, by kind: each a list of blocks."""
    merged: dict[str, list] = {}
    for path in paths:
        for kind, blocks in plain(hcl2.loads(path.read_text())).items():
            merged.setdefault(kind, []).extend(blocks)
    return merged


def plain(value):
    if isinstance(value, dict):
        return {key.strip('"'): plain(part) for key, part in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.strip('"') if isinstance(value, str) else value


def by_name(blocks) -> dict:
    """Blocks with one label, such as variables, by that label."""
    return {name: body for block in blocks for name, body in block.items()}
