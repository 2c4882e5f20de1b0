"""Texts that an agent says although nobody wrote them: there must always be something to say when nothing works."""

from __future__ import annotations

APOLOGIES = {
    "en": "I am sorry, something went wrong. Could you say that again?",
    "es": "Lo siento, algo ha fallado. ¿Puede repetirlo?",
    "de": "Entschuldigung, da ist etwas schiefgegangen. Können Sie das wiederholen?",
    "fr": "Je suis désolé, il y a eu un problème. Pouvez-vous répéter ?",
    "it": "Mi scusi, qualcosa è andato storto. Può ripetere?",
}


def apology(own: str, language: str) -> str:
    """The agent's own apology, or one in its language; English for a language that we do not know."""
    return own or APOLOGIES.get(language.split("-")[0].lower(), APOLOGIES["en"])
