//! The wire format of protocol buffers: fields of a message, read in place and without trust.

use super::scan::ScanError;

/// A field's content by its wire type.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four bytes: a float or a fixed-width integer.
    Fixed32([u8; 4]),
    /// Eight bytes: a double or a fixed-width integer.
    Fixed64([u8; 8]),
}

/// The fields of one message, in file order.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(bytes: &mut &'a [u8]) -> Result<(u64, Value<'a>), ScanError> {
    let tag = varint(bytes)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(bytes)?),
        1 => Value::Fixed64(take(bytes, 8)?.try_into().map_err(|_| ScanError::Malformed)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| ScanError::Malformed)?;
            Value::Bytes(take(bytes, length)?)
        }
        5 => Value::Fixed32(take(bytes, 4)?.try_into().map_err(|_| ScanError::Malformed)?),
        _ => return Err(ScanError::Malformed),
    };
    if tag >> 3 == 0 { Err(ScanError::Malformed) } else { Ok((tag >> 3, value)) }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], ScanError> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(ScanError::Malformed)?;
    *bytes = rest;
    Ok(head)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ScanError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first().ok_or(ScanError::Malformed)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ScanError::Malformed)
}

/// The elements of a packed list of integers.
pub(super) fn packed_numbers(mut bytes: &[u8], numbers: &mut Vec<i64>) -> Result<(), ScanError> {
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes)?.cast_signed());
    }
    Ok(())
}

/// A string field.
pub(super) fn text(bytes: &[u8]) -> Result<&str, ScanError> {
    std::str::from_utf8(bytes).map_err(|_| ScanError::Malformed)
}
