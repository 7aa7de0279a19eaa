//! Tensors whose data lies in another file.

use super::protobuf::{FieldValue, MessageFields, parse_utf8};
use super::scan_error::ScanError;

/// A tensor whose bytes stand in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExternalTensor {
    /// Path as the graph gives it; not yet checked.
    pub(super) location: String,
    /// First byte.
    pub(super) offset: u64,
    /// Number of bytes, if the graph says.
    pub(super) length: Option<u64>,
}

/// The `external_data` and `data_location` fields of one tensor.
#[derive(Debug, Default)]
pub(super) struct ExternalData {
    is_external: bool,
    location: Option<String>,
    offset: Option<u64>,
    length: Option<u64>,
    entry_count: usize,
}

impl ExternalData {
    /// Where the data of a `TensorProto` lies, if in another file.
    ///
    /// # Errors
    /// [`ScanError::ExternalData`] if that is said twice, or by half.
    pub(super) fn parse_tensor(bytes: &[u8]) -> Result<Option<ExternalTensor>, ScanError> {
        let mut external = Self::default();
        for field in MessageFields(bytes) {
            match field? {
                (13, FieldValue::Bytes(entry)) => external.parse_entry(entry)?,
                (14, FieldValue::Varint(location)) => external.is_external = location == 1,
                _ => {}
            }
        }
        external.finish()
    }

    fn parse_entry(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        let (mut key, mut value) = ("", "");
        for field in MessageFields(bytes) {
            match field? {
                (1, FieldValue::Bytes(bytes)) => key = parse_utf8(bytes)?,
                (2, FieldValue::Bytes(bytes)) => value = parse_utf8(bytes)?,
                _ => {}
            }
        }
        self.entry_count += 1;
        // A key that stands twice could be read one way here and another way by the runtime.
        let twice = match key {
            "location" => self.location.replace(value.to_owned()).is_some(),
            "offset" => self.offset.replace(parse_byte_count(value)?).is_some(),
            "length" => self.length.replace(parse_byte_count(value)?).is_some(),
            _ => false,
        };
        if twice { Err(ScanError::ExternalData) } else { Ok(()) }
    }

    fn finish(self) -> Result<Option<ExternalTensor>, ScanError> {
        match (self.is_external, self.location) {
            (false, None) if self.entry_count == 0 => Ok(None),
            (true, Some(location)) => {
                Ok(Some(ExternalTensor { location, offset: self.offset.unwrap_or(0), length: self.length }))
            }
            _ => Err(ScanError::ExternalData),
        }
    }
}

fn parse_byte_count(value: &str) -> Result<u64, ScanError> {
    value.parse().map_err(|_| ScanError::ExternalData)
}

/// # Errors
/// [`ScanError::ExternalData`] if the data of this `TensorProto` lies in another file.
pub(super) fn reject_external(tensor: &[u8]) -> Result<(), ScanError> {
    for field in MessageFields(tensor) {
        match field? {
            (13, _) => return Err(ScanError::ExternalData),
            (14, FieldValue::Varint(location)) if location != 0 => return Err(ScanError::ExternalData),
            _ => {}
        }
    }
    Ok(())
}

/// The same for a `SparseTensorProto`.
pub(super) fn reject_external_sparse(sparse: &[u8]) -> Result<(), ScanError> {
    for field in MessageFields(sparse) {
        if let (1 | 2, FieldValue::Bytes(tensor)) = field? {
            reject_external(tensor)?;
        }
    }
    Ok(())
}
