from __future__ import annotations

import pytest

from tts_kernel.text.english import normalise, pronounce
from tts_kernel.text.pieces import clean


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Dr. Who vs. Mr. X", "doctor Who versus mister X"),
        ("at 5 p.m. in the U.S.", "at five P M in the U S."),
        ("No. 5", "number five"),
        ("$0.01, $0.99, $1.01", "one cent, ninety-nine cents, one dollar and one cent"),
        ("-$2", "minus two dollars"),
        ("¥500", "five hundred yen"),
        ("1/2, 1/3, 3/4, 5/8", "one half, one third, three quarters, five eighths"),
        ("2½", "two and one half"),
        ("1 kg", "one kilogram"),
        ("1km/h", "one kilometer per hour"),
        ("0:05", "zero oh five"),
        ("14:00", "fourteen hundred"),
        ("0:00", "midnight"),
        ("10am and 5:05pm, 3 P.M.", "ten A M and five oh five P M, three P M."),
        ("the 1980s, the '90s, 6s", "the nineteen eighties, the nineties, sixes"),
        ("Main St. and St. Ann, 5th Dr. and Dr. Lee", "Main Street and saint Ann, fifth Drive and doctor Lee"),
        ("Mr Hyde, Dr Jekyll etc.", "mister Hyde, doctor Jekyll et cetera."),
        ("Jan. 2nd, Sept. 30, 4 Jul 1776", "January second, September thirtieth, fourth of July seventeen seventy-six"),
        ("May 2026, May 10,000", "May twenty twenty-six, May ten thousand"),
        ("3/4/2026, 21/4/2026", "March fourth, twenty twenty-six, April twenty-first, twenty twenty-six"),
        (
            "1,984 in 1984, 2015 m",
            "one thousand nine hundred eighty-four in nineteen eighty-four, two thousand fifteen meters",
        ),
        ("a 6 ft and a 10-mph, 6 lbs", "a six foot and a ten-mph, six pounds"),
        (
            "$5M, $1.5bn, $2k, $5-10",
            "five million dollars, one point five billion dollars, two thousand dollars, five to ten dollars",
        ),
        ("MP3, v2.0, A4, 5G", "MP three, v two point zero, A-four, five G"),
        ("me@a.com, www.a.org/b, https://a.io", "me at a dot com, www dot a dot org slash b, https a dot io"),
        ("Leo XIV, Rocky II, IV, Mix", "Leo the fourteenth, Rocky two, IV, Mix"),
        ("AT&T vs Wi-Fi", "A T and T versus WiFi"),
        ("2 x 3, 24/7, 50/50, .5", "two times three, twenty-four seven, fifty fifty, zero point five"),
        ("5'10\"", "five foot ten"),
        ("Ms. Day, vol. 2, 3 hrs", "mizz Day, volume two, three hours"),
        ("C# #1 #fun", "C sharp number one hashtag fun"),
        ("façade Straße smørrebrød", "facade Strasse smorrebrod"),
    ],
)
def test_normalisation(text: str, said: str) -> None:
    assert normalise(clean(text)) == said


def test_the_pieces_of_a_text_make_it_up() -> None:
    text = "Rock 'n' roll, mother-in-law's \"quote\" - dogs' don't."
    assert "".join(piece.text for piece in pronounce(text)) == text


@pytest.mark.parametrize(
    ("text", "word", "phones"),
    [
        ("They live here.", "live", "l ih V"),
        ("It is a live show.", "live", "l ay V"),
        ("Please close it.", "close", "k l ow z"),
        ("It is close to me.", "close", "k l ow s"),
        ("He will record it.", "record", "r ih k ao r d"),
        ("This is a record.", "record", "r eh k er d"),
        ("She has read it.", "read", "r eh d"),
        ("She will read it.", "read", "r iy d"),
        ("The use of it.", "use", "y uw s"),
        ("It is nice.", "nice", "n ay s"),
        ("The end.", "The", "dh iy"),
        ("The start.", "The", "dh ah"),
        ("To eat.", "To", "t uw"),
        ("Go to bed.", "to", "t ah"),
        ("What for?", "for", "f ao r"),
        ("Good for me.", "for", "f er"),
        ("I used to go.", "used", "y uw s t"),
        ("It is used.", "used", "y uw z d"),
        ("Please polish it.", "polish", "p aa l ih sh"),
        ("A Polish man.", "Polish", "p ow l ih sh"),
        ("A dog.", "A", "ah"),
        ("Plan A.", "A", "ey"),
        ("At ten A M we met.", "A", "ey"),
        ("Vitamin A, please.", "A", "ey"),
        ("A-four paper.", "A", "ey"),
    ],
)
def test_a_word_is_said_as_its_sentence_wants_it(text: str, word: str, phones: str) -> None:
    (found,) = [piece for piece in pronounce(text) if piece.text == word]
    assert found.phones == tuple(phones.split())
    assert len(found.tones) == len(found.phones)
