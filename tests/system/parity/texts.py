"""Texts in many scripts and of many lengths: to train tokenizers on, and to ask."""

import random

SENTENCES = [
    "Where is my new card?", "The top up did not work and I want my money back!", "Ich hätte gern zwei Brötchen, bitte.",
    "L'été dernier, nous avons visité l'île d'Oléron.", "¿Dónde está la biblioteca? ¡Qué día!", "Быстрая лиса прыгает через собаку.",
    "Η γρήγορη αλεπού πηδά πάνω από το σκυλί.", "この映画は本当に素晴らしかったです。", "这家餐厅的服务非常差,我们等了一个小时。",
    "이 영화는 정말 재미있었어요.", "الخدمة كانت ممتازة والطعام لذيذ جداً", "שירות גרוע מאוד, לא אחזור לשם", "यह किताब बहुत अच्छी है और सस्ती भी",
    "หนังสือเล่มนี้ดีมาก", "Tiếng Việt có nhiều dấu thanh.", "İstanbul'da IŞIK çok güzel ığdır", "Þetta er ágætt, ßtraße ǅungla",
    "Ｆｕｌｌ ｗｉｄｔｈ ﬁ ligature ½ ²", "naïve café — “quoted” … don’t", "e\u0301a\u0308 combining n\u0303o",
    "zero\u200bwidth \u200djoin \ufeffbom \u00adhyphen", "👩‍👩‍👧‍👦 family 🇨🇭 flag ❤️‍🔥 👍🏽!!!", "tab\there\nnew line\r\nand more", "1,234.56 € on 2024-02-29 at 23:59:60",
    "user@example.com visited https://example.com/a?b=c#d", "C++ && x != y; {json: [1, 2]}", "<b>bold</b> & <i>it</i>", "#hashtag @mention $100 50% *~^",
    "\u202eright to left override\u202c", "ﷺ ௸ 𝕬𝖇𝖈 🂡 𐍈", "ABC abc AbC aBc", "co-operate re-enter mother-in-law's", "...!!!???", "   spaces   in   rows   ", "x",
]
WORDS = [word for sentence in SENTENCES for word in sentence.split()]


def corpus() -> list[str]:
    """What tokenizers are trained on: the same words in other orders, so that pieces of words are learned."""
    chance = random.Random(7)
    return SENTENCES * 4 + [" ".join(chance.choices(WORDS, k=chance.randint(3, 20))) for _ in range(600)]


def questions() -> list[str]:
    """Two hundred texts, from one token to several times the longest that a model takes; none is blank."""
    chance = random.Random(11)
    lengths = [1, 2, 3, 5, 8, 13, 21, 34, 55, 61, 62, 63, 64, 65, 89, 144, 300]
    mixed = [" ".join(chance.choices(WORDS, k=lengths[number % len(lengths)])) for number in range(140)]
    joined = ["".join(chance.choices(WORDS, k=chance.randint(2, 12))) for _ in range(15)]
    long = ["a" * 700, "ab" * 200, "漢字" * 150, "👍" * 90, "й" * 400, "ok " * 500, "é" * 130, "\u0301" * 80 + "x", "1" * 250, "ن" * 200]
    return (SENTENCES + long + joined + mixed)[:200]
