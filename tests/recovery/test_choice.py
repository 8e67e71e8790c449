from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tts_kernel.recovery.choice import ChoiceError, Wishes, break_even, choose, expected_pairs
from tts_kernel.recovery.facts import Interval
from tts_kernel.recovery.options import Chance, Leg, Option

PER_HOUR = 100_000  # pairs
LEVEL, BEST = 5.0, 1.0


def leg(name: Any, pairs: int, hours: bool = True) -> Leg:
    time = pairs / PER_HOUR
    return Leg(name, pairs // 4, pairs, 0.1, 10, hours=Interval(time, 0.9 * time, 1.1 * time) if hours else None)


def option(name: Any, legs: list[Leg], chance: float, loss: float | None, impossible: str = "") -> Option:
    values = Chance(chance, chance - 0.05, chance + 0.05, "prior", "a test's")
    expected = None if loss is None else Interval(loss, loss, loss)
    return Option(name, name.capitalize(), tuple(legs), None, values, expected, "", (), (), impossible)


def guides_case(**changes: Any) -> list[Option]:
    """As the guide's: the phased way is shorter and ends worse."""
    found = {
        "continue": option("continue", [leg("continue", 4_000_000)], 0.05, LEVEL),
        "lower rate": option("lower rate", [leg("continue", 4_000_000)], 0.1, 3.0),
        "rewind": option("rewind", [leg("rewind", 4_000_000)], 0.8, 1.0, "no healthy checkpoint is left"),
        "phased": option("phased", [leg("phase 1", 20_000), leg("phase 2", 4_000_000)], 0.45, 1.65),
        "restart": option("restart", [leg("restart", 5_500_000)], 0.85, 0.9),
    }
    return [changes.get(name.replace(" ", "_"), each) for name, each in found.items()]


def recommended(options: list[Option], **wishes: float) -> str:
    return choose(options, Wishes(**wishes), LEVEL, BEST).recommended.option.name


def test_the_recommendation_flips_from_phased_to_restart_as_quality_counts_more_than_time() -> None:
    assert recommended(guides_case(), time=1, quality=0, risk=0) == "phased"
    assert recommended(guides_case(), time=1, quality=1, risk=1) == "phased"  # the guide's compromise
    assert recommended(guides_case(), time=0, quality=1, risk=0) == "restart"


def test_expected_time_is_the_formula_and_equals_a_restarts_at_break_even() -> None:
    *_, phased, restart = guides_case()
    assert expected_pairs(phased, restart, 0.45) == pytest.approx(20_000 + 0.45 * 4_000_000 + 0.55 * 5_500_000)
    even = break_even(phased, restart)
    assert even is not None
    assert even == pytest.approx(20_000 / 1_500_000)
    assert expected_pairs(phased, restart, even) == pytest.approx(restart.pairs)


def test_there_is_no_break_even_where_phase_2_is_as_long_as_a_restart() -> None:
    long = option("phased", [leg("phase 1", 20_000), leg("phase 2", 5_490_000)], 0.45, 1.65)
    assert break_even(long, guides_case()[-1]) is None


def test_hours_of_success_and_failure_are_those_of_what_is_trained_then() -> None:
    choice = choose(guides_case(), Wishes(), LEVEL, BEST)
    phased = choice.named("phased")
    assert phased.hours_success == pytest.approx(40.2)
    assert phased.hours_failure == pytest.approx(55.2)
    assert phased.hours == pytest.approx(0.2 + 0.45 * 40 + 0.55 * 55)
    assert choice.named("restart").hours_failure is None


def test_without_a_throughput_the_order_is_the_same_and_no_hours_are_made_up() -> None:
    untimed = [replace(each, legs=tuple(replace(part, hours=None) for part in each.legs)) for each in guides_case()]
    timed, plain = (choose(options, Wishes(), LEVEL, BEST) for options in (guides_case(), untimed))
    assert [one.option.name for one in plain.weighed] == [one.option.name for one in timed.weighed]
    assert [one.score for one in plain.weighed] == pytest.approx([one.score for one in timed.weighed])
    assert all(one.hours is None and one.hours_failure is None for one in plain.weighed)


def test_a_success_probability_of_the_users_replaces_the_estimate_and_moves_the_hours() -> None:
    low, high = (
        choose(guides_case(), Wishes(success_probability=chance), LEVEL, BEST).named("phased") for chance in (0.1, 0.9)
    )
    assert (low.chance, high.chance) == (0.1, 0.9)
    assert low.hours is not None
    assert high.hours is not None
    assert low.hours > high.hours


def test_what_takes_longer_than_the_hours_at_hand_loses_its_time_score() -> None:
    choice = choose(guides_case(), Wishes(hours=45), LEVEL, BEST)
    restart, phased = choice.named("restart"), choice.named("phased")
    assert not restart.fits
    assert restart.time == 0.0
    assert not phased.fits
    some = choose(guides_case(), Wishes(hours=50), LEVEL, BEST)
    assert [one.option.name for one in some.weighed if one.fits] == ["phased"]


def test_a_lower_target_makes_the_restart_worth_more() -> None:
    strict = choose(guides_case(), Wishes(target_loss=0.9), LEVEL, BEST)
    easy = choose(guides_case(), Wishes(target_loss=1.7), LEVEL, BEST)

    def lead(choice: Any) -> float:
        return choice.named("restart").quality - choice.named("phased").quality

    assert lead(strict) > lead(easy)


def test_what_cannot_be_carried_out_is_never_recommended_and_asking_for_it_says_why() -> None:
    choice = choose(guides_case(), Wishes(time=0, quality=1, risk=1), LEVEL, BEST)
    assert choice.weighed[-1].option.name == "rewind"
    with pytest.raises(ChoiceError, match=r"'rewind' cannot be carried out: no healthy checkpoint.*Possible: "):
        choice.named("rewind")


def test_without_a_restart_a_failed_phase_1_has_nothing_behind_it() -> None:
    alone = guides_case(restart=option("restart", [leg("restart", 5_500_000)], 0.85, 0.9, "no base"))
    phased = choose(alone, Wishes(), LEVEL, BEST).named("phased")
    assert phased.hours_failure is None
    assert phased.risk == phased.chance


def test_continue_is_the_likelier_of_its_two_kinds() -> None:
    assert choose(guides_case(), Wishes(), LEVEL, BEST).named("continue").option.name == "lower rate"


def test_where_nothing_can_be_carried_out_each_reason_is_told() -> None:
    nothing = [replace(each, impossible=f"because {each.name}") for each in guides_case()]
    choice = choose(nothing, Wishes(), LEVEL, BEST)
    assert "because restart" in choice.says
    with pytest.raises(ChoiceError, match="because phased"):
        _ = choice.recommended


def test_unknown_losses_are_weighed_without_being_made_up() -> None:
    blind = [replace(each, loss=None) for each in guides_case()]
    choice = choose(blind, Wishes(), None, None)
    assert choice.target is None
    assert all(0 <= one.score <= 1 for one in choice.weighed)


def test_wishes_that_cannot_be_weighed_are_told_all_at_once() -> None:
    with pytest.raises(ChoiceError, match="nothing counts; raise one of them"):
        Wishes(time=0, quality=0, risk=0)
    with pytest.raises(ChoiceError, match=r"(?s)time_weight: found -1.*success_probability: found 2.*hours_at_hand"):
        Wishes(time=-1, success_probability=2, hours=float("inf"))
