"""Values in what callers say, as recognisers write it: digits and words, both languages."""

from __future__ import annotations

import pytest

from providers.offline.dialogue_fill import RESEMBLES
from providers.offline.lexicon import ENGLISH, SPANISH
from providers.offline.slot import find, resemblance
from providers.offline.slot_spec import Slot
from providers.offline.words import Vocabulary, plain, sound, stem

LANGUAGES = {"en": ENGLISH, "es": SPANISH}


def value(kind: str, text: str, language: str, *, strict: bool = False, **more: object) -> str | None:
    slot = Slot(name="x", type=kind, ask=("?",), **more)  # type: ignore[arg-type]
    found = find(slot, text, LANGUAGES[language], strict=strict)
    return found.value if found is not None else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ten thirty", "10:30"),
        ("10:30 a.m.", "10:30 AM"),
        ("At half past nine in the morning.", "9:30 AM"),
        ("quarter to four", "3:45"),
        ("quarter past one pm", "1:15 PM"),
        ("3 p.m. please", "3 PM"),
        ("at three in the afternoon", "3 PM"),
        ("15:00", "3 PM"),
        ("eleven", "11 o'clock"),
        ("two o'clock", "2 o'clock"),
        ("around noon", "noon"),
        ("In the afternoon.", "in the afternoon"),
        ("nine forty five", "9:45"),
        ("I finish work at four, so half past four would be good.", "4:30"),
        ("I've got a meeting until two, so half past two", "2:30"),
        ("Any time after four is fine, so let's say half past four.", "4:30"),
        ("Eleven, not ten.", "11 o'clock"),
        ("at ten, no, at eleven", "11 o'clock"),
        ("Any time after four.", "4 o'clock"),
        ("I start work at eleven.", None),
        ("Half past far, please.", "4:30"),
        ("a quarter passed tin", "10:15"),
        ("corner to twelve", "11:45"),
        ("half four", "4:30"),
        ("No, at free.", "3 o'clock"),
        ("And in the morning.", "10 AM"),
        ("On Thursday and in the afternoon.", "in the afternoon"),
        ("In the afternoon, too o'clock", "2 o'clock"),
        ("ten past three", "3:10"),
        ("I have no idea", None),
        ("good morning", None),
    ],
)
def test_english_time(text: str, expected: str | None) -> None:
    assert value("time", text, "en") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a las nueve y media", "las nueve y media"),
        ("A las 21:30.", "las nueve y media de la noche"),
        ("a las dos de la tarde", "las dos de la tarde"),
        ("a la una", "la una"),
        ("a las diez menos cuarto de la noche", "las nueve y cuarenta y cinco de la noche"),
        ("las ocho y cuarto", "las ocho y cuarto"),
        ("al mediodía", "el mediodía"),
        ("sobre las diez y veinte", "las diez y 20"),
        ("no sé", None),
    ],
)
def test_spanish_time(text: str, expected: str | None) -> None:
    assert value("time", text, "es") == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "next Tuesday", "next Tuesday"),
        ("en", "on thursday please", "Thursday"),
        ("en", "the day after tomorrow", "the day after tomorrow"),
        ("en", "Saturdays", "Saturday"),
        ("en", "Wensday would be good", None),
        ("en", "Wednsday", "Wednesday"),
        ("en", "March 3rd", "March 3"),
        ("en", "the twenty first of June", "June 21"),
        ("en", "the 15th", "the 15th"),
        ("en", "May I come?", None),
        ("en", "next week", None),
        ("en", "some time this week", None),
        ("en", "Thursday of next week", "next Thursday"),
        ("en", "I'm away until Monday, so Tuesday is better.", "Tuesday"),
        ("en", "Not Monday, Tuesday.", "Tuesday"),
        ("en", "Tuesday, not Monday.", "Tuesday"),
        ("en", "from Monday to Friday", "Friday"),
        ("en", "I can't come on Thursday.", "Thursday"),
        ("en", "I can't come into morrow after all.", "tomorrow"),
        ("en", "So maybe, may be two o'clock.", None),
        ("en", "That a day, then.", "Saturday"),
        ("en", "It was thirsty.", "Thursday"),
        ("es", "el viernes", "el viernes"),
        ("es", "el próximo miércoles", "el miércoles"),
        ("es", "pasado mañana", "pasado mañana"),
        ("es", "mañana por la mañana", "mañana"),
        ("es", "por la mañana", None),
        ("es", "el 3 de marzo", "el 3 de marzo"),
        ("es", "el día quince", "el día 15"),
        ("es", "esta noche", "hoy"),
    ],
)
def test_date(language: str, text: str, expected: str | None) -> None:
    assert value("date", text, language) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "four people", "4"),
        ("en", "twenty three", "23"),
        ("en", "one hundred and five", "105"),
        ("en", "12", "12"),
        ("en", "a couple", "2"),
        ("en", "none", None),
        ("es", "seremos unas cuatro personas", "4"),
        ("es", "treinta y dos", "32"),
        ("es", "doscientos no", None),
        ("es", "una", "1"),
    ],
)
def test_number(language: str, text: str, expected: str | None) -> None:
    assert value("number", text, language) == expected


def test_a_sure_number_stands_beside_its_cue() -> None:
    cues = ("people", "table for", "para", "personas", "somos")
    assert value("number", "a table for two at eight", "en", strict=True, cues=("people", "for")) == "2"
    assert value("number", "at eight", "en", strict=True, cues=cues) is None
    assert value("number", "una mesa para el viernes", "es", strict=True, cues=cues) is None
    assert value("number", "somos unas cinco", "es", strict=True, cues=cues) == "5"


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "five five five oh one double two", "5 5 5 0 1 2 2"),
        ("en", "it's 555 0123", "5 5 5 0 1 2 3"),
        ("es", "seis uno dos tres", "6 1 2 3"),
        ("en", "no digits", None),
    ],
)
def test_digits(language: str, text: str, expected: str | None) -> None:
    assert value("digits", text, language) == expected


@pytest.mark.parametrize(
    ("language", "text", "strict", "expected"),
    [
        ("en", "My name is Sarah Connor.", True, "Sarah Connor"),
        ("en", "this is John Smith speaking", False, "John Smith"),
        ("en", "It's Anna", False, "Anna"),
        ("en", "Put it under Miller, please", False, "Miller"),
        ("en", "Hi, I'm Peter and I need help", True, "Peter"),
        ("en", "This is an emergency", True, None),
        ("en", "I am very late", True, None),
        ("en", "uh, yes, Bob", False, "Bob"),
        ("es", "A nombre de Marta Gómez", True, "Marta Gómez"),
        ("es", "me llamo luis", True, "Luis"),
        ("es", "García", False, "García"),
        ("es", "soy alérgico", True, None),
        ("en", "yes", False, None),
        ("en", "Yes, it's Kevin right.", False, "Kevin Wright"),
        ("en", "It's racial green.", False, "Rachel Green"),
        ("en", "em ally Watson", False, "Emily Watson"),
        ("en", "Cheer and Peter Collins.", False, "Peter Collins"),
        ("en", "When the name is Lindo Evans,", True, "Lindo Evans"),
        ("en", "Priya Sharma", False, "Priya Sharma"),
        ("en", "Eric's Foster", False, "Eric Foster"),
        ("en", "Sarah-Jane O'Neil", False, "Sarah Jane O'Neil"),
        ("en", "Hi, Jason Bell here, could you move it?", True, "Jason Bell"),
        ("en", "Hi, Anna Miller, could you move it?", True, "Anna Miller"),
        ("en", "I have an appointment with Anna Miller.", True, None),
        ("en", "Helen hurry", False, "Helen Hurry"),
    ],
)
def test_name(language: str, text: str, strict: bool, expected: str | None) -> None:
    assert value("name", text, language, strict=strict) == expected


@pytest.mark.parametrize(
    ("text", "is_sure"),
    [
        ("And then Watson,", False),
        ("I never knew Watson.", False),
        ("it marks to her", False),
        ("It's far beneath.", False),
        ("Different club.", False),
        ("Emily Watson.", True),
        ("Wojtek Nowak", True),
        ("My name is Grace", True),
    ],
)
def test_what_is_hardly_a_name(text: str, is_sure: bool) -> None:
    found = find(Slot(name="x", type="name", ask=("?",)), text, ENGLISH, strict=False)
    assert found is not None and found.is_sure is is_sure


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("half fast fur", "time"),
        ("i said thirsty", "date"),
        ("a ceiling", "choice"),
        ("my name is on the street", "name"),
        ("i never watson", "name"),
        ("that is not what i said", ""),
    ],
)
def test_what_a_garbled_value_resembles(text: str, meant: str) -> None:
    choices = {"filling": ("filling",), "cleaning": ("cleaning",)}
    kinds = [Slot(name=one, type=one, ask=("?",), choices=choices) for one in ("time", "date", "choice", "name")]
    like = {slot.name: resemblance(slot, text.split(), ENGLISH) for slot in kinds}
    best = max(like, key=lambda one: like[one])
    assert (best if like[best] >= RESEMBLES else "") == meant


def test_choice_prefers_the_longer_and_forgives_a_slip() -> None:
    choices = {"check-up": ("check up", "checkup"), "cleaning": ("cleaning", "teeth cleaned"), "tooth": ("tooth",)}
    for text, expected in {
        "a check up please": "check-up",
        "I want my teeth cleaned": "cleaning",
        "a cleening": "cleaning",
        "something else": None,
    }.items():
        assert value("choice", text, "en", choices=choices) == expected


def test_words_in_use_are_not_taken_twice() -> None:
    slot = Slot(name="x", type="number", ask=("?",))
    assert find(slot, "a las nueve", SPANISH, strict=False, used=frozenset({2})) is None


def test_plain_stem_and_sound() -> None:
    assert plain("What's the Café's price, at 10.30 P.M.?", ENGLISH) == "what is the cafe price at 10:30 pm"
    assert plain("I can't come on the 3rd", ENGLISH) == "i can not come on the 3 rd"
    assert stem("cleanings", ENGLISH) == stem("cleaned", ENGLISH) == stem("clean", ENGLISH)
    assert stem("reservaciones", SPANISH) == stem("reservar", SPANISH) == stem("reservas", SPANISH)
    assert sound("phone") == sound("fone")
    vocabulary = Vocabulary(["insurance", "parking", "book"])
    assert vocabulary.nearest("insurence")[0] == "insurance"
    assert vocabulary.nearest("parkin")[0] == "parking"
    assert vocabulary.nearest("cook") == ("", 0.0)
    assert vocabulary.nearest("elephant") == ("", 0.0)
