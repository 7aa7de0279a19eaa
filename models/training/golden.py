"""Texts with known answers, written for this project. A server asks them each time it loads the model.

They show whether a model still answers as it did where it was made; they do not measure how good it is. So a text is
kept for a model only if the model gives the intended answer clearly, so that small differences between CPUs do not change it.
"""

import re

from tools.golden import single

from .data import Banking77
from .runtime import Model

FEWEST = 25

# The first one is the example in the project's documentation, and both models must answer it.
TEXTS = [
    ("card_arrival", "My new card has not come yet, where is it?"),
    ("card_arrival", "It has been 11 days and there is still no sign of my card in the post — should it not be here by now?"),
    ("card_arrival", "STILL WAITING FOR MY CARD TO ARRIVE IN THE MAIL!!! WHERE IS IT???"),
    ("lost_or_stolen_card", "Somebody took my wallet on the tram this morning and my card was in it. Please tell me what to do about the stolen card."),
    ("lost_or_stolen_card", "i lost my card yesterday 😱 help"),
    ("passcode_forgotten", "The passcode for the app has slipped my mind. I forgot it on holiday; what now?"),
    ("pin_blocked", "Too many wrong tries and now my PIN is blocked. How is it unblocked?"),
    ("change_pin", "Which machine lets me choose another PIN?"),
    ("activate_my_card", "Card came in the post today; what are the steps to activate it?"),
    ("age_limit", "Is my daughter, who is 15, old enough to have an account?"),
    ("apple_pay_or_google_pay", "apple pay top up does not go through on my watch"),
    ("atm_support", "Which cash machines accept this card?"),
    ("automatic_top_up", "Where do I switch on the automatic top up, so the balance never gets below 20?"),
    ("beneficiary_not_allowed", "Your app tells me this beneficiary is not allowed. Why?"),
    ("cancel_transfer", "Stop!! I sent the transfer to the wrong person, cancel it please"),
    ("card_about_to_expire", "My card expires at the end of next month. Do I get the replacement without asking?"),
    ("card_acceptance", "Will shops and restaurants everywhere accept the card?"),
    ("card_linking", "I found my old card behind the sofa. How do I link it to the app again?"),
    ("card_payment_fee_charged", "Why was a fee charged when I paid with my card at the bakery?"),
    ("card_swallowed", "The cash machine outside the station swallowed my card and did not give it back."),
    ("cash_withdrawal_charge", "I see a charge of 3 euros next to the cash withdrawal I made at the airport. Is taking out cash not free?"),
    ("compromised_card", "I fear that someone has copied my card details and is using them to buy things."),
    ("contactless_not_working", "contactless doesnt work anymore"),
    ("country_support", "Do you offer your service in Norway, and in which other countries?"),
    ("declined_cash_withdrawal", "The ATM in Zürich declined my withdrawal, although I have 500 CHF."),
    ("declined_transfer", "Twice today a transfer to my landlord got declined. What should I do differently?"),
    ("disposable_card_limits", "How many disposable cards may one person create in a day?"),
    ("edit_personal_details", "I got married and need to change my surname in my profile."),
    ("exchange_rate", "Where do your exchange rates come from, and how often are they updated?"),
    ("exchange_via_app", "Does the app let me change pounds into euros?"),
    ("failed_transfer", "Sending rent to my flatmate ends with 'transfer failed', every single time."),
    ("fiat_currency_support", "Tell me the fiat currencies you support for holding and exchange, e.g. SEK or PLN."),
    ("getting_virtual_card", "A virtual card would suit me for online shops. Where do I get one?"),
    ("order_physical_card", "Can I order a real, physical card, please? So far everything I have is on the phone."),
    ("pending_card_payment", "A card payment from Tuesday is still shown as pending."),
    ("pending_top_up", "Why is my top‑up still pending after three hours?"),
    ("Refund_not_showing_up", "The shop says they refunded me last week, but the refund is not on my statement."),
    ("request_refund", "I'd like a refund for something I bought, how do I request one?"),
    ("supported_cards_and_currencies", "Can I top up with American Express? Which cards are supported?"),
    ("terminate_account", "Ｐｌｅａｓｅ close my account, I want to delete it for good."),
    ("top_up_failed", "Top-up failed again, 3rd time today :("),
    ("top_up_limits", "Before I add 7,500 to my account: what is the top-up limit?"),
    ("topping_up_by_card", "How do I top up with my debit card?"),
    ("unable_to_verify_identity", "The app keeps saying it is unable to verify my identity, whatever photo I take."),
    ("verify_my_identity", "What do I have to send in so that my identity gets verified, is a driving licence enough?"),
    ("verify_source_of_funds", "You want to know the source of my funds. It was an inheritance; how do I verify that?"),
    ("verify_top_up", "How do I verify my top-up card with the code?"),
    ("visa_or_mastercard", "Is it Visa or Mastercard? I would rather have a Visa."),
    ("why_verify_identity", "Why do you need to check my identity at all? I do not like giving out so much about myself."),
    ("wrong_amount_of_cash_received", "I asked the machine for 100 and it gave me only 60, the amount of cash was wrong!"),
    ("card_arrival", "Good morning, I hope you can help me. About two weeks ago I ordered a card to my home address in the "
                     "countryside, where the postman comes only on Mondays and Thursdays. My neighbours have had letters "
                     "since then, and so have I, but my new card has not arrived. Could you look up where the card is now, "
                     "and tell me whether I should go on waiting for it to arrive in the mail?"),
    ("lost_or_stolen_card", "J'ai perdu... sorry, in English: I lost my card at a café in Málaga. Is there a way to freeze the lost card?"),
    ("change_pin", "hi\n\ti want   another    pin,   can i change it at  an atm  in   Spain"),
    ("transfer_timing", "How long does a transfer take to arrive? 卡"),
]


def words(text: str) -> str:
    """The text without case and punctuation, which do not make it another text."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def examples(model: Model, data: Banking77) -> list[dict]:
    """The texts that this model answers as intended, with its score for that answer."""
    known = {words(text) for text in data.train.texts + data.test.texts}
    kept = []
    for label, text in TEXTS:
        if words(text) in known:
            raise SystemExit(f"not our own words, but the data set's: {text}")
        example = single(text, model.probabilities([text])[0], model.intents)
        if example is not None and example["label"] == label:
            kept.append(example)
    return kept
