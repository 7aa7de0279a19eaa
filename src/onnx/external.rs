//! Tensors whose data lies in another file.

use super::scan::ScanError;
use super::wire::{Fields, Value, text};

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
    in_file: bool,
    location: Option<String>,
    offset: Option<u64>,
    length: Option<u64>,
    entries: usize,
}

impl ExternalData {
    /// Where the data of a `TensorProto` lies, if in another file.
    ///
    /// # Errors
    /// [`ScanError::ExternalData`] if that is said twice, or by half.
    pub(super) fn of_tensor(bytes: &[u8]) -> Result<Option<ExternalTensor>, ScanError> {
        let mut external = Self::default();
        for field in Fields(bytes) {
            match field? {
                (13, Value::Bytes(entry)) => external.entry(entry)?,
                (14, Value::Number(location)) => external.in_file = location == 1,
                _ => {}
            }
        }
        external.finish()
    }

    fn entry(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        let (mut key, mut value) = ("", "");
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(bytes)) => key = text(bytes)?,
                (2, Value::Bytes(bytes)) => value = text(bytes)?,
                _ => {}
            }
        }
        self.entries += 1;
        // A key that stands twice could be read one way here and another way by the runtime.
        let twice = match key {
            "location" => self.location.replace(value.to_owned()).is_some(),
            "offset" => self.offset.replace(byte_count(value)?).is_some(),
            "length" => self.length.replace(byte_count(value)?).is_some(),
            _ => false,
        };
        if twice { Err(ScanError::ExternalData) } else { Ok(()) }
    }

    fn finish(self) -> Result<Option<ExternalTensor>, ScanError> {
        match (self.in_file, self.location) {
            (false, None) if self.entries == 0 => Ok(None),
            (true, Some(location)) => {
                Ok(Some(ExternalTensor { location, offset: self.offset.unwrap_or(0), length: self.length }))
            }
            _ => Err(ScanError::ExternalData),
        }
    }
}

fn byte_count(value: &str) -> Result<u64, ScanError> {
    value.parse().map_err(|_| ScanError::ExternalData)
}

/// # Errors
/// [`ScanError::ExternalData`] if the data of this `TensorProto` lies in another file.
pub(super) fn refuse_external(tensor: &[u8]) -> Result<(), ScanError> {
    for field in Fields(tensor) {
        match field? {
            (13, _) => return Err(ScanError::ExternalData),
            (14, Value::Number(location)) if location != 0 => return Err(ScanError::ExternalData),
            _ => {}
        }
    }
    Ok(())
}

/// The same for a `SparseTensorProto`.
pub(super) fn refuse_external_sparse(sparse: &[u8]) -> Result<(), ScanError> {
    for field in Fields(sparse) {
        if let (1 | 2, Value::Bytes(tensor)) = field? {
            refuse_external(tensor)?;
        }
    }
    Ok(())
}
