"""Texts that an agent says although nobody wrote them: there must always be something to say when nothing works."""

from __future__ import annotations

from server.agent.settings import AgentSettings

APOLOGIES = {
    "en": "I am sorry, something went wrong. Could you say that again?",
    "es": "Lo siento, algo ha fallado. ¿Puede repetirlo?",
    "de": "Entschuldigung, da ist etwas schiefgegangen. Können Sie das wiederholen?",
    "fr": "Je suis désolé, il y a eu un problème. Pouvez-vous répéter ?",
    "it": "Mi scusi, qualcosa è andato storto. Può ripetere?",
}
FAREWELLS = {
    "en": "I am sorry, I cannot go on with this call. Please call again in a few minutes. Goodbye.",
    "es": "Lo siento, no puedo continuar con esta llamada. Por favor, llame de nuevo en unos minutos. Adiós.",
    "de": "Es tut mir leid, ich kann dieses Gespräch nicht fortsetzen. Bitte rufen Sie in einigen Minuten wieder an.",
    "fr": "Je suis désolé, je ne peux pas poursuivre cet appel. Veuillez rappeler dans quelques minutes. Au revoir.",
    "it": "Mi dispiace, non posso continuare questa chiamata. La prego di richiamare tra qualche minuto. Arrivederci.",
}
HAND_OVERS = {
    "en": "I am sorry, something is not working here. I will put you through to a colleague.",
    "es": "Lo siento, algo no funciona. Le paso con un compañero.",
    "de": "Es tut mir leid, hier funktioniert etwas nicht. Ich verbinde Sie mit einem Kollegen.",
    "fr": "Je suis désolé, quelque chose ne fonctionne pas. Je vous passe un collègue.",
    "it": "Mi dispiace, qualcosa non funziona. Le passo un collega.",
}


def apology(settings: AgentSettings) -> str:
    """Said when one answer could not be given, and the call goes on."""
    return settings.limits.apology or _of(APOLOGIES, settings.language)


def farewell(settings: AgentSettings) -> str:
    """The last words of a call that cannot go on."""
    return settings.limits.farewell or _of(FAREWELLS, settings.language)


def hand_over(settings: AgentSettings) -> str:
    """Said before a call that cannot go on is put through to `limits.fallback_number`."""
    return settings.limits.hand_over or _of(HAND_OVERS, settings.language)


def _of(texts: dict[str, str], language: str) -> str:
    """English for a language that we do not know."""
    return texts.get(language.split("-")[0].lower(), texts["en"])
