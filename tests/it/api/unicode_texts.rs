//! Texts that are odd as Unicode: both shipped models answer them or refuse them with 422, alone and in a batch alike.

use predictd::api::predictions::{BatchAnswer, Prediction};
use serde_json::json;

use crate::support::answers::{item_answer, item_error, label};
use crate::support::test_server::{CHEAP_MODEL, TestServer, shipped_models};

const MODELS: [&str; 2] = [CHEAP_MODEL, "banking77-minilm"];

/// Odd texts, and whether they are answered.
fn odd_texts() -> Vec<(&'static str, String, bool)> {
    let planes = (1..=16_u32).filter_map(|plane| char::from_u32(plane << 16 | 0xfffd)).collect();
    vec![
        ("four bytes each", "😀🎉🦀".to_owned(), true),
        ("a family", "👨‍👩‍👧‍👦 where is my card".to_owned(), true),
        ("flags and skin", "🇩🇪🇫🇷 👍🏽👍🏿".to_owned(), true),
        ("right to left", "\u{202e}card my is where\u{202c} أين بطاقتي".to_owned(), true),
        ("zero width", "where\u{200b} is\u{200d} my\u{2060} card\u{feff}".to_owned(), true),
        ("composed", "Où est ma carte à puce café".to_owned(), true),
        ("decomposed", "Ou\u{300} est ma carte a\u{300} puce cafe\u{301}".to_owned(), true),
        ("marks without end", format!("a{}", "\u{301}".repeat(30_000)), true),
        ("one word", "a".repeat(32_768), true),
        ("words of one letter", "a ".repeat(16_384), true),
        ("all planes", planes, true),
        ("the last character", "\u{10ffff}".repeat(1_000), true),
        ("private use", "\u{e000}\u{f8ff}".to_owned(), true),
        ("no characters", "\u{fffe}\u{ffff}\u{fdd0}".to_owned(), true),
        ("ends of lines", "where\r\nis\nmy\tcard\u{2028}\u{2029}".to_owned(), true),
        ("full width", "ｗｈｅｒｅ　ｉｓ　ｍｙ　ｃａｒｄ".to_owned(), true),
        ("comparison", "is 3 < 4 and 5 > 4 & so on".to_owned(), true),
        ("only white space of Unicode", "\u{3000}\u{2003}\u{a0}".to_owned(), false),
        ("escape", "where\u{1b}[31m is my card".to_owned(), false),
        ("delete", "where\u{7f} is my card".to_owned(), false),
        ("next line", "where\u{85} is my card".to_owned(), false),
        ("nothing", "where\0 is my card".to_owned(), false),
        ("a letter too many", "a".repeat(32_769), false),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn unicode_odd_text_is_answered_or_422() {
    let server = TestServer::start(shipped_models(), &[]).await;
    for model in MODELS {
        let mut good = Vec::new();
        for (name, text, is_answered) in odd_texts() {
            let alone = server.post_json("/predict", json!({ "text": text, "model": model })).await;
            let together = server.post_json("/batch_predict", json!({ "texts": [text], "model": model })).await;
            let status = if is_answered { 200 } else { 422 };
            assert_eq!([alone.status, together.status], [status, 200], "{model}, {name}: {}", alone.body);
            let item = &together.json::<BatchAnswer>().results[0];
            let counts = ["\"prediction\":", "\"error\":"].map(|field| together.body.matches(field).count());
            assert_eq!(counts, if is_answered { [1, 0] } else { [0, 1] }, "{model}, {name}: {}", together.body);
            if is_answered {
                let alone: Prediction = alone.json();
                assert_eq!(label(item_answer(item)), label(&alone), "{model}, {name}");
                good.push((name, text, alone));
            } else {
                assert_eq!(item_error(item).status, 422, "{model}, {name}");
            }
        }
        // Beside all the others each gets the answer that it gets alone.
        let texts: Vec<&String> = good.iter().map(|(_, text, _)| text).collect();
        let all = server.batch_predict(json!({ "texts": texts, "model": model })).await;
        for (result, (name, _, alone)) in all.iter().zip(&good) {
            assert_eq!(label(item_answer(result)), label(alone), "{model}, {name}");
        }
    }
}

/// The tokenizer of the shipped model takes composed and decomposed letters for the same.
#[tokio::test]
async fn unicode_composed_and_decomposed_get_same_answer() {
    let server = TestServer::start(shipped_models(), &[]).await;
    let mut answers = Vec::new();
    for text in ["Où est ma carte", "Ou\u{300} est ma carte"] {
        let body = json!({ "text": text, "model": "banking77-minilm", "return_probabilities": true });
        answers.push(server.predict_with(body).await.probabilities.unwrap());
    }
    assert_eq!(answers[0], answers[1], "the tokenizer strips accents");
}
