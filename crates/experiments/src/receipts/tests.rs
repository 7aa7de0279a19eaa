//! Receipts, and files of keys.

use super::*;

fn receipt() -> Receipt {
    Receipt {
        id: Uuid::from_u128(7),
        issued_at: UNIX_EPOCH + Duration::from_millis(1_750_000_000_123),
        model: "banking77-minilm".to_owned(),
        version: "1".to_owned(),
        arm_path: String::new(),
        label_source: LabelSource::Model,
        labels: vec!["card_arrival".to_owned()],
        is_truncated: false,
        confidence: 0.98,
        text_fingerprint: None,
    }
}

/// The same of an answer to a text.
fn receipt_with_fingerprint(receipts: &ReceiptKeyring, text: &str) -> Receipt {
    Receipt { text_fingerprint: receipts.fingerprint(text), ..receipt() }
}

fn open_keyring(directory: &tempfile::TempDir) -> ReceiptKeyring {
    ReceiptKeyring::open(&directory.path().join("data/receipt.keys")).unwrap()
}

#[test]
fn receipt_signed_verifies_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let first = open_keyring(&directory);
    let again = open_keyring(&directory);
    let sealed = first.sign(&receipt());
    assert_eq!(again.verify(&sealed, receipt().issued_at), Ok(receipt()));
    let mode = std::fs::metadata(directory.path().join("data/receipt.keys")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path().join("data")).unwrap().count(), 1, "no draft is left");
}

#[test]
fn receipt_many_labels_truncated_and_marked() {
    let receipts = ReceiptKeyring::new_ephemeral().unwrap();
    let again = |receipt: &Receipt| receipts.verify(&receipts.sign(receipt), receipt.issued_at).unwrap();
    for answered in [LabelSource::NoLabels, LabelSource::Model, LabelSource::Request] {
        let none = Receipt { label_source: answered, labels: Vec::new(), ..receipt() };
        assert_eq!(again(&none), none);
    }
    let labels = |count: usize, length: usize| (0..count).map(|at| format!("{at:0length$}")).collect::<Vec<_>>();
    for (whole, kept) in [(labels(255, 16), 255), (labels(256, 8), 255), (labels(16, 256), 16), (labels(17, 256), 16)] {
        let found = again(&Receipt { labels: whole.clone(), ..receipt() });
        assert_eq!((found.labels.as_slice(), found.is_truncated), (&whole[..kept], whole.len() > kept));
    }
}

#[test]
fn receipt_older_format_still_read() {
    let receipts = ReceiptKeyring::new_ephemeral().unwrap();
    let key = &receipts.keys[0];
    let now = receipt();
    let sealed = URL_SAFE_NO_PAD.decode(receipts.sign(&now)).unwrap();
    // All but the kind, and under a new tag.
    let kind = sealed.len() - TAG_BYTES - 4 - (2 + "card_arrival".len()) - 2;
    let mut before = [&[FORMAT_WITHOUT_KIND], &sealed[1..kind], &sealed[kind + 1..sealed.len() - TAG_BYTES]].concat();
    let tag = key.mac.clone().chain_update(&before).finalize().into_bytes();
    before.extend(&tag[..TAG_BYTES]);
    assert_eq!(receipts.verify(&URL_SAFE_NO_PAD.encode(before), now.issued_at), Ok(now));
}

#[test]
fn receipt_fingerprint_matches_only_its_text() {
    let directory = tempfile::tempdir().unwrap();
    let receipts = open_keyring(&directory);
    let made = receipt().issued_at;
    let sealed = receipts.sign(&receipt_with_fingerprint(&receipts, "my card"));
    let read = receipts.verify(&sealed, made).unwrap();
    assert_eq!(Receipt { text_fingerprint: None, ..read.clone() }, receipt());
    assert_eq!(receipts.fingerprint_matches(&read, "my card"), Some(true));
    for other in ["", "my car", "my card ", "my card\0", "My card"] {
        assert_eq!(receipts.fingerprint_matches(&read, other), Some(false), "{other:?}");
    }
    // Receipts of earlier formats do not say.
    let before = receipts.verify(&receipts.sign(&receipt()), made).unwrap();
    assert_eq!((before.text_fingerprint, receipts.fingerprint_matches(&before, "my card")), (None, None));
    // Two answers to one text do not look alike; nor does one under another key.
    let second = Receipt { id: Uuid::from_u128(8), ..receipt_with_fingerprint(&receipts, "my card") };
    let second = receipts.verify(&receipts.sign(&second), made).unwrap();
    assert_ne!(second.text_fingerprint, read.text_fingerprint);
    assert_eq!(
        receipts.fingerprint_matches(&Receipt { text_fingerprint: read.text_fingerprint, ..second }, "my card"),
        Some(false)
    );
    assert_ne!(ReceiptKeyring::new_ephemeral().unwrap().fingerprint("my card"), receipts.fingerprint("my card"));
    // A key that comes later changes nothing.
    let path = directory.path().join("data/receipt.keys");
    let more = std::fs::read_to_string(&path).unwrap() + &"5a".repeat(32) + "\n";
    std::fs::write(&path, more).unwrap();
    let rotated = open_keyring(&directory);
    assert_eq!(rotated.fingerprint_matches(&rotated.verify(&sealed, made).unwrap(), "my card"), Some(true));
    let newer = rotated.verify(&rotated.sign(&receipt_with_fingerprint(&rotated, "my card")), made).unwrap();
    assert_eq!(rotated.fingerprint_matches(&newer, "my card"), Some(true));
    // It costs few characters, and the longest receipt can still be handed back.
    assert!(sealed.len() - receipts.sign(&receipt()).len() <= 22);
    let labels = (0..16).map(|at| format!("{at:0256}")).collect();
    let longest = Receipt {
        labels,
        model: "m".repeat(64),
        version: "v".repeat(64),
        arm_path: "a".repeat(64),
        ..receipt_with_fingerprint(&receipts, "x")
    };
    let longest = receipts.sign(&longest);
    assert!(longest.len() < MAX_RECEIPT_CHARS && receipts.verify(&longest, made).is_ok(), "{}", longest.len());
}

#[test]
fn receipt_forged_or_expired_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let receipts = open_keyring(&directory);
    let sealed = receipts.sign(&receipt());
    let made = receipt().issued_at;
    assert_eq!(receipts.verify(&sealed, made + RECEIPT_LIFETIME + Duration::from_secs(1)), Err(ReceiptError::Expired));
    assert_eq!(open_keyring(&other).verify(&sealed, made), Err(ReceiptError::Forged));
    // A forged one stays forged however old it claims to be.
    assert_eq!(open_keyring(&other).verify(&sealed, made + 2 * RECEIPT_LIFETIME), Err(ReceiptError::Forged));
    for rubbish in ["", "AQ", "not base64!", &"A".repeat(100_000)] {
        assert_eq!(receipts.verify(rubbish, made), Err(ReceiptError::Forged));
    }
}

#[test]
fn keyring_rotated_newest_signs_all_verify() {
    let directory = tempfile::tempdir().unwrap();
    let old = open_keyring(&directory);
    let sealed_before = old.sign(&receipt());
    let path = directory.path().join("data/receipt.keys");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    writeln!(file, "{}", "5a".repeat(KEY_BYTES)).unwrap();
    let rotated = open_keyring(&directory);
    let sealed_after = rotated.sign(&receipt());
    assert!(rotated.verify(&sealed_before, receipt().issued_at).is_ok());
    assert!(rotated.verify(&sealed_after, receipt().issued_at).is_ok());
    assert_eq!(old.verify(&sealed_after, receipt().issued_at), Err(ReceiptError::Forged));
}

#[test]
fn key_file_malformed_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let refusal = |content: &str, mode: u32| {
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        ReceiptKeyring::open(&path).unwrap_err().to_string()
    };
    assert!(refusal("", 0o600).contains("0 keys"));
    assert!(refusal("\nzz\n", 0o600).contains("line 2"));
    assert!(refusal(&"5a".repeat(KEY_BYTES), 0o644).contains("chmod 600"));
}

#[test]
fn receipt_changed_byte_is_forged() {
    let directory = tempfile::tempdir().unwrap();
    let receipts = open_keyring(&directory);
    let sealed = URL_SAFE_NO_PAD.decode(receipts.sign(&receipt())).unwrap();
    for position in 0..sealed.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = sealed.clone();
            changed[position] ^= flip;
            let outcome = receipts.verify(&URL_SAFE_NO_PAD.encode(changed), receipt().issued_at);
            assert_eq!(outcome, Err(ReceiptError::Forged), "byte {position}");
        }
    }
}
