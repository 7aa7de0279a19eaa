"""Texts that conversions get wrong: stop words only, nothing after tokenising, many scripts, marks, digits."""

ODD_TEXTS = [
    "the of and to", "I", "a b c", "?", "!!! ... ???", "-", "42", "3.14 1,000 €5", "½ ² Ⅷ ٣٤", "x_1 __init__", "_",
    "Where is my card?", "CARD NOT ARRIVED", "don't can't won't", "e-mail: a.b@example.org", "https://example.org/?q=1&r=2",
    "Größe und Straße", "ÄÖÜ ÉÈ ÇÑ", "café cafe\u0301", "Ça coûte combien, l'été ?", "¿Dónde está mi tarjeta?",
    "Где моя карта?", "Πού είναι η κάρτα μου", "איפה הכרטיס שלי", "أين بطاقتي", "कार्ड कहाँ है", "আমার কার্ড কোথায়",
    "บัตรของฉันอยู่ที่ไหน", "我的卡在哪里", "カードはどこですか", "내 카드는 어디에 있나요", "Ｆｕｌｌ ｗｉｄｔｈ", "where is 我的 card",
    "card 😱 help", "👩‍👩‍👧‍👦", "zero\u200bwidth", "soft\u00adhyphen", "no\u00a0break", "tab\there", "line\nbreak", "two  spaces   here",
    " leading and trailing ", "a" * 300, "card " * 200, "ﬁne ligature", "“quoted” ‘text’ — dash", "C++ C# .NET", "1st 2nd 3rd",
]
