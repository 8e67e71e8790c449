from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cosyvoice2_page import put, section, spread


def test_a_section_is_put_where_it_was_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    put(page, "Counting", section("Counting", "how", ["first"]))
    page.write_text(page.read_text(encoding="utf-8") + "\n## Attention\n\nfast\n", encoding="utf-8")
    put(page, "Counting", section("Counting", "how", ["second"]))
    text = page.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# CosyVoice2, measured",
        "## Counting",
        "## Attention",
    ]
    assert "second" in text
    assert "first" not in text
    assert text.endswith("## Attention\n\nfast\n")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([3.0], "3.00x (3.00 to 3.00)"),
        ([9.0, 1.0, 2.0], "2.00x (1.00 to 9.00)"),
        (range(101), "50.00x (5.00 to 95.00)"),
    ],
)
def test_a_spread_is_the_median_and_what_nine_of_ten_keep_to(values: list[float], said: str) -> None:
    assert spread(list(values), "x") == said
