"""The dialogue engine: whole conversations, interruptions, repair, tools, and scripts that it must refuse."""

from __future__ import annotations

import asyncio
import copy
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.base import ChatDone, ChatRequest, Message, TextDelta, ToolCall, ToolSpec
from providers.errors import ProviderRejected
from providers.offline.dialogue import DialogueModel, answer
from providers.offline.dialogue_state import State
from providers.offline.dialogue_step import step
from providers.offline.script import Script, compile_script
from providers.offline.vocabulary import MAX_NAMES, MAX_SCRIPTS, MAX_WORDS, Expected, script_phrases
from server.agent.settings import AgentSettings

ROOT = Path(__file__).parents[2]
END_CALL = ToolSpec("end_call", "Hang up.", {"type": "object", "properties": {}})


def settings(agent: str) -> AgentSettings:
    raw = yaml.safe_load((ROOT / "agents" / f"{agent}.yaml").read_text())
    assert raw.pop("numbers")
    return AgentSettings.parse(raw)


def script_of(agent: str) -> Script:
    parsed = settings(agent)
    return compile_script(parsed.script, parsed.language)


CLINIC = script_of("clinic_en")
RESTAURANT = script_of("restaurante_es")


class Talk:
    """A conversation in which the caller hears everything, unless told otherwise."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.messages = [Message("system", "x")]

    def say(self, text: str, heard: str | None = None) -> str:
        """The agent's reply to `text`; `heard` is what of it reaches the caller."""
        self.messages.append(Message("user", text))
        reply = answer(self.script, self.messages)
        known = reply.text if heard is None else heard
        if known:
            self.messages.append(Message("assistant", known))
        return reply.text + (f" <{reply.tool.name}>" if reply.tool is not None else "")


CONVERSATIONS = {
    "a yes that was misheard, and a day that sounds like a name": (
        CLINIC,
        [
            ("A filling on Monday at three, my name is Laura Scott.", "Is that right"),
            ("Select.", "was that a yes or a no?"),
            ("No, Wendy,", "filling, Wednesday, 3 o'clock, for Laura Scott. Is that right"),
        ],
    ),
    "a goodbye in the place of a name": (
        CLINIC,
        [("A filling on Monday at three.", "your name"), ("Good bye.", "Goodbye. <end_call>")],
    ),
    "that's it": (
        CLINIC,
        [
            ("A filling on Monday at three, my name is Laura Scott.", "Is that right"),
            ("That's it, thank you.", "You are booked, Laura Scott"),
            ("That's it, thank you.", "Goodbye. <end_call>"),
        ],
    ),
    "an emergency before anything else": (
        CLINIC,
        [("Do you take people without appointments? My tooth broke, and it's very painful.", "line. Is there")],
    ),
    "a day that was, before a wish for another": (
        CLINIC,
        [
            ("I have an appointment on Wednesday, but I'd rather come on another day.", "May I have your name"),
            ("Claire Hughes", "Which day"),
            ("never mind", "I have left that"),
            ("Could you move my appointment? I'd rather come on Friday.", "what time"),
        ],
    ),
    "thanks end a call, a yes does not": (
        CLINIC,
        [
            ("When are you open?", "nine to six"),
            ("Yes, thanks.", "How can I help?"),
            ("Where can I park?", "Dock Lane"),
            ("Right, thanks.", "Goodbye. <end_call>"),
        ],
    ),
    "a yes when a value was asked for once more": (
        CLINIC,
        [
            ("A filling on Monday at three, my name is Laura Scott.", "Is that right"),
            ("No, I never knew Scott.", "your name once more"),
            ("Yes, that's all right, goodbye.", "for Laura Scott. Is that right"),
        ],
    ),
    "a week is no day, a part of the day no hour": (
        CLINIC,
        [
            ("I think I need a filling, could you fit me in this week?", "Which day"),
            ("Wednesday morning would be best.", "what time"),
            ("In the morning.", "At what time would you like"),
            ("At a quarter past nine.", "May I have your name"),
            ("At a quarter past nine.", "your name"),
            ("The name Rachel Green.", "filling, Wednesday, 9:15, for Rachel Green."),
        ],
    ),
    "no part of the day is asked for more than once more": (
        CLINIC,
        [
            ("A filling on Friday, please, my name is Eve Miller.", "what time"),
            ("In the afternoon.", "what time"),
            ("In the afternoon.", "Friday, in the afternoon, for Eve Miller"),
        ],
    ),
    "the hour after the one at which work ends, misheard when it is corrected": (
        CLINIC,
        [
            ("Whitening on Friday, please.", "what time"),
            ("I finish work at four, so half past five would be good.", "your name"),
            ("George Baker", "whitening, Friday, 5:30, for George Baker"),
            ("No, half past far, please.", "whitening, Friday, 4:30, for George Baker. Is that right"),
        ],
    ),
    "what sounds like no name is asked for once more": (
        CLINIC,
        [
            ("A check-up on Saturday at a quarter to twelve.", "your name"),
            ("And then Watson,", "your name once more"),
            ("Emily Watson", "for Emily Watson. Is that right"),
            ("No, I never knew Watson.", "your name once more"),
            ("Yes, exactly.", "for Emily Watson. Is that right"),
            ("No, Emily Watson.", "for Emily Watson. Is that right"),
            ("No, it's Linda Evans.", "check-up, Saturday, 11:45, for Linda Evans. Is that right"),
        ],
    ),
    "a strange name is taken when it is said again": (
        CLINIC,
        [
            ("A check-up on Saturday at a quarter to twelve.", "your name"),
            ("then wojtek", "your name once more"),
            ("then wojtek", "Is that right"),
        ],
    ),
    "a no with a garbled value asks for what it resembles": (
        CLINIC,
        [
            ("A filling on Monday at three, my name is Laura Scott.", "Is that right"),
            ("No, on Montague.", "Which day"),
            ("Tuesday.", "filling, Tuesday, 3 o'clock, for Laura Scott. Is that right"),
            ("No, it's past the quarter.", "what time"),
            ("Quarter past two.", "filling, Tuesday, 2:15, for Laura Scott. Is that right"),
            ("Yes, please.", "You are booked"),
        ],
    ),
    "an answer that sounds like another value does not change it": (
        CLINIC,
        [
            ("A cleaning on Monday, please.", "what time"),
            ("Whither he works for you,", "what time"),
            ("At ten.", "your name"),
            ("Peter Collins", "a cleaning, Monday, 10 o'clock, for Peter Collins"),
        ],
    ),
    "a question beside the yes": (
        CLINIC,
        [
            ("A whitening on Monday at one o'clock, I'm Jessica Ward.", "Is that right"),
            ("Yes, that's right, and can I park near you?", "You are booked, Jessica Ward"),
            ("Could you say that once more?", "Dock Lane"),
        ],
    ),
    "again, whatever was said between": (
        CLINIC,
        [
            ("I'm going to be late.", "fifteen minutes"),
            ("Sorry, it's very loud here.", "Sorry, I did not get that."),
            ("Can you repeat that, please?", "fifteen minutes"),
            ("Can you repeat that, please?", "fifteen minutes"),
        ],
    ),
    "a hello that was heard as a goodbye": (
        CLINIC,
        [("Bye! Where can I leave my car?", "Dock Lane")],
    ),
    "an emergency and a wish": (
        CLINIC,
        [("I just broke a tooth and it hurts terribly. Can anybody see me right now?", "come in at once")],
    ),
    "whether it is a person, and whether there is one": (
        CLINIC,
        [
            ("Pull, am I talking to a real person?", "automatic receptionist"),
            ("Am I speaking with a human being?", "automatic receptionist"),
            ("Can I talk to a real person, please?", "call you back"),
            ("I am hoping to talk to a person.", "call you back"),
        ],
    ),
    "a name that sounds like a goodbye": (
        CLINIC,
        [
            ("I need a filling on Friday at three.", "your name"),
            ("Cheers, Peter Collins.", "Is that right?"),
        ],
    ),
    "an emergency in the middle of a booking": (
        CLINIC,
        [
            ("I need an appointment on Friday.", "come in for"),
            ("It's an emergency. I've broken my tooth and I'm in a lot of pain.", "come in at once"),
        ],
    ),
    "a name beside the word that it resembles, and the same value said once more": (
        CLINIC,
        [
            ("Hello, this is Anna Colin. I'd like to have a deep clean on Wednesday at three.", "for Anna Colin."),
            ("No, my name is Emma Collin.", "cleaning, Wednesday, 3 o'clock, for Emma Collin."),
            ("No, my name is Emma Collin.", "for Emma Collin. Is that right?"),
            ("Yes, that's exactly right.", "You are booked, Emma Collin"),
        ],
    ),
    "an hour that was misheard before a part of the day": (
        CLINIC,
        [
            ("Could I get a filling on Friday?", "what time"),
            ("Could I come at you in the afternoon?", "your name"),
            ("I'm David Miller", "filling, Friday, 2 PM, for David Miller."),
            ("No, at nine.", "Friday, 9 o'clock"),
            ("No, add to it lock in the afternoon.", "Friday, 2 PM,"),
        ],
    ),
    "no name, and half a yes": (
        CLINIC,
        [
            ("I need to cancel my appointment.", "your name"),
            ("Teeth cancel my appointments tomorrow.", "your name"),
            ("It's Sarah Bennett", "the appointment of Sarah Bennett, tomorrow. Is that right?"),
            ("Yes, it's terrible.", "the appointment of Sarah Bennett, tomorrow. Is that right?"),
            ("Yes, cancel it please.", "It is cancelled."),
        ],
    ),
    "the day that was is not the day to come": (
        CLINIC,
        [
            ("Hi, I have an appointment on Monday, but now I have to work, could we move it?", "May I have your name"),
            ("My name is Laura Adams", "Which day"),
            ("Thursday at ten", "Laura Adams, your new appointment is Thursday, 10 o'clock."),
        ],
    ),
    "a day that it is moved to": (
        CLINIC,
        [
            ("Can you move my appointment to Friday at ten?", "May I have your name"),
            ("My name is Laura Adams", "your new appointment is Friday, 10 o'clock."),
        ],
    ),
    "each value corrected by itself, without a verb": (
        CLINIC,
        [
            ("A filling on Thursday at three, my name is Martin Cooper.", "filling, Thursday, 3 o'clock"),
            ("No, a cleaning.", "cleaning, Thursday, 3 o'clock, for Martin Cooper"),
            ("No, Helen Parker.", "cleaning, Thursday, 3 o'clock, for Helen Parker"),
            ("No, Friday.", "cleaning, Friday, 3 o'clock, for Helen Parker"),
            ("No, half past ten.", "cleaning, Friday, 10:30, for Helen Parker"),
            ("Yes, that's right.", "You are booked, Helen Parker"),
        ],
    ),
    "a no that was a mistake": (
        CLINIC,
        [
            ("I need a filling on Thursday at three, my name is Martin Cooper.", "Is that right"),
            ("No", "What should I change?"),
            ("Sorry, yes, that's correct.", "Is that right"),
            ("No, that is not what I said.", "What should I change?"),
            ("The name is Martin Hooper.", "for Martin Hooper"),
        ],
    ),
    "a name that sounds like a treatment": (
        CLINIC,
        [
            ("I need a filling on Tuesday at three.", "your name"),
            ("My name's Martin Cleaper.", "filling, Tuesday, 3 o'clock, for Martin Cleaper."),
        ],
    ),
    "a question beside a wish": (
        CLINIC,
        [
            ("My wife wants her teeth whitened. What does that cost?", "whitening 250. Which day would suit you?"),
        ],
    ),
    "the same question of another day": (
        CLINIC,
        [
            ("When are you open during the week?", "nine to six"),
            ("And what about on Saturday?", "ten to two"),
            ("And Sundays?", "On Sunday we are closed"),
            ("On their own Sundays by any chance,", "On Sunday we are closed"),
            ("Friday please.", "come in for"),
        ],
    ),
    "what was only likely is not said twice": (
        CLINIC,
        [
            ("What would I pay for in the evening?", "A check-up costs"),
            ("Will my health plant take care of it?", "insurers"),
        ],
    ),
    "a weekday of the week to come, and a name that a courtesy follows": (
        CLINIC,
        [
            ("I need a filling.", "Which day"),
            ("Thursday of next week.", "what time"),
            ("Half past two.", "your name"),
            ("It's Daniel Harper, San to you.", "filling, next Thursday, 2:30, for Daniel Harper."),
        ],
    ),
    "an hour among misheard words": (
        CLINIC,
        [
            ("A cleaning on Tuesday.", "what time"),
            ("Eleven would pull up in the morning if you can.", "your name"),
            ("My name is Helen Carter.", "cleaning, Tuesday, 11 AM, for Helen Carter."),
        ],
    ),
    "questions": (
        CLINIC,
        [
            ("Hi, what time do you open tomorrow?", "nine to six"),
            ("And where can I park?", "Dock Lane"),
            ("do you take insurance and where are you?", "12 Mill Street"),
            ("No, that's all, thanks.", "Goodbye. <end_call>"),
        ],
    ),
    "a form, a question in between, a correction": (
        CLINIC,
        [
            ("I'd like to book a cleaning, please.", "Which day"),
            ("Next Tuesday.", "what time"),
            ("How much is that?", "a cleaning 90, a filling from 140, and whitening 250. "),
            ("half past ten in the morning", "your name"),
            ("My name is Sarah Connor.", "a cleaning, next Tuesday, 10:30 AM, for Sarah Connor. Is that right?"),
            ("No, at eleven.", "a cleaning, next Tuesday, 11 o'clock, for Sarah Connor. Is that right?"),
            ("Yes, that's right.", "You are booked, Sarah Connor: cleaning, next Tuesday, 11 o'clock."),
            ("No.", "<end_call>"),
        ],
    ),
    "all at once, the name is kept": (
        CLINIC,
        [
            ("Can I come in Thursday at three for a filling?", "your name"),
            ("Samuel", "a filling, Thursday, 3 o'clock, for Samuel."),
            ("yes", "You are booked, Samuel"),
            ("I need to cancel my appointment", "Which day"),
            ("Friday", "the appointment of Samuel, Friday. Is that right?"),
            ("never mind", "I have left that"),
            ("bye", "<end_call>"),
        ],
    ),
    "refusal and a named change": (
        CLINIC,
        [
            ("I need an appointment.", "a check-up, a cleaning"),
            ("My tooth hurts.", "Which day"),
            ("Sunday", "We are closed on Sundays."),
            ("Monday then", "what time"),
            ("ten thirty.", "your name"),
            ("John Smith", "a filling, Monday, 10:30, for John Smith."),
            ("no", "What should I change?"),
            ("the day", "Which day"),
            ("Wednesday", "a filling, Wednesday, 10:30, for John Smith."),
            ("yes please", "You are booked"),
        ],
    ),
    "lost": (
        CLINIC,
        [
            ("purple elephants", "another way"),
            ("bicycle mountain", "You can ask about our opening hours"),
            ("purple elephants", "call you back"),
        ],
    ),
    "again": (
        CLINIC,
        [
            ("I want to reschedule my appointment", "your name"),
            ("Sorry, could you repeat that?", "Of course. May I have your name"),
            ("Anna", "Which day"),
        ],
    ),
    "una reserva": (
        RESTAURANT,
        [
            ("Buenas tardes, quería reservar una mesa para el viernes", "cuántas personas"),
            ("Somos cuatro", "A qué hora"),
            ("a las nueve y media", "A qué nombre"),
            ("Marta Gómez", "para 4, el viernes, a las nueve y media, a nombre de Marta Gómez. ¿Es correcto?"),
            ("sí, correcto", "Reservado, Marta Gómez"),
            ("¿Tienen aparcamiento?", "aparcamiento público"),
            ("No, gracias, nada más", "<end_call>"),
        ],
    ),
    "todo de una vez y un cambio": (
        RESTAURANT,
        [
            (
                "Una mesa para dos mañana a las dos de la tarde a nombre de Luis",
                "para 2, mañana, a las dos de la tarde, a nombre de Luis.",
            ),
            ("no, para tres", "para 3, mañana"),
            ("sí", "Reservado, Luis: 3 personas"),
            ("adiós", "<end_call>"),
        ],
    ),
    "demasiados y cerrado": (
        RESTAURANT,
        [
            ("Hola, querría reservar", "cuántas personas"),
            ("veinte", "de una a doce"),
            ("seis personas", "qué día"),
            ("el lunes", "Los lunes cerramos"),
            ("el sábado", "A qué hora"),
        ],
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(name: str) -> None:
    script, turns = CONVERSATIONS[name]
    talk = Talk(script)
    for said, expected in turns:
        assert expected in talk.say(said), said


# ── what was heard ────────────────────────────────────────────────────────────────────────────────────────────


def test_yes_to_a_question_that_was_not_heard_books_nothing() -> None:
    for heard in ("", "So that is", "So that is a cleaning, Friday,"):
        talk = Talk(CLINIC)
        reply = talk.say("Book a cleaning on Friday at ten, my name is Eve", heard=heard)
        assert reply.endswith("Is that right?")
        again = talk.say("yes")
        assert again.endswith("Is that right?") and "booked" not in again
        assert "You are booked, Eve" in talk.say("yes")


def test_a_value_for_a_question_cut_short_is_taken() -> None:
    talk = Talk(CLINIC)
    talk.say("I want to book a cleaning", heard="Which")
    assert "what time" in talk.say("Friday")


def test_no_to_an_unheard_anything_else_does_not_hang_up() -> None:
    talk = Talk(CLINIC)
    talk.say("when do you open?", heard="We are open Monday to Friday from nine to six,")
    assert "<end_call>" not in talk.say("no")


def test_agreement_in_two_breaths_hears_what_it_cut_off_again() -> None:
    talk = Talk(CLINIC)
    talk.say("Book a cleaning on Friday at ten, my name is Eve")
    assert "You are booked, Eve" in talk.say("That's correct.", heard="You are")
    assert "You are booked, Eve" in talk.say("Yes, please.")


@pytest.mark.parametrize("heard", ["We are", "We are at 12"])
def test_what_goes_on_into_the_first_words_of_an_answer_is_one_turn(heard: str) -> None:
    talk = Talk(CLINIC)
    talk.say("I'm still on the bus and I'm going to be a bit late.", heard="Thank you")
    assert "fifteen minutes" in talk.say("Is that a problem?")
    talk.say("Sorry, it's very loud here.", heard="Sorry, I")
    assert "fifteen minutes" in talk.say("Could you say that again, please?")
    talk.say("Where are you?", heard=heard)
    assert talk.say("Where are you?").startswith("We are at 12 Mill Street")


def test_more_of_an_answer_makes_what_follows_a_turn_of_its_own() -> None:
    talk = Talk(CLINIC)
    talk.say("Where can I park?", heard="There is free parking for patients behind the")
    assert talk.say("How much is a filling?").startswith("A check-up costs")


def test_words_taken_back_never_happened() -> None:
    """The session removes a turn that the caller went on with: the engine has no memory of its own."""
    talk = Talk(CLINIC)
    talk.say("I want to book")
    talk.messages = talk.messages[:1]
    assert "Dock Lane" in talk.say("where can I park?")


def test_a_history_that_begins_in_the_middle() -> None:
    talk = Talk(CLINIC)
    talk.messages = [Message("assistant", "All right. And at what time?")]
    reply = talk.say("at ten")
    assert reply == "What would you like to come in for: a check-up, a cleaning, a filling, or whitening?"
    assert "Which day" in talk.say("a filling")


def test_idle_prompts_between_do_not_disturb() -> None:
    talk = Talk(CLINIC)
    talk.say("I want to book a cleaning")
    talk.messages.append(Message("assistant", "Are you still there?"))
    assert "what time" in talk.say("Friday")


# ── what was misheard ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ("Hello, I was hoping you could sit me in.", "come in for"),
        ("I'd like to come in for a silling.", "Which day"),
        ("A cleaning please.", "Which day"),
        ("Next Thursday.", "come in for"),
        ("Half past two, please.", "come in for"),
        ("Bye, I need to come in for a filling.", "Which day"),
        ("And just a check-up, what would that be?", "60 dollars"),
        ("Which tram do I take?", "Mill Street"),
        ("Do you see anybody on a Saturday?", "from ten to two"),
    ],
)
def test_a_misheard_or_bare_opening_is_repaired(heard: str, expected: str) -> None:
    assert expected in Talk(CLINIC).say(heard)


def test_a_misheard_value_is_taken_for_what_was_asked_and_read_back() -> None:
    talk = Talk(CLINIC)
    talk.say("I want to book a cleaning")
    assert "what time" in talk.say("How about Cersei?")
    assert "your name" in talk.say("Past past eleven would be great")
    assert "cleaning, Thursday, 11:30, for Helen Carter" in talk.say("Put it under Helen Carter.")
    assert "booked" in talk.say("The correct, please.")


@pytest.mark.parametrize(
    ("heard", "day"),
    [
        ("Thirty would suit us best.", "Thursday"),
        ("Would next to thee be all right?", "next Tuesday"),
        ("Maybe the thirtieth.", "the 30th"),
    ],
)
def test_a_misheard_day_is_a_day_when_one_was_asked_for(heard: str, day: str) -> None:
    talk = Talk(CLINIC)
    talk.say("I want to book a cleaning")
    assert "what time" in talk.say(heard)
    talk.say("At ten.")
    assert f"cleaning, {day}, 10 o'clock, for Helen Carter" in talk.say("My name Helen Carter.")


def test_a_choice_that_only_sounds_like_one_is_read_back() -> None:
    talk = Talk(CLINIC)
    talk.say("I need an appointment")
    assert "Which day" in talk.say("I think I've got a home, so silly.")
    assert "parking" in talk.say("Where can I park?")
    talk.say("Friday at ten")
    assert "So that is a filling, Friday" in talk.say("Laura Green")


def test_a_value_that_stays_unheard_is_asked_for_last() -> None:
    talk = Talk(CLINIC)
    talk.say("I want to book a cleaning")
    assert "Which day" in talk.say("in gladness sounds")
    assert "your name" in talk.say("At half past two.")
    assert "Which day" in talk.say("My name is Laura Green.")
    assert "a cleaning, Friday, 2:30, for Laura Green. Is that right?" in talk.say("Friday")


def test_agreement_is_no_name() -> None:
    talk = Talk(CLINIC)
    talk.say("Book a cleaning on Friday at ten")
    for words in ("Yep, go ahead.", "All right."):
        assert "Is that right" not in talk.say(words)
    assert "for Laura Green" in talk.say("Laura Green is my name.")


def test_what_callers_may_say_goes_to_the_recogniser() -> None:
    expected = script_phrases(settings("clinic_en").script, "en-US")
    assert {"whitening", "Thursday", "half past", "insurance", "that's right"} <= set(expected)
    assert not {"the", "you", "{service}"} & set(expected)
    assert {"Emily", "Baker"} <= set(expected) and not {"Will", "Green"} & set(expected)
    assert len(expected) <= MAX_WORDS + 2 * MAX_NAMES
    assert "Emily" not in script_phrases({**settings("clinic_en").script, "slots": {}}, "en-US")
    assert {"viernes", "y media"} <= set(script_phrases(settings("restaurante_es").script, "es-ES"))
    assert script_phrases({"intents": {"a": {"examples": "x"}}}, "ja-JP") == ()
    kept, script = Expected(), settings("clinic_en").script
    assert kept.phrases(script, "en-US") is kept.phrases(script, "en-US")
    for number in range(MAX_SCRIPTS + 5):
        kept.phrases({"intents": {"a": {"examples": [f"example{number}"]}}}, "en-US")
    assert len(kept._known) == MAX_SCRIPTS


# ── behind ChatModel ──────────────────────────────────────────────────────────────────────────────────────────


def ask(messages: list[Message], tools: tuple[ToolSpec, ...] = (END_CALL,), **more: Any) -> list[object]:
    async def run() -> list[object]:
        raw = settings("clinic_en").script
        request = ChatRequest(messages=messages, script=more.pop("script", raw), tools=tools, **more)
        return [one async for one in DialogueModel().stream(request)]

    return asyncio.run(run())


def test_events() -> None:
    events = ask([Message("user", "Bye bye")])
    text = "".join(one.text for one in events if isinstance(one, TextDelta))
    assert text == "Thank you for calling Harbour Dental. Goodbye."
    assert events[-2] == ToolCall("end_call-1", "end_call", "{}")
    assert isinstance(events[-1], ChatDone) and events[-1].reason == "tool_calls"
    without = ask([Message("user", "Bye bye")], tools=())
    assert not any(isinstance(one, ToolCall) for one in without)


def test_nobody_has_spoken_yet() -> None:
    for messages in ([], [Message("system", "x")], [Message("assistant", "Hello")], [Message("user", "")]):
        assert any(isinstance(one, TextDelta) for one in ask(messages))


TAXI = {
    "facts": {"firm": "City Cabs"},
    "slots": {
        "phone": {"type": "digits", "min": 5, "max": 9, "ask": "Your number?", "invalid": "That is no phone number."},
        "people": {"type": "number", "max": 6, "ask": "How many of you?", "invalid": "At most six.", "cues": "people"},
        "street": {"type": "text", "ask": "Where from?"},
    },
    "intents": {
        "order": {
            "examples": ["I need a taxi", "send me a cab", "pick me up"],
            "slots": ["people", "street", "phone"],
            "done": "A taxi is coming to {street}.",
            "tool": {
                "name": "dispatch",
                "arguments": {"people": "{people}", "street": "{street}", "phone": "{phone}"},
                "answer": "Car {result} is on its way.",
                "failed": "I could not reach a driver.",
            },
        },
        "who": {"examples": ["who are you"], "answer": "This is {firm}."},
    },
}


def test_another_agent_with_a_tool() -> None:
    script = compile_script(TAXI, "en-GB")
    talk = Talk(script)
    assert talk.say("hello, could you send a cab") == "How many of you?"
    assert talk.say("nine") == "At most six. How many of you?"
    assert talk.say("two people") == "Where from?"
    assert talk.say("42 Long Road") == "Your number?"
    assert talk.say("one two") == "That is no phone number. Your number?"
    assert "A taxi is coming to 42 Long Road." in talk.say("five five five, oh one two")
    reply = answer(script, talk.messages[:-1])
    assert reply.arguments == {"people": "2", "street": "42 Long Road", "phone": "5 5 5 0 1 2"}
    called = [*talk.messages[:-1], Message("assistant", "", (ToolCall("1", "dispatch", "{}"),))]
    assert answer(script, [*called, Message("tool", "17", tool_call_id="1")]).text == "Car 17 is on its way."
    failed = [*called, Message("tool", "error: down", tool_call_id="1")]
    assert answer(script, failed).text == "I could not reach a driver."


def test_did_you_mean() -> None:
    raw = {
        "intents": {
            "a": {"label": "red wine", "examples": ["tell me about the red wine cellar"], "answer": "Red."},
            "b": {"label": "white wine", "examples": ["tell me about the white wine cellar"], "answer": "White."},
        }
    }
    script = compile_script(raw, "en")
    answers = {"the second": "White.", "red": "Red.", "the first one": "Red.", "no": "in other words"}
    for reply, expected in answers.items():
        talk = Talk(script)
        assert talk.say("wine") == "Did you mean red wine or white wine?"
        assert expected in talk.say(reply)


# ── scripts ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("extra",), 1, "script.extra: unknown"),
        (("intents",), {}, "script.intents: expected 1 to 100"),
        (("intents", "who", "examples"), [], "examples: expected 1 to 200"),
        (("intents", "who", "answer"), [], "expected `done`"),
        (("intents", "who", "answer"), "{nobody}", "neither a slot nor a fact"),
        (("intents", "who", "colour"), "red", "script.intents.who.colour: unknown"),
        (("intents", "order", "slots"), ["none"], "no slot named 'none'"),
        (("slots", "phone", "type"), "colour", "expected one of number, digits"),
        (("slots", "phone", "ask"), [], "expected the question"),
        (("slots", "phone", "choices"), {"a": ["b"]}, "expected for type choice"),
        (("on_no",), "nowhere", "expected an intent"),
        (("phrases",), {"hello": "x"}, "script.phrases.hello: unknown"),
        (("intents", "order", "tool", "name"), 3, "expected the name of a tool"),
    ],
)
def test_wrong_scripts_are_refused(path: tuple[str, ...], value: object, says: str) -> None:
    raw: Any = copy.deepcopy(TAXI)
    at = raw
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(ProviderRejected, match=says.replace("(", r"\(")):
        compile_script(raw, "en")


def test_unknown_language_and_missing_script() -> None:
    with pytest.raises(ProviderRejected, match="expected one of en, es"):
        compile_script(TAXI, "ja-JP")
    with pytest.raises(ProviderRejected, match="no `script`"):
        ask([], script=None)


# ── understanding, figures ────────────────────────────────────────────────────────────────────────────────────


def understood(file: str) -> tuple[int, int, list[str]]:
    """(right, all, wrong ones) over a data file of [intent, sentence]; `none` means asked back or refused."""
    right = total = 0
    wrong: list[str] = []
    for agent, turns in yaml.safe_load((ROOT / "tests" / "data" / file).read_text()).items():
        script = script_of(agent)
        for intent, text in turns:
            state = State()
            step(script, state, text)
            # What ran is what was used for the first time, or the form that is open.
            ran = state.form or next((name for name in script.intents if name in state.uses), "none")
            total += 1
            right += ran == intent
            if ran != intent:
                wrong.append(f"{intent} -> {ran}: {text}")
    return right, total, wrong


def test_development_sentences() -> None:
    right, total, wrong = understood("dialogue_development.yaml")
    assert right / total >= 0.9, wrong


def test_a_turn_costs_little_however_long_the_call() -> None:
    talk = Talk(CLINIC)
    for number in range(60):
        talk.say(["when do you open", "where can I park", "how much is a filling", "do you take insurance"][number % 4])
    talk.messages.append(Message("user", "where are you?"))
    answer(CLINIC, talk.messages)
    began = time.perf_counter()
    for _ in range(20):
        answer(CLINIC, talk.messages)
    assert (time.perf_counter() - began) / 20 < 0.02


def test_words_that_nobody_knows_cost_little() -> None:
    talk = Talk(CLINIC)
    talk.say("A filling on Monday at three.")
    began = time.perf_counter()
    for number in range(10):
        word = "".join(chr(97 + (number * 7 + at * at) % 26) for at in range(8))
        answer(CLINIC, [*talk.messages, Message("user", f"it's {word} lox{word}")])
    assert (time.perf_counter() - began) / 10 < 0.02


def test_held_out_paraphrases() -> None:
    right, total, wrong = understood("heldout_paraphrases.yaml")
    assert total >= 60
    assert right / total >= 0.8, wrong
