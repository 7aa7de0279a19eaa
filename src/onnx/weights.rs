//! A graph's constant tensors: shared between sessions, or read from files beside the graph.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path};
use std::sync::Arc;

use ort::value::{DynValue, Tensor};

use super::protobuf::{ExternalTensor, Initializer, Scan};
use crate::text::manifest::{Manifest, ManifestError};

/// Weights beside a graph: as much as a graph file may hold.
const MAX_EXTERNAL_BYTES: u64 = 2 << 30;
const NOT_PLAIN: &str = "external data must be a regular file with one link";

/// Reads the files that hold external tensors: regular files with one link, beside the graph.
pub(super) fn read_external(
    tensors: &[ExternalTensor],
    manifest: &Manifest,
) -> Result<BTreeMap<String, Arc<[u8]>>, ManifestError> {
    let mut files: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
    let mut total = 0;
    for tensor in tensors {
        let name = &tensor.location;
        let error = |reason: &str| ManifestError::new(format!("{name:?}"), reason);
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(error("external data must lie in a file beside the graph"));
        }
        if !files.contains_key(name) {
            let content =
                read_plain(&manifest.graph_directory.join(name), MAX_EXTERNAL_BYTES - total).map_err(|e| match e {
                    Unread::System(system) => ManifestError::of_system(format!("{name:?}"), &system),
                    Unread::Refused(reason) => error(reason),
                })?;
            manifest.check_beside_graph(name, &content)?;
            total += content.len() as u64;
            files.insert(name.clone(), content.into());
        }
        let size = files.get(name).map_or(0, |content| content.len() as u64);
        let end = tensor.offset.checked_add(tensor.length.unwrap_or(0)).ok_or_else(|| error("an offset overflows"))?;
        if tensor.offset > size || end > size {
            return Err(error("a tensor lies beyond the end of this file"));
        }
    }
    Ok(files)
}

/// Why a file is not read.
enum Unread {
    System(io::Error),
    Refused(&'static str),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Reads a regular file with one link. What is checked is the open file: another one may be put in its place meanwhile.
fn read_plain(path: &Path, limit: u64) -> Result<Vec<u8>, Unread> {
    let mut options = OpenOptions::new();
    // Neither follows a link nor waits for the other end of a pipe.
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(|e| match e.raw_os_error() {
        Some(libc::ELOOP) => Unread::Refused(NOT_PLAIN),
        _ => e.into(),
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(Unread::Refused(NOT_PLAIN));
    }
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(Unread::Refused("the external data is larger than 2 GiB"));
    }
    Ok(content)
}

/// Tensors that every session of the graph shall use instead of its own copy.
///
/// Scalars and vectors stay in the graph: they are small, and optimisations want to see them.
pub(super) fn shared_tensors(scan: &Scan<'_>) -> ort::Result<Vec<(String, Arc<DynValue>)>> {
    let matrices = scan.initializers.iter().filter(|tensor| tensor.dims.len() >= 2 && !tensor.raw.is_empty());
    matrices
        .filter_map(|tensor| tensor_of(tensor).transpose())
        .map(|made| made.map(|(name, value)| (name.to_owned(), Arc::new(value))))
        .collect()
}

/// `None` for element types that are not shared.
fn tensor_of<'a>(tensor: &Initializer<'a>) -> ort::Result<Option<(&'a str, DynValue)>> {
    let dims = tensor.dims.clone();
    let value = match tensor.data_type {
        1 => Tensor::from_array((dims, elements(tensor.raw, f32::from_le_bytes)))?.into_dyn(),
        2 => Tensor::from_array((dims, tensor.raw.to_vec()))?.into_dyn(),
        3 => Tensor::from_array((dims, elements(tensor.raw, i8::from_le_bytes)))?.into_dyn(),
        6 => Tensor::from_array((dims, elements(tensor.raw, i32::from_le_bytes)))?.into_dyn(),
        7 => Tensor::from_array((dims, elements(tensor.raw, i64::from_le_bytes)))?.into_dyn(),
        11 => Tensor::from_array((dims, elements(tensor.raw, f64::from_le_bytes)))?.into_dyn(),
        _ => return Ok(None),
    };
    Ok(Some((tensor.name, value)))
}

fn elements<const N: usize, T>(raw: &[u8], convert: fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect()
}
