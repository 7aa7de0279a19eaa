//! Long texts of which only the beginning is read: the tokens are those of the whole text.

use std::path::Path;
use std::sync::LazyLock;

use predictd::text::manifest::Manifest;
use predictd::text::text_policies::OverflowPolicy;
use predictd::text::tokenizer::Tokenizer;
use proptest::prelude::*;

fn tokenizer(on_overflow: OverflowPolicy) -> Tokenizer {
    let mut manifest = Manifest::load(Path::new("models/banking77-minilm/1")).unwrap();
    manifest.options.max_tokens = Some(24);
    Tokenizer::load(&manifest, on_overflow).unwrap()
}

static TRUNCATING: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer(OverflowPolicy::Truncate));
/// Reads a whole text: its first window holds what cutting off leaves.
static WINDOWING: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer(OverflowPolicy::Window));

/// Text of many kinds, in stretches long enough to be cut in the middle.
fn arbitrary_text() -> impl Strategy<Value = String> {
    let stretch = (
        prop_oneof![
            Just("word ".to_owned()),
            Just("unbelievably9 ".to_owned()),
            Just("don't ".to_owned()),
            Just("[SEP] x ".to_owned()),
            Just("  \t ".to_owned()),
            Just("é e\u{301} ".to_owned()),
            Just("猫犬 ".to_owned()),
            Just("\u{200b} a b ".to_owned()),
            "[a-z ,.\\-]{1,12}",
            "\\PC{1,8}",
        ],
        1_usize..120,
    );
    prop::collection::vec(stretch, 1..12)
        .prop_map(|all| all.into_iter().map(|(piece, times)| piece.repeat(times)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn truncation_prefix_has_tokens_of_whole_text(texts in prop::collection::vec(arbitrary_text(), 4)) {
        for text in texts {
            let cut = TRUNCATING.encode(&text).unwrap();
            let whole = WINDOWING.encode(&text).unwrap();
            prop_assert_eq!(&cut.rows[0], &whole.rows[0]);
            prop_assert_eq!(cut.is_truncated, whole.rows.len() > 1);
        }
    }
}
