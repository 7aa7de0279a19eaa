//! The character encoding of a body. JSON is UTF-8 (RFC 8259, 8.1); an error names other encodings.

use super::error::{ApiError, Code};

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// A body as UTF-8, without the byte order mark that some programs write.
///
/// # Errors
/// 400 that says which encoding the body seems to have.
pub fn decode_utf8(body: &[u8]) -> Result<&[u8], ApiError> {
    if let Some(encoding) = detect_other_unicode(body) {
        return Err(ApiError::new(
            Code::MalformedJson,
            format!("The body is not UTF-8: it seems to be {encoding}. Send UTF-8."),
        ));
    }
    let body = body.strip_prefix(UTF8_BOM).unwrap_or(body);
    if let Err(error) = std::str::from_utf8(body) {
        let offset = error.valid_up_to();
        return Err(ApiError::new(
            Code::MalformedJson,
            format!(
                "The body is not UTF-8: the byte at offset {offset} cannot stand there. It seems to be Latin-1 or Windows-1252, or is cut. Send UTF-8."
            ),
        ));
    }
    Ok(body)
}

/// The encoding that a byte order mark names, or the zeros that JSON in UTF-8 cannot begin with.
fn detect_other_unicode(body: &[u8]) -> Option<&'static str> {
    match *body {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32 with a byte order mark"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16 with a byte order mark"),
        [(1..), 0, 0, 0, ..] | [0, 0, 0, (1..), ..] => Some("UTF-32"),
        [(1..), 0, (1..), ..] | [0, (1..), 0, ..] => Some("UTF-16"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_detail(body: &[u8]) -> String {
        decode_utf8(body).unwrap_err().detail.into_owned()
    }

    #[test]
    fn charset_not_utf8_error_names_encoding() {
        let text = r#"{"text":"a"}"#;
        let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let utf32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        for (body, name) in [
            (utf16(u16::to_le_bytes), "UTF-16."),
            (utf16(u16::to_be_bytes), "UTF-16."),
            ([&b"\xff\xfe"[..], &utf16(u16::to_le_bytes)].concat(), "UTF-16 with a byte order mark."),
            ([&b"\xfe\xff"[..], &utf16(u16::to_be_bytes)].concat(), "UTF-16 with a byte order mark."),
            (utf32.clone(), "UTF-32."),
            ([&b"\xff\xfe\0\0"[..], &utf32].concat(), "UTF-32 with a byte order mark."),
            (b"{\"text\":\"caf\xe9\"}".to_vec(), "offset 12"),
        ] {
            let detail = error_detail(&body);
            assert!(detail.contains(name) && detail.ends_with("Send UTF-8."), "{detail}");
        }
        assert_eq!(decode_utf8(b"\xef\xbb\xbf{}").unwrap(), b"{}");
        assert_eq!(decode_utf8("{\"\u{e9}\"".as_bytes()).unwrap(), "{\"\u{e9}\"".as_bytes());
    }
}
