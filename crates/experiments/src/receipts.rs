//! A `prediction_id` is a sealed receipt, not a row in a table.
//!
//! It holds what was answered by which version and when, under an HMAC-SHA256 (RFC 2104), cut
//! to 128 bits. Any server with the key file can read it back, and only such a server can make one.
//! Nothing has to be stored when a prediction is made.
//!
//! Layout before base64url: format (1 byte), key id (4), id (16), milliseconds since 1970 (8),
//! model, version, arm, kind of answer (1), number of labels (1), labels (each text with its
//! length in 2 bytes, big-endian), confidence (4), mark of the text (16), tag (16). Format 2 had no mark, format 1 no
//! kind either.
//!
//! The mark binds a receipt to its text: feedback cannot bring another. It is a keyed hash (SipHash-2-4, 128 bits), of the
//! text and then of the result with the id, so that two receipts of one text do not look alike.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::Hasher as _;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hex::FromHex;
use hmac::{Hmac, Mac};
use predictd_platform::{atomic_file, clock};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher24};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// How long a receipt can be handed back.
pub const RECEIPT_LIFETIME: Duration = Duration::from_hours(30 * 24);

const CURRENT_FORMAT: u8 = 3;
/// Still read, for as long as such receipts can be handed back.
const FORMAT_WITHOUT_FINGERPRINT: u8 = 2;
const FORMAT_WITHOUT_KIND: u8 = 1;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const FINGERPRINT_BYTES: usize = 16;
/// Bytes of labels that are kept of a multi-label answer: a receipt must stay short.
const MAX_LABEL_BYTES: usize = 4 << 10;
/// Of a kind: there were more labels.
const TRUNCATED_FLAG: u8 = 0x80;
/// Most keys in a file, and most bytes of it.
const MAX_KEYS: usize = 64;
const MAX_FILE_BYTES: u64 = 16 << 10;
/// Longest receipt that is looked at.
const MAX_RECEIPT_CHARS: usize = 8 << 10;

/// What a receipt says.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// Names the prediction.
    pub id: Uuid,
    /// When it was made; whole milliseconds.
    pub issued_at: SystemTime,
    /// Which model answered.
    pub model: String,
    /// Which version of it.
    pub version: String,
    /// Arm of an experiment; empty if there was none.
    pub arm_path: String,
    /// What its labels are.
    pub label_source: LabelSource,
    /// What it answered: one label, several, or none, as many as a receipt holds.
    pub labels: Vec<String>,
    /// True if it answered more labels than are here.
    pub is_truncated: bool,
    /// Confidence in the first label, or the score of a regression.
    pub confidence: f32,
    /// Marks the text that was asked about; none in receipts of earlier formats.
    pub text_fingerprint: Option<TextFingerprint>,
}

/// A keyed hash of a text, as a client sent it. It reveals nothing of the text without the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextFingerprint([u8; FINGERPRINT_BYTES]);

/// What the labels of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelSource {
    /// It has none that could be right or wrong: a score, or parts of the text.
    NoLabels,
    /// Labels of the model, or that none of them fits.
    Model,
    /// Labels that came with the request.
    Request,
}

/// Why something is not a receipt of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not made by a server with one of these keys, or changed since.
    #[error("this is not a prediction id of this service")]
    Forged,
    /// Older than [`RECEIPT_LIFETIME`].
    #[error("this prediction id is older than 30 days")]
    Expired,
}

/// The keys of a key file. The last signs; all verify.
pub struct ReceiptKeyring {
    keys: Vec<ReceiptKey>,
}

struct ReceiptKey {
    id: [u8; 4],
    mac: Hmac<Sha256>,
    /// Of texts: derived from the key, and good for nothing else.
    fingerprint_hasher: SipHasher24,
}

impl ReceiptKeyring {
    /// Reads a key file; makes one with a fresh key, readable by its owner only, if there is none.
    ///
    /// A file holds one key a line, 64 hexadecimal digits each. Rotation is a new last line.
    ///
    /// # Errors
    /// If it cannot be made or read, is not a key file, or is not private.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.exists() {
            create_key_file(path)?;
        }
        // Opening a pipe would wait for its other end.
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        // A group may read: orchestrators hand secrets to a server's group.
        if metadata.permissions().mode() & 0o037 != 0 {
            return Err(io::Error::other("other users can read or change it: take their rights away with chmod 600"));
        }
        let text = io::read_to_string(File::open(path)?.take(MAX_FILE_BYTES))?;
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty()) {
            let key = FromHex::from_hex(line).ok().and_then(|bytes| ReceiptKey::new(&bytes));
            keys.push(key.ok_or_else(|| io::Error::other(format!("line {number} is not 64 hexadecimal digits")))?);
        }
        match keys.len() {
            1..=MAX_KEYS => Ok(Self { keys }),
            count => Err(io::Error::other(format!("it holds {count} keys, where 1 to {MAX_KEYS} are possible"))),
        }
    }

    /// A key that no file holds: for a server that gets no feedback.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn new_ephemeral() -> io::Result<Self> {
        Ok(Self { keys: ReceiptKey::new(&generate_key()?).into_iter().collect() })
    }

    /// Marks a text for the receipt of its answer.
    #[must_use]
    pub fn fingerprint(&self, text: &str) -> Option<TextFingerprint> {
        self.keys.last().map(|key| key.fingerprint(text))
    }

    /// Whether a receipt is that of an answer to this text; nothing for one that does not say.
    #[must_use]
    pub fn fingerprint_matches(&self, receipt: &Receipt, text: &str) -> Option<bool> {
        let fingerprint = receipt.text_fingerprint?;
        // Which of the keys has sealed it is not kept.
        Some(
            self.keys
                .iter()
                .any(|key| bool::from(key.bind_fingerprint(receipt.id, key.fingerprint(text)).0.ct_eq(&fingerprint.0))),
        )
    }

    /// Seals a receipt with the newest key.
    #[must_use]
    pub fn sign(&self, receipt: &Receipt) -> String {
        let Some(key) = self.keys.last() else { return String::new() };
        let mut bytes =
            vec![if receipt.text_fingerprint.is_some() { CURRENT_FORMAT } else { FORMAT_WITHOUT_FINGERPRINT }];
        bytes.extend(key.id);
        bytes.extend(receipt.id.as_bytes());
        let issued_at = clock::since_unix_epoch(receipt.issued_at);
        bytes.extend(u64::try_from(issued_at.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        for text in [&receipt.model, &receipt.version, &receipt.arm_path] {
            push_text(&mut bytes, text);
        }
        let labels: Vec<&String> = receipt
            .labels
            .iter()
            .take(usize::from(u8::MAX))
            .scan(0, |all, label| {
                *all += label.len();
                (*all <= MAX_LABEL_BYTES).then_some(label)
            })
            .collect();
        let flag = if labels.len() < receipt.labels.len() { TRUNCATED_FLAG } else { 0 };
        bytes.push(receipt.label_source as u8 | flag);
        bytes.push(u8::try_from(labels.len()).unwrap_or(0));
        for label in labels {
            push_text(&mut bytes, label);
        }
        bytes.extend(receipt.confidence.to_be_bytes());
        if let Some(mark) = receipt.text_fingerprint {
            bytes.extend(key.bind_fingerprint(receipt.id, mark).0);
        }
        let tag = key.mac.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend(tag.iter().take(TAG_BYTES));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a receipt back.
    ///
    /// # Errors
    /// [`ReceiptError::Forged`] for everything that no key of this file sealed,
    /// [`ReceiptError::Expired`] for a true one that is too old.
    pub fn verify(&self, receipt: &str, now: SystemTime) -> Result<Receipt, ReceiptError> {
        let receipt = self.open_sealed(receipt).ok_or(ReceiptError::Forged)?;
        match now.duration_since(receipt.issued_at) {
            Ok(age) if age > RECEIPT_LIFETIME => Err(ReceiptError::Expired),
            _ => Ok(receipt),
        }
    }

    /// What a receipt says that one of the keys has sealed.
    fn open_sealed(&self, receipt: &str) -> Option<Receipt> {
        if receipt.len() > MAX_RECEIPT_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(receipt).ok()?;
        let (content, tag) = bytes.split_last_chunk::<TAG_BYTES>()?;
        let key_id = content.get(1..5)?;
        let key = self.keys.iter().find(|key| key.id == key_id)?;
        // Compares in constant time.
        key.mac.clone().chain_update(content).verify_truncated_left(tag).ok()?;
        parse_receipt(content)
    }
}

impl std::fmt::Debug for ReceiptKeyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receipts({} keys)", self.keys.len())
    }
}

impl ReceiptKey {
    fn new(bytes: &[u8; KEY_BYTES]) -> Option<Self> {
        let id = *Sha256::digest(bytes).first_chunk()?;
        let mac: Hmac<Sha256> = Hmac::new_from_slice(bytes).ok()?;
        let derived = mac.clone().chain_update(b"texts of receipts").finalize().into_bytes();
        Some(Self { id, mac, fingerprint_hasher: SipHasher24::new_with_key(derived.first_chunk()?) })
    }

    fn fingerprint(&self, text: &str) -> TextFingerprint {
        // SipHash takes its length in: no text is the beginning of another.
        TextFingerprint(self.fingerprint_hasher.hash(text.as_bytes()).as_bytes())
    }

    /// The mark as it stands in the receipt of this id.
    fn bind_fingerprint(&self, id: Uuid, mark: TextFingerprint) -> TextFingerprint {
        let mut hasher = self.fingerprint_hasher;
        hasher.write(id.as_bytes());
        hasher.write(&mark.0);
        TextFingerprint(hasher.finish128().as_bytes())
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    // Names and labels are checked when a model is loaded: they have at most 256 bytes.
    let length = u16::try_from(text.len()).unwrap_or(0);
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.bytes().take(usize::from(length)));
}

fn parse_receipt(content: &[u8]) -> Option<Receipt> {
    const FORMATS: [u8; 3] = [FORMAT_WITHOUT_KIND, FORMAT_WITHOUT_FINGERPRINT, CURRENT_FORMAT];
    let (&format, rest) = content.split_first().filter(|(format, _)| FORMATS.contains(format))?;
    let mut rest = rest.get(4..)?;
    let id = Uuid::from_bytes(*take_bytes(&mut rest)?);
    let issued_at = UNIX_EPOCH.checked_add(Duration::from_millis(u64::from_be_bytes(*take_bytes(&mut rest)?)))?;
    let model = take_text(&mut rest)?;
    let version = take_text(&mut rest)?;
    let arm_path = take_text(&mut rest)?;
    let kind = if format == FORMAT_WITHOUT_KIND { None } else { Some(*take_bytes(&mut rest)?) };
    let [count] = *take_bytes(&mut rest)?;
    let unnamed = if count == 0 { LabelSource::NoLabels } else { LabelSource::Model };
    let [kind] = kind.unwrap_or([unnamed as u8]);
    let mut sources = [LabelSource::NoLabels, LabelSource::Model, LabelSource::Request].into_iter();
    let label_source = sources.find(|source| *source as u8 == kind & !TRUNCATED_FLAG)?;
    let labels = (0..count).map(|_| take_text(&mut rest)).collect::<Option<_>>()?;
    let confidence = f32::from_be_bytes(*take_bytes(&mut rest)?);
    let text_fingerprint = if format == CURRENT_FORMAT { Some(TextFingerprint(*take_bytes(&mut rest)?)) } else { None };
    rest.is_empty().then_some(Receipt {
        id,
        issued_at,
        model,
        version,
        arm_path,
        label_source,
        labels,
        is_truncated: kind & TRUNCATED_FLAG != 0,
        confidence,
        text_fingerprint,
    })
}

fn take_bytes<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = u16::from_be_bytes(*take_bytes(rest)?);
    let text = rest.split_off(..usize::from(length))?;
    String::from_utf8(text.to_vec()).ok()
}

fn generate_key() -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    Ok(key)
}

/// Makes a key file. Of several processes that start at once, the first one's file stays.
fn create_key_file(path: &Path) -> io::Result<()> {
    let directory = atomic_file::directory_of(path);
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let line = hex::encode(generate_key()?);
    let draft = directory.join(format!(".receipt.keys.{}", clock::new_id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = writeln!(file, "{line}").and_then(|()| file.sync_all());
    // A link fails if the file is there by now; a rename would replace another process's key.
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => atomic_file::sync_directory(directory),
    }
}

#[cfg(test)]
mod tests;
