"""Words that every dialogue needs, in English and Spanish: numbers, days, times, yes, no, and the engine's phrases.

Data only. All words are in the form of `words.plain`: lower case, no accents, contractions written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from providers.offline.common_name import FIRST_NAMES, LAST_NAMES, WORDS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lexicon:
    """One language; compared by identity, so that caches may key on it.

    `numbers` are the parts of spoken numbers; `hundred` multiplies what stands before it.
    `ordinary` are frequent words beside the stop words: never a rarer one misheard. `and_what_of` begins a question
    that is the last one with another value. `leads_to` and `instead` say that a value is the new one. A yes with
    `yes_but` may be no yes; one that begins with `wants` goes on to something, another with `thanks` ends it.
    `no_more` says no to "anything else?" and yes to a read-back.
    `hour_sounds` and `day_sounds` are words that an hour and a weekday are misheard as; `time_words` stand in times
    only. `next_week` beside a weekday makes it the one of the week to come. `bounds` before a day or an hour say that
    another one is meant ("until two"), `busy` ones that it is none at all ("I finish work at four"). `i_am` begins a
    name that is corrected; a name after `of_others` is not the caller's. `first_names` and `last_names` are common
    ones, the most frequent first; those that are everyday words too are in `name_words`.
    """

    stop_words: frozenset[str]
    ordinary: frozenset[str]
    contractions: Mapping[str, str]
    suffixes: tuple[str, ...]
    numbers: Mapping[str, int]
    joiner: str
    hundred: str
    digits: Mapping[str, str]
    weekdays: Mapping[str, str]
    months: Mapping[str, str]
    relative_days: Mapping[str, str]
    day_numbers: Mapping[str, int]
    times: tuple[str, ...]
    answers: tuple[str, ...]
    yes: tuple[str, ...]
    no: tuple[str, ...]
    no_more: tuple[str, ...]
    wants: tuple[str, ...]
    thanks: tuple[str, ...]
    leave: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]
    leads_to: tuple[str, ...]
    instead: tuple[str, ...]
    yes_but: tuple[str, ...]
    hour_sounds: Mapping[str, int]
    day_sounds: Mapping[str, str]
    and_what_of: tuple[str, ...]
    next_week: tuple[str, ...]
    time_words: frozenset[str]
    bounds: tuple[str, ...]
    busy: tuple[str, ...]
    name_before: tuple[str, ...]
    i_am: tuple[str, ...]
    of_others: tuple[str, ...]
    name_trail: tuple[str, ...]
    name_after: tuple[str, ...]
    name_noise: frozenset[str]
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    name_words: frozenset[str]
    phrases: Mapping[str, tuple[str, ...]]


def _numbered(words: str, first: int = 0) -> dict[str, int]:
    return {word: number for number, words_of in enumerate(words.split(), first) for word in words_of.split("/")}


def _named(words: str) -> dict[str, str]:
    return {word.lower(): word for word in words.split()}


_EN_TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_EN_SMALL = _numbered(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
_EN_ORDINALS = _numbered(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
    " sixteenth seventeenth eighteenth nineteenth twentieth",
    1,
) | {"thirtieth": 30}

ENGLISH = Lexicon(
    stop_words=frozenset(
        "a an the i you we he she it me my your our us is are am be been was were do does did have has had to"
        " of for in on"
        " at and or so with that this there would could can will shall should please just like want need wish get got"
        " know tell let if any some well um uh er oh okay ok hi hello hey yeah not but by as about from also"
        " then thanks"
        " thank actually really maybe think wondering wonder guess might may going go into here back again out"
        " up down off now one only guys sir madam rather quick quickly question ask calling call yes no right"
        " day there these those very lovely great alright hiya afraid sorry really hoping chance possible".split()
    ),
    ordinary=frozenset(
        "able after forward again all alright always another anybody anyone anything anywhere around away"
        " before better big"
        " both"
        " bring called came case charge come could dear every everybody everything feel few find fine first friend good"
        " great happy hard hear heard help here hope hoping house idea keep kind last late later leave left life like"
        " little live long look lot make many mean mind moment more most much must name near never new next nice nobody"
        " nothing often old once open other over part party past pay people person place play point possible pretty put"
        " real really same say see seem send set show side since small some somebody someone something somewhere soon"
        " sort speak start still stop story street such suit suits sure take talk tell than their them there these they"
        " thing those thought through till time times today together told too took town try trying turn under until use"
        " used usual very visit wait walk was watch way week well went were what when where which while who whole whose"
        " why wife with without word work world worse year years your day days"
        " half quarter noon midday morning afternoon evening week month oclock am pm said knew feel".split()
    ),
    contractions={
        "what's": "what is", "where's": "where is", "who's": "who is", "how's": "how is", "when's": "when is",
        "it's": "it is", "that's": "that is", "there's": "there is", "let's": "let us", "i'm": "i am", "i'd": "i would",
        "i've": "i have", "i'll": "i will", "you're": "you are", "you've": "you have", "you'll": "you will",
        "we're": "we are", "we'd": "we would", "we'll": "we will", "we've": "we have", "they're": "they are",
        "don't": "do not", "doesn't": "does not", "didn't": "did not", "isn't": "is not", "aren't": "are not",
        "can't": "can not", "cannot": "can not", "couldn't": "could not", "won't": "will not", "wouldn't": "would not",
        "gonna": "going to", "wanna": "want to", "o'clock": "oclock", "y'all": "you all", "name's": "name is",
    },
    suffixes=("ations", "ation", "ings", "ments", "ment", "ing", "ies", "ers", "ed", "es", "er", "ly", "s", "y", "e"),
    numbers=_EN_SMALL | _EN_TENS | {"couple": 2, "pair": 2, "dozen": 12},
    joiner="and",
    hundred="hundred",
    digits={word: str(n) for word, n in _EN_SMALL.items() if n < 10} | {"oh": "0", "o": "0"},
    weekdays=_named("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    months=_named("January February March April May June July August September October November December"),
    relative_days={
        "day after tomorrow": "the day after tomorrow", "tomorrow": "tomorrow", "to morrow": "tomorrow",
        "into morrow": "tomorrow", "today": "today",
        "tonight": "today",
    },
    day_numbers=_EN_ORDINALS,
    times=(
        "half past", "quarter past", "quarter to", "o'clock", "in the morning", "in the afternoon", "in the evening",
        "noon", "midday", *(word for word, hour in _EN_SMALL.items() if 1 <= hour <= 12), "fifteen", "thirty",
        "forty-five",
    ),
    answers=("yes", "yes please", "correct", "that's right", "that's correct", "exactly", "right", "perfect", "no"),
    yes=(
        "yes", "yeah", "yep", "yup", "sure", "correct", "right", "exactly", "absolutely", "of course", "certainly",
        "definitely", "ok", "okay", "fine", "perfect", "that is right", "that is correct", "sounds good",
        "sounds great",
        "go ahead", "please do", "it is", "i do", "yes i do", "great", "good", "uh huh", "mm hmm", "indeed",
        "confirmed",
    ),
    no=(
        "no", "nope", "nah", "not really", "no thanks", "no thank you", "that is wrong", "wrong", "incorrect",
        "that is not right", "that is all", "that is it", "that will be all", "nothing", "nothing else", "not quite",
        "that is not correct", "i am good", "i am fine", "all good", "negative", "i do not think so",
    ),
    no_more=("that is all", "that is it", "that will be all", "i am good", "i am fine", "all good"),
    wants=("yes", "yeah", "yep", "yup", "please"),
    thanks=("thanks", "thank", "cheers"),
    leave=(
        "never mind", "nevermind", "forget it", "forget about it", "forget that", "start over", "start again",
        "do not bother", "leave it", "changed my mind", "do not want to book", "not book",
    ),
    first=("first", "former"),
    second=("second", "latter", "last"),
    leads_to=("to", "till", "until", "for"),
    instead=("instead", "rather"),
    yes_but=("it is", "but", "the name", "my name", "only", "except"),
    day_sounds={
        "wendy": "wednesday", "wendys": "wednesday", "when is day": "wednesday", "windy": "wednesday",
        "mindy": "monday",
        "money": "monday", "moon day": "monday", "thirsty": "thursday", "try day": "friday", "fry day": "friday",
        "sat a day": "saturday", "set a day": "saturday", "that a day": "saturday", "sadder day": "saturday",
    },
    hour_sounds={
        "to": 2, "too": 2, "you": 2, "for": 4, "fore": 4, "far": 4, "ate": 8, "eat": 8, "won": 1, "wan": 1, "tin": 10,
        "then": 10, "tan": 10, "tree": 3, "free": 3, "fife": 5, "fight": 5, "sick": 6, "sex": 6,
        "night": 9, "mine": 9, "line": 9,
        "tend": 10, "end": 10, "and": 10, "leaven": 11, "levin": 11, "heaven": 11,
    },
    and_what_of=("and ", "what about ", "and what about ", "how about ", "and how about "),
    next_week=("next week", "week after"),
    time_words=frozenset("past passed half quarter oclock clock noon midday at morning afternoon evening hour".split()),
    bounds=("after", "before", "until", "till", "from", "not", "except", "than", "instead", "away", "only"),
    busy=("work", "works", "working", "finish", "finishes", "finished", "start", "starts", "begin", "begins", "end",
          "ends", "off", "meeting", "busy", "until", "till", "school", "leave", "lesson", "shift", "class"),
    name_before=("my name is", "my name", "name is", "the name is", "the name", "this is", "i am", "it is", "call me",
                 "i am called", "called", "under the name",
                 "under the name of", "under", "in the name of", "for"),
    i_am=("i am ", "my name ", "the name "),
    of_others=("doctor", "dr", "dentist", "mr", "mrs", "miss", "with", "see", "to"),
    name_trail=("is my name", "is the name"),
    name_after=("speaking", "here"),
    name_noise=frozenset(
        "yes yeah sure ok okay um uh er well so it is the a my name please hi hello would be that and of course oh for"
        " under first last full surname spelled i am me this thanks thank you just put".split()
    ),
    first_names=FIRST_NAMES,
    last_names=LAST_NAMES,
    name_words=WORDS,
    phrases={
        "fallback": (
            "Sorry, I did not get that. Could you say it another way?",
            "I still did not understand. You can ask about {labels}.",
            "I am sorry, I am not able to help with that.",
        ),
        "did_you_mean": ("Did you mean {options}?",),
        "or": ("or",),
        "rephrase": ("All right. Please tell me in other words how I can help.",),
        "yes_or_no": ("Sorry, was that a yes or a no?",),
        "change": ("What should I change?",),
        "dropped": ("All right, I have left that.",),
        "anything_else": ("Is there anything else I can do for you?", "Anything else?", "What else can I do for you?"),
        "go_on": ("Of course. How can I help?",),
        "help": ("How can I help you?",),
    },
)  # fmt: skip

_ES_TENS = {word: 10 * n for n, word in enumerate("treinta cuarenta cincuenta sesenta setenta ochenta"
" noventa".split(), 3)}
_ES_SMALL = _numbered(
    "cero un/uno/una dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis"
    " diecisiete"
    " dieciocho diecinueve veinte veintiuno/veintiun/veintiuna veintidos veintitres veinticuatro veinticinco veintiseis"
    " veintisiete veintiocho veintinueve"
)
_ES_DAYS = "lunes martes miércoles jueves viernes sábado domingo".split()
_ES_MONTHS = "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre".split()

SPANISH = Lexicon(
    stop_words=frozenset(
        "un una unos unas el la los las lo le les me te se nos yo tu usted ustedes mi su sus que de del a al en"
        " y o e u con"
        " por para es son soy esta este esto estan ese esa eso ser estar hay ha han he haber tiene tienen tengo tenemos"
        " quiero queria quisiera querria quisieramos queriamos me gustaria gustaria puedo puede podria pueden podriamos"
        " necesito necesitamos si no como pues bueno bien hola buenas buenos dias tardes noches favor porfavor gracias"
        " oiga mire eh um saber decir decirme digame dime ya muy mas pero tambien entonces vale hacer hacen".split()
    ),
    ordinary=frozenset(),
    contractions={},
    suffixes=(
        "aciones", "acion", "amientos", "amiento", "imiento", "iendo", "ando", "arnos", "arlo", "arla", "arme", "erme",
        "amos", "emos", "imos", "ados", "adas", "idos", "idas", "ado", "ada", "ido", "ida", "aria", "eria",
        "iria", "aran",
        "aban", "aba", "ais", "an", "en", "ar", "er", "ir", "as", "es", "os", "is", "a", "e", "o", "s", "i",
    ),
    numbers=_ES_SMALL | _ES_TENS | {"pareja": 2, "par": 2, "docena": 12, "cien": 100, "ciento": 100},
    joiner="y",
    hundred="cientos",
    digits={word: str(n) for word, n in _ES_SMALL.items() if n < 10},
    weekdays=_named(" ".join(_ES_DAYS)) | {"miercoles": "miércoles", "sabado": "sábado"},
    months=_named(" ".join(_ES_MONTHS)) | {"setiembre": "septiembre"},
    relative_days={
        "pasado manana": "pasado mañana", "manana por la manana": "mañana", "manana": "mañana", "hoy": "hoy",
        "esta noche": "hoy", "esta tarde": "hoy", "este mediodia": "hoy",
    },
    day_numbers={"primero": 1},
    times=(
        "y media", "y cuarto", "menos cuarto", "mediodía", "de la tarde", "de la noche", "de la mañana",
        *(word for word, hour in _ES_SMALL.items() if 1 <= hour <= 12),
    ),
    answers=("sí", "sí por favor", "correcto", "exacto", "eso es", "de acuerdo", "no"),
    yes=(
        "si", "claro", "por supuesto", "correcto", "exacto", "eso es", "asi es", "vale", "de acuerdo",
        "perfecto", "desde luego",
        "ok", "okay", "muy bien", "esta bien", "confirmo", "si por favor", "si gracias", "adelante",
        "efectivamente", "bien",
        "es correcto", "todo correcto", "todo bien", "genial",
    ),
    no=(
        "no", "no gracias", "nada", "nada mas", "eso es todo", "es todo", "no es correcto", "incorrecto", "esta mal",
        "para nada", "de momento no", "por ahora no", "asi esta bien", "no eso es todo", "no nada mas", "con eso basta",
        "ya esta", "no esta bien", "nada mas gracias", "no no",
    ),
    no_more=("eso es todo", "es todo", "ya esta", "con eso basta", "asi esta bien"),
    wants=("si", "claro"),
    thanks=("gracias",),
    leave=("olvidelo", "olvidalo", "dejelo", "dejalo", "da igual", "empezar de nuevo", "volver a empezar",
    "cambie de idea",
           "he cambiado de idea", "mejor no"),
    first=("primero", "primera", "lo primero"),
    second=("segundo", "segunda", "lo segundo"),
    leads_to=("al", "a", "para", "hasta"),
    instead=("vez",),
    yes_but=("pero", "el nombre", "mi nombre", "salvo"),
    hour_sounds={},
    day_sounds={},
    and_what_of=("y ", "que tal ", "y que tal ", "que hay de ", "y que hay de "),
    next_week=("semana que viene", "proxima semana", "semana proxima"),
    time_words=frozenset("media cuarto hora horas las tarde noche".split()),
    bounds=(),
    busy=(),
    name_before=("a nombre de", "me llamo", "mi nombre es", "nombre de", "el nombre es", "soy", "habla", "de"
    " parte de", "es"),
    of_others=(),
    i_am=("soy ", "me llamo ", "mi nombre ", "el nombre "),
    name_trail=("es mi nombre", "es el nombre"),
    name_after=(),
    name_noise=frozenset(
        "si vale claro pues bueno eh es el la a nombre de mi me llamo soy por favor con gracias hola que sea"
        " pon ponga pongalo"
        " ponla pongala esta apunte apuntelo seria sera".split()
    ),
    first_names=(),
    last_names=(),
    name_words=frozenset(),
    phrases={
        "fallback": (
            "Perdone, no le he entendido. ¿Me lo puede decir de otra manera?",
            "Sigo sin entenderle. Puede preguntarme por {labels}.",
            "Lo siento, con eso no le puedo ayudar.",
        ),
        "did_you_mean": ("¿Quiere decir {options}?",),
        "or": ("o",),
        "rephrase": ("De acuerdo. Dígame con otras palabras en qué le puedo ayudar.",),
        "yes_or_no": ("Perdone, ¿era un sí o un no?",),
        "change": ("¿Qué quiere que cambie?",),
        "dropped": ("De acuerdo, lo dejamos.",),
        "anything_else": ("¿Le puedo ayudar en algo más?", "¿Algo más?", "¿Qué más puedo hacer por usted?"),
        "go_on": ("Por supuesto. Dígame.",),
        "help": ("¿En qué le puedo ayudar?",),
    },
)  # fmt: skip

LEXICONS = {"en": ENGLISH, "es": SPANISH}
