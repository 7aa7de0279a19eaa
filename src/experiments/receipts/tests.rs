//! Receipts, and files of keys.

use super::*;

fn receipt() -> Receipt {
    Receipt {
        id: Uuid::from_u128(7),
        made: UNIX_EPOCH + Duration::from_millis(1_750_000_000_123),
        model: "banking77-minilm".to_owned(),
        version: "1".to_owned(),
        arm: String::new(),
        answered: Answered::LabelsOfTheModel,
        labels: vec!["card_arrival".to_owned()],
        is_cut: false,
        confidence: 0.98,
        text: None,
    }
}

/// The same of an answer to a text.
fn of_text(receipts: &Receipts, text: &str) -> Receipt {
    Receipt { text: receipts.mark(text), ..receipt() }
}

fn keys(directory: &tempfile::TempDir) -> Receipts {
    Receipts::open(&directory.path().join("data/receipt.keys")).unwrap()
}

#[test]
fn a_receipt_comes_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (first, again) = (keys(&directory), keys(&directory));
    let sealed = first.seal(&receipt());
    assert_eq!(again.verify(&sealed, receipt().made), Ok(receipt()));
    let mode = std::fs::metadata(directory.path().join("data/receipt.keys")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path().join("data")).unwrap().count(), 1, "no draft is left");
}

#[test]
fn a_receipt_says_what_its_labels_are_and_whether_there_were_more() {
    let receipts = Receipts::unkept().unwrap();
    let again = |receipt: &Receipt| receipts.verify(&receipts.seal(receipt), receipt.made).unwrap();
    for answered in [Answered::NoLabels, Answered::LabelsOfTheModel, Answered::LabelsOfTheRequest] {
        let none = Receipt { answered, labels: Vec::new(), ..receipt() };
        assert_eq!(again(&none), none);
    }
    let labels = |count: usize, length: usize| (0..count).map(|at| format!("{at:0length$}")).collect::<Vec<_>>();
    for (whole, kept) in [(labels(255, 16), 255), (labels(256, 8), 255), (labels(16, 256), 16), (labels(17, 256), 16)] {
        let found = again(&Receipt { labels: whole.clone(), ..receipt() });
        assert_eq!((found.labels.as_slice(), found.is_cut), (&whole[..kept], whole.len() > kept));
    }
}

#[test]
fn receipts_of_the_format_before_are_read() {
    let receipts = Receipts::unkept().unwrap();
    let (key, now) = (&receipts.keys[0], receipt());
    let sealed = URL_SAFE_NO_PAD.decode(receipts.seal(&now)).unwrap();
    // All but the kind, and under a new tag.
    let kind = sealed.len() - TAG_BYTES - 4 - (2 + "card_arrival".len()) - 2;
    let mut before = [&[FORMAT_WITHOUT_KIND], &sealed[1..kind], &sealed[kind + 1..sealed.len() - TAG_BYTES]].concat();
    let tag = key.mac.clone().chain_update(&before).finalize().into_bytes();
    before.extend(&tag[..TAG_BYTES]);
    assert_eq!(receipts.verify(&URL_SAFE_NO_PAD.encode(before), now.made), Ok(now));
}

#[test]
fn a_receipt_is_bound_to_its_text_and_does_not_show_it() {
    let directory = tempfile::tempdir().unwrap();
    let (receipts, made) = (keys(&directory), receipt().made);
    let sealed = receipts.seal(&of_text(&receipts, "my card"));
    let read = receipts.verify(&sealed, made).unwrap();
    assert_eq!(Receipt { text: None, ..read.clone() }, receipt());
    assert_eq!(receipts.matches_text(&read, "my card"), Some(true));
    for other in ["", "my car", "my card ", "my card\0", "My card"] {
        assert_eq!(receipts.matches_text(&read, other), Some(false), "{other:?}");
    }
    // Receipts of earlier formats do not say.
    let before = receipts.verify(&receipts.seal(&receipt()), made).unwrap();
    assert_eq!((before.text, receipts.matches_text(&before, "my card")), (None, None));
    // Two answers to one text do not look alike; nor does one under another key.
    let second = Receipt { id: Uuid::from_u128(8), ..of_text(&receipts, "my card") };
    let second = receipts.verify(&receipts.seal(&second), made).unwrap();
    assert_ne!(second.text, read.text);
    assert_eq!(receipts.matches_text(&Receipt { text: read.text, ..second }, "my card"), Some(false));
    assert_ne!(Receipts::unkept().unwrap().mark("my card"), receipts.mark("my card"));
    // A key that comes later changes nothing.
    let path = directory.path().join("data/receipt.keys");
    let more = std::fs::read_to_string(&path).unwrap() + &"5a".repeat(32) + "\n";
    std::fs::write(&path, more).unwrap();
    let rotated = keys(&directory);
    assert_eq!(rotated.matches_text(&rotated.verify(&sealed, made).unwrap(), "my card"), Some(true));
    let newer = rotated.verify(&rotated.seal(&of_text(&rotated, "my card")), made).unwrap();
    assert_eq!(rotated.matches_text(&newer, "my card"), Some(true));
    // It costs few characters, and the longest receipt can still be handed back.
    assert!(sealed.len() - receipts.seal(&receipt()).len() <= 22);
    let labels = (0..16).map(|at| format!("{at:0256}")).collect();
    let longest = Receipt {
        labels,
        model: "m".repeat(64),
        version: "v".repeat(64),
        arm: "a".repeat(64),
        ..of_text(&receipts, "x")
    };
    let longest = receipts.seal(&longest);
    assert!(longest.len() < MAX_RECEIPT_CHARS && receipts.verify(&longest, made).is_ok(), "{}", longest.len());
}

#[test]
fn forged_and_expired_are_told_apart() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let receipts = keys(&directory);
    let sealed = receipts.seal(&receipt());
    let made = receipt().made;
    assert_eq!(receipts.verify(&sealed, made + LIFETIME + Duration::from_secs(1)), Err(ReceiptError::Expired));
    assert_eq!(keys(&other).verify(&sealed, made), Err(ReceiptError::Forged));
    // A forged one stays forged however old it claims to be.
    assert_eq!(keys(&other).verify(&sealed, made + 2 * LIFETIME), Err(ReceiptError::Forged));
    for rubbish in ["", "AQ", "not base64!", &"A".repeat(100_000)] {
        assert_eq!(receipts.verify(rubbish, made), Err(ReceiptError::Forged));
    }
}

#[test]
fn the_newest_key_signs_and_all_verify() {
    let directory = tempfile::tempdir().unwrap();
    let old = keys(&directory);
    let sealed_before = old.seal(&receipt());
    let path = directory.path().join("data/receipt.keys");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    writeln!(file, "{}", "5a".repeat(KEY_BYTES)).unwrap();
    let rotated = keys(&directory);
    let sealed_after = rotated.seal(&receipt());
    assert!(rotated.verify(&sealed_before, receipt().made).is_ok());
    assert!(rotated.verify(&sealed_after, receipt().made).is_ok());
    assert_eq!(old.verify(&sealed_after, receipt().made), Err(ReceiptError::Forged));
}

#[test]
fn bad_key_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let refusal = |content: &str, mode: u32| {
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Receipts::open(&path).unwrap_err().to_string()
    };
    assert!(refusal("", 0o600).contains("0 keys"));
    assert!(refusal("\nzz\n", 0o600).contains("line 2"));
    assert!(refusal(&"5a".repeat(KEY_BYTES), 0o644).contains("chmod 600"));
}

#[test]
fn any_change_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let receipts = keys(&directory);
    let sealed = URL_SAFE_NO_PAD.decode(receipts.seal(&receipt())).unwrap();
    for position in 0..sealed.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = sealed.clone();
            changed[position] ^= flip;
            let outcome = receipts.verify(&URL_SAFE_NO_PAD.encode(changed), receipt().made);
            assert_eq!(outcome, Err(ReceiptError::Forged), "byte {position}");
        }
    }
}
