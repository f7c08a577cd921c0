"""The fuzzing targets hold for their seeds and for mutations of them; `make fuzz` looks further, with coverage."""

import importlib
import random

import pytest

TARGETS = ("wire", "flow_http", "rules")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of expressions that a later Python may read otherwise
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_seeds_and_for_mutations_of_them(name):
    target = importlib.import_module(f"fuzz.{name}")
    draw = random.Random(7)
    seeds = target.seeds()
    for seed in seeds:
        target.one_input(seed)
    for _ in range(300):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.randrange(1, 9)):
            at = draw.randrange(len(data))
            data[at : at + draw.randrange(2)] = draw.randbytes(draw.choice([0, 1, 1, 2, 8]))
            data = data or bytearray(1)
        target.one_input(bytes(data))


@pytest.mark.interpreted
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_get_far(name, monkeypatch):
    """Seeds that no longer mean anything, after a change of their format, would let a target pass over nothing."""
    target = importlib.import_module(f"fuzz.{name}")
    reached = []
    what = {"wire": ("Decoder", "_tcp"), "flow_http": ("Play", "finish"), "rules": ("Policy", "apply")}
    owner, method = what[name]
    original = getattr(getattr(target, owner), method)

    def counted(self, *arguments):
        done = original(self, *arguments)
        reached.append(len(done) if name == "flow_http" else 1)
        return done

    monkeypatch.setattr(getattr(target, owner), method, counted)
    for seed in target.seeds():
        target.one_input(seed)
    assert sum(reached) >= {"wire": 20, "flow_http": 20, "rules": 20}[name]
