"""Phrases of telephone callers that mean the same, whatever the business: the part of a script that nobody need write.

Each group begins with its concept. Data only, in the form of `words.plain`. A script's own synonyms go first: where
they map one of a group's words, the whole group goes where they say. Kept out on purpose: words whose sense depends on
the business ("check", "free", "table").
"""

from __future__ import annotations

from providers.offline.lexicon import ENGLISH, SPANISH, Lexicon

_ENGLISH = """
when: what time, at what time, what hour, until when, till when, until what hour, until what time, how late, how early, from when, what times, by when, which days, what days, which day of the week, which hours, what hours
close: shut, finish for the day, lock up, stop for the day
hours: opening hours, opening times, business hours, office hours, working hours, times of opening, open hours
weekend: weekends, bank holiday, bank holidays, public holiday, holidays
where: whereabouts, in what part, which part of town, what part of town, in which part, part of the city, what street, which street, which road, what road, find you, find your, reach your, reach you, get to you, get to your, get there, how to get to, come to you, made it to you, address, directions, direction, location, located, situated, landmark, far from, nearest to you, closest to you, near you, far away, on the map, way to you, where to go, need to go
tram: bus, train, metro, subway, tube, underground, public transport, station, tram stop, bus stop, transit
cost: how much, how expensive, price, prices, pricing, charge, fee, fees, rate, rates, quote, estimate, expensive, cheap, pricey, dear, set me back, the damage, come to in total, afford, how many dollars, ballpark, costs
book: schedule, arrange, reserve, set up, fix up, fit me in, fit us in, fit him in, fit her in, squeeze me in, squeeze us in, slot me in, put me down, pencil me in, get me in, get in to see, sign me up, come in, coming in, pop in for, in the diary, in your diary, in the book, see me, make an, make me an, be seen, get seen, take me on, accept new
appointment: my booking, the booking, a booking, this booking, our booking, slot, visit, my reservation, the reservation, a reservation, our reservation, time slot, consultation, any openings, an opening, space in the diary
available: availability, vacancy, vacancies, any time, anything free, have room, time for me, free slot, free time, spare slot
cancel: scrap, delete, remove, call off, calling off, drop my appointment, get rid of, withdraw, take me off, take off, my name off, off the list, no longer need, do not need, not need, can not make it, can not come, can not attend, can not keep, unable to come, unable to make it, not be able to make, not be able to come, not able to attend, not able to come, not able to make, will not be coming, not be coming, will not make it, not coming, can not be there, will not be there
reschedule: move, shift, swap, change, switch, rearrange, postpone, delay, put back, push back, push, bring forward, put forward, move forward, bring it forward, another day, different day, other day, another time, different time, another date, different date, later date, earlier date, later time, earlier time, later than planned, earlier than planned, instead of
speak: talk, chat, have a word, a word with, put me through, put through, put me on to, connect, connect me, transfer, get hold of, pass me
person: human, human being, operator, receptionist, representative, agent, staff, member of staff, real person, colleague, reception, front desk, manager, somebody real, someone real, live person, actual person
callback: call me back, ring me, ring me back, phone me, phone me back, call back, ring back, phone back, give me a call, give me a ring
insurance: insured, insurer, insurers, insurance company, policy, coverage, cover, covers, covered, dental plan, health plan, medical plan, my plan, health insurance, health fund, medicaid, medicare, claim, in network
pay: payment, payments, settle, settle up, settle the bill
card: credit card, credit cards, debit card, debit cards, visa, visa card, mastercard, master card, amex, american express, apple pay, google pay, contactless, cheque, cheques, bank transfer, paypal
installments: instalments, instalment, installment, bit by bit, in parts, three parts, monthly, every month, over time, over a few months, over several months, spread the cost, spread the payment, spread it, split the bill, split the cost, split the payment, payment plan, in stages, pay later, pay it off
parking: park, parks, car park, parking lot, parking space, parking spot, parking place, garage, leave my car, leave the car, leave a car, put my car, put the car, space for my car, my car, the car, by car, driving, drive, vehicle, van, cars, bring a car
tooth: teeth, molar
hurt: hurts, hurting, ache, aches, aching, sore, painful, pain, toothache, killing me, throbbing
emergency: urgent, urgently, immediately, right away, at once, straight away, this minute, can not wait, emergencies, accident
agony: terrible pain, awful pain, horrible pain, unbearable, excruciating, can not sleep, can not stand, so much pain, bad pain, in agony, severe pain, hurts so much, hurts so bad, hurts badly
blood: bleeding, bleed, bleeds, bloody
swollen: swelling, swell, swelled, puffed up
broke: broken, break, cracked, chipped, snapped, knocked out, knock out, knocked my, lost a tooth, lost my tooth
repeat: say again, say that again, say it again, say that once more, one more time, once more, once again, come again, pardon, pardon me, beg your pardon, did not catch, not catch, did not hear, could not hear, can not hear you, did not understand, did not get that, missed that, missed it, what was that, what did you say, say what, more slowly, slower, speak up
robot: machine, computer, bot, automatic, automated, recording, answering machine, artificial
bye: goodbye, good by, good buy, could buy, by by, buy bye, by now, bye bye, bye now, good bye, cheers, take care, see you, talk to you later, talk later, speak later, speak to you soon, speak soon, talk soon, have a nice, have a good, have a lovely, have a great, have a nice day, have a good day, have a good one, have a lovely day, have a great day, good night, until then, so long, nice evening, nice weekend
everything: that is all, that is it, that was it, that was all, that is everything, that was everything, that will be all, that would be all, that will do, nothing else, nothing more, no more questions, no further questions, no other questions, all set, all i need, all i needed, all i wanted, all i wanted to know, all for now, all for today, all i had, for the moment, thanks for your help, thank you for your help, been very helpful, very helpful, you have been helpful
clinic: practice, surgery, office, premises, your place, your building, your shop, your house
child: children, kid, kids, son, daughter, baby, boy, girl, toddler, little one, little boy, little girl
late: running late, be late, delayed, stuck in traffic, held up
"""  # noqa: E501 - a table, one concept a line

_SPANISH = """
cuando: a que hora, hasta que hora, desde que hora, que dias, que horas
adios: hasta pronto, nos vemos, que vaya bien, buen dia
"""


def groups(lexicon: Lexicon) -> dict[str, tuple[str, ...]]:
    """Concept -> phrases that mean the same in this language."""
    return _GROUPS.get(lexicon, {})


def _read(table: str) -> dict[str, tuple[str, ...]]:
    lines = (line.partition(":") for line in table.strip().splitlines())
    return {concept: tuple(one.strip() for one in phrases.split(",")) for concept, _, phrases in lines}


_GROUPS = {ENGLISH: _read(_ENGLISH), SPANISH: _read(_SPANISH)}
