//! The wire format of protocol buffers: fields of a message, read in place and without trust.

use super::scan_error::ScanError;

/// A field's content by its wire type.
#[derive(Debug)]
pub(super) enum FieldValue<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four bytes: a float or a fixed-width integer.
    Fixed32([u8; 4]),
    /// Eight bytes: a double or a fixed-width integer.
    Fixed64([u8; 8]),
}

/// The fields of one message, in file order.
pub(super) struct MessageFields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for MessageFields<'a> {
    type Item = Result<(u64, FieldValue<'a>), ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = read_field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn read_field<'a>(bytes: &mut &'a [u8]) -> Result<(u64, FieldValue<'a>), ScanError> {
    let tag = read_varint(bytes)?;
    let value = match tag & 7 {
        0 => FieldValue::Varint(read_varint(bytes)?),
        1 => FieldValue::Fixed64(take_bytes(bytes, 8)?.try_into().map_err(|_| ScanError::Malformed)?),
        2 => {
            let length = usize::try_from(read_varint(bytes)?).map_err(|_| ScanError::Malformed)?;
            FieldValue::Bytes(take_bytes(bytes, length)?)
        }
        5 => FieldValue::Fixed32(take_bytes(bytes, 4)?.try_into().map_err(|_| ScanError::Malformed)?),
        _ => return Err(ScanError::Malformed),
    };
    if tag >> 3 == 0 { Err(ScanError::Malformed) } else { Ok((tag >> 3, value)) }
}

fn take_bytes<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], ScanError> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(ScanError::Malformed)?;
    *bytes = rest;
    Ok(head)
}

fn read_varint(bytes: &mut &[u8]) -> Result<u64, ScanError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *take_bytes(bytes, 1)?.first().ok_or(ScanError::Malformed)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ScanError::Malformed)
}

/// The elements of a packed list of integers.
pub(super) fn read_packed(mut bytes: &[u8], numbers: &mut Vec<i64>) -> Result<(), ScanError> {
    while !bytes.is_empty() {
        numbers.push(read_varint(&mut bytes)?.cast_signed());
    }
    Ok(())
}

/// A string field.
pub(super) fn parse_utf8(bytes: &[u8]) -> Result<&str, ScanError> {
    std::str::from_utf8(bytes).map_err(|_| ScanError::Malformed)
}
