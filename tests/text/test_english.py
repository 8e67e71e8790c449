from __future__ import annotations

import pytest

from tts_kernel.text.english import normalise, pronounce
from tts_kernel.text.pieces import clean


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Dr. Who vs. Mr. X", "doctor Who versus mister X"),
        ("at 5 p.m. in the U.S.", "at five P M in the U S"),
        ("No. 5", "number five"),
        ("$0.01", "zero dollars and one cent"),
        ("-$2", "minus two dollars"),
        ("¥500", "five hundred yen"),
        ("1/2, 1/3, 3/4, 5/8", "one half, one third, three quarters, five eighths"),
        ("2½", "two and one half"),
        ("1 kg", "one kilogram"),
        ("1km/h", "one kilometer per hour"),
        ("0:05", "zero oh five"),
        ("14:00", "fourteen hundred"),
        ("façade Straße smørrebrød", "facade Strasse smorrebrod"),
    ],
)
def test_normalisation(text: str, said: str) -> None:
    assert normalise(clean(text)) == said


def test_the_pieces_of_a_text_make_it_up() -> None:
    text = "Rock 'n' roll, mother-in-law's \"quote\" - dogs' don't."
    assert "".join(piece.text for piece in pronounce(text)) == text
