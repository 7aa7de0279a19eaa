"""Texts that show which rules a tokenizer has."""

from .odd_texts import ODD_TEXTS
from .texts import Text

KINDS = {
    "upper and lower case": ["CARD Card card", "İstanbul ISTANBUL", "ΟΔΟΣ ΑΣ'Α", "STRASSE straße ẞ", "ÀÉÎ"],
    "accents": ["naïve café", "cafe\u0301 e\u0301a\u0308", "Ångström n\u0303o", "\u0301", "ñ n\u0303", "İ i\u0307"],
    "compatible characters": ["Ｆｕｌｌ ｗｉｄｔｈ １２３", "ﬁne ﬂow", "½ ² Ⅷ ①", "ﷺ ㍿ ㎏", "ｶﾅ カナ", "𝕬𝖇𝖈", "…", "\u2026 \u2025", "ª º", "ǅ \u212a \u212b"],
    "white space": ["  two  spaces ", "tab\there", "line\nbreak", "lines\r\n\r\nbreak", "no\u00a0break", "thin\u2009space", "ideographic\u3000space",
                    "\u2028line", " leading", "trailing ", "\x0b\x0c", "a\u0085b", "\n\n\n", "x   y    z"],
    "invisible characters": ["zero\u200bwidth", "soft\u00adhyphen", "\ufeffbom", "\u200djoin", "\u202eright\u202c", "nul\u0000l", "\u0007bell", "\ufffd", "\x7f"],
    "digits": ["1234567890", "3.14 1,000 €5", "12345 6 78", "٣٤ ३४", "1st 2nd", "2024-02-29T23:59:60", "x2y3"],
    "apostrophes": ["don't can't I'll we've", "DON'T WE'LL", "l'été d’accord", "'s 't 're", "rock 'n' roll", "it's'd"],
    "punctuation": ["...!!!???", "a-b a_b a/b", "(x) [y] {z}", "C++ && != ;", "#tag @name $1 50% *~^", "“q” ‘s’ — –", "。，！？", "$+<=>^`|~", "؟ ।"],
    "scripts": ["我的卡在哪里", "カードはどこですか", "카드는 어디에", "בדיקה שלום", "أين بطاقتي", "कार्ड कहाँ है", "บัตรของฉัน", "где моя карта", "where is 我的 card"],
    "emoji": ["👩‍👩‍👧‍👦 🇨🇭", "❤️‍🔥 👍🏽", "card😱help", "☺️ ☺"],
    "long words": ["a" * 120, "ab" * 150, "x" * 300, "漢" * 120],
}


def tokenizer_texts(tokenizer, more: list[Text]) -> dict[Text, str]:
    """Texts and pairs, and what each shows. Its special tokens are typed into some."""
    found: dict[Text, str] = {}
    for kind, texts in KINDS.items():
        for text in texts:
            found.setdefault(text, kind)
            found.setdefault(f"{text} where is {text}", kind)
    for text in ODD_TEXTS:
        found.setdefault(text, "many scripts")
    for token in sorted(set(map(str, tokenizer.added_tokens_decoder.values())) | set(tokenizer.all_special_tokens))[:40]:
        for text in (token, f"a {token} b", f"a{token}b", f" {token.lower()} {token.upper()} ", f"{token}{token}"):
            found.setdefault(text, "special tokens")
    for text in more:
        found.setdefault(text, "the words of --texts")
    found.setdefault(("Where is it?", "It is here."), "two parts")
    found.setdefault(("CARD ½", " naïve"), "two parts")
    return {text: kind for text, kind in found.items() if not isinstance(text, str) or text}
