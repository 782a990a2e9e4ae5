"""The benchmarks' framework: cases, interleaved timing, Markdown tables."""

from types import SimpleNamespace

import pytest

from benchmarks.measure import Table, median_times, peak_memory, with_speedups
from benchmarks.quality import speed
from benchmarks.quality_variants import cached, variant
from benchmarks.run import CASES, load_case, main
from benchmarks.scaling import RATE, denoising, efficiency, parts
from benchmarks.step_costs import FLOPS, SECONDS
from musepose.utils.errors import UserError


def test_every_case_has_a_docstring_and_is_listed(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(CASES)
    assert all(len(load_case(name).__doc__) > 20 for name in CASES)


def test_unknown_case():
    with pytest.raises(UserError, match="there is no case nothing: choose from start_up"):
        main(["nothing"])


def test_variants_are_interleaved_and_warm_up_does_not_count():
    calls = []
    times = median_times({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3
    assert times.keys() == {"a", "b"} and all(seconds >= 0 for seconds in times.values())


def test_speedups_are_over_the_first_variant():
    assert with_speedups({"slow": 3.0, "fast": 1.5}) == [("slow", 3.0, 1.0), ("fast", 1.5, 2.0)]


def test_tables():
    table = Table("Speed", ("way", "seconds"), [("fast", 0.12345), ("slow", 12345.6)], ["Noisy."])
    assert str(table).splitlines() == [
        "### Speed", "", "| way | seconds |", "| --- | ---: |", "| fast | 0.123 |", "| slow | 12,346 |", "", "Noisy."
    ]  # fmt: skip


def test_peak_of_a_process():
    small, large = (peak_memory(["-c", f"x = bytearray({size} * 2**20)"])[0] for size in (1, 200))
    assert large - small == pytest.approx(199, rel=0.1)  # what the interpreter itself takes varies by a few MB
    with pytest.raises(RuntimeError, match="ended with 3"):
        peak_memory(["-c", "raise SystemExit(3)"])


def test_scaling_counts_all_windows_and_the_largest_share():
    """205 windows of both branches in 20 steps; of 64 shares of these 410, the largest has 4 conditional of 7."""
    assert parts(1)["denoising"] == pytest.approx(20 * 205 * (51.9 + 57.7) / RATE)
    assert parts(64)["denoising"] == pytest.approx(20 * (3 * 51.9 + 4 * 57.7) / RATE, rel=0.01)
    assert efficiency(1) == 1 and efficiency(8) > 0.92 and efficiency(64) > 0.75


def test_scaling_waits_for_the_slowest_of_each_round():
    """The last round waits for process 1; gathering takes time once nothing is computed."""
    window = range(48)
    both, one = (window, range(2)), (window, range(1))
    even = denoising(SimpleNamespace(shares=((both,), (both,))), 2)
    uneven = denoising(SimpleNamespace(shares=((one, one), (both, both))), 2)
    assert even == pytest.approx(109.6 / RATE, rel=0.01) and even > 109.6 / RATE
    assert uneven == pytest.approx(2 * 109.6 / RATE, rel=0.01)


def test_a_variant_s_cost_is_that_of_its_type_over_20_exact_steps_in_float32():
    """Ten steps of half the price; with the cache, five whole and five shallow ones of a quarter."""
    known = {SECONDS.format("float32"): {"conditional, whole": 2.0, "conditional, 1": 0.5}}
    known[SECONDS.format("bfloat16")] = {"conditional, whole": 1.0}
    halves = variant(10, cfg=1.0, dtype="bfloat16")
    assert speed(halves, SECONDS, known) == "4.00"
    assert speed(variant(10, cfg=1.0, **cached(2, 1)), SECONDS, known) == "3.20"
    assert speed(halves, FLOPS, known) == ""
