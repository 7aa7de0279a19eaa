//! Tensors whose data lies in another file.

use std::collections::BTreeMap;

use super::proto::{SparseTensorProto, StringStringEntryProto, TensorProto};
use super::scan_error::ScanError;

/// `TensorProto.DataLocation` of a tensor whose data lies in another file.
const EXTERNAL: i32 = 1;
/// Keys of `external_data` that say where.
const EXTERNAL_KEYS: [&str; 3] = ["location", "offset", "length"];

/// A tensor whose bytes stand in another file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExternalTensor {
    /// Path as the graph gives it; not yet checked.
    pub(super) location: String,
    /// First byte.
    pub(super) offset: u64,
    /// Number of bytes, if the graph says.
    pub(super) length: Option<u64>,
}

impl TensorProto {
    /// Where its data lies, if in another file.
    ///
    /// # Errors
    /// [`ScanError::ExternalData`] if that is said twice, or by half.
    pub(super) fn external_tensor(&self) -> Result<Option<ExternalTensor>, ScanError> {
        let mut entries = BTreeMap::new();
        for StringStringEntryProto { key, value } in &self.external_data {
            // A key that stands twice could be read one way here and another way by the runtime.
            if EXTERNAL_KEYS.contains(&key.as_str()) && entries.insert(key.as_str(), value).is_some() {
                return Err(ScanError::ExternalData);
            }
        }
        let offset = entries.get("offset").map(|offset| parse_byte_count(offset)).transpose()?;
        let length = entries.get("length").map(|length| parse_byte_count(length)).transpose()?;
        match (self.data_location == EXTERNAL, entries.remove("location")) {
            (false, None) if self.external_data.is_empty() => Ok(None),
            (true, Some(location)) => {
                Ok(Some(ExternalTensor { location: location.clone(), offset: offset.unwrap_or(0), length }))
            }
            _ => Err(ScanError::ExternalData),
        }
    }

    /// # Errors
    /// [`ScanError::ExternalData`] if its data lies in another file.
    pub(super) fn reject_external(&self) -> Result<(), ScanError> {
        if self.external_data.is_empty() && self.data_location == 0 { Ok(()) } else { Err(ScanError::ExternalData) }
    }
}

impl SparseTensorProto {
    /// # Errors
    /// [`ScanError::ExternalData`] if its values or indices lie in another file.
    pub(super) fn reject_external(&self) -> Result<(), ScanError> {
        self.values.iter().chain(&self.indices).try_for_each(TensorProto::reject_external)
    }
}

fn parse_byte_count(value: &str) -> Result<u64, ScanError> {
    value.parse().map_err(|_| ScanError::ExternalData)
}
