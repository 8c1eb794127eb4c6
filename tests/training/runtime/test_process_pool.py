"""Work in several processes: nothing lost, nothing doubled, a dying process costs one input."""

import os

import pytest

from training.runtime.process_pool import run_in_processes


def square(number):
    return number, number**2


def die_at_seven(number):
    if number == 7:
        os._exit(1)
    return number, number**2


def fail_at_three(number):
    if number == 3:
        raise KeyError("three")
    return number


def report(number):
    return number, "died"


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_input_once(num_workers):
    results = list(run_in_processes(square, iter(range(40)), num_workers=num_workers, on_death=report))
    assert sorted(results) == [(number, number**2) for number in range(40)]


def test_no_inputs():
    assert list(run_in_processes(square, [], num_workers=2, on_death=report)) == []


def test_a_dying_process_costs_its_input_alone():
    results = dict(run_in_processes(die_at_seven, range(30), num_workers=2, on_death=report))
    assert results == {number: "died" if number == 7 else number**2 for number in range(30)}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_exceptions_reach_the_caller(num_workers):
    with pytest.raises(KeyError, match="three"):
        list(run_in_processes(fail_at_three, range(10), num_workers=num_workers, on_death=report))
