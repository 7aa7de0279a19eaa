//! A graph's constant tensors: shared between sessions, or read from files of its directory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};
use std::sync::Arc;

use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};
use predictd_text::manifest::{Manifest, ManifestError};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::external_data::ExternalTensor;
use super::graph::decode_raw;
use super::graph_scan::GraphScan;
use super::proto::TensorProto;

/// Deepest directory of weights within that of the graph.
const MAX_DIRECTORY_DEPTH: usize = 8;
/// Weights beside a graph: as much as a graph file may hold.
const MAX_EXTERNAL_BYTES: u64 = 2 << 30;
const NOT_REGULAR_FILE: &str = "external data must be a regular file with one link";

/// Reads the files that hold external tensors: regular files with one link, in the directory of the graph or in one
/// within it. They are kept by the location that the graph gives.
pub(super) fn read_external_files(
    tensors: &[ExternalTensor],
    manifest: &Manifest,
) -> Result<BTreeMap<String, Arc<[u8]>>, ManifestError> {
    let mut files: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
    let mut total = 0;
    for tensor in tensors {
        let location = &tensor.location;
        if !files.contains_key(location) {
            let parts = relative_components(location).ok_or_else(|| {
                file_error(location, "external data must lie in the directory of the graph, or in one within it")
            })?;
            let content = read_regular_file(&manifest.graph_directory, &parts, MAX_EXTERNAL_BYTES - total);
            let content = content.map_err(|failure| match failure {
                FileError::Io(system) => ManifestError::from_io(format!("{location:?}"), &system),
                FileError::Rejected(reason) => file_error(location, reason),
            })?;
            manifest.check_external_file(&parts.join("/"), &content)?;
            total += content.len() as u64;
            files.insert(location.clone(), content.into());
        }
        let size = files.get(location).map_or(0, |content| content.len() as u64);
        let end = tensor
            .offset
            .checked_add(tensor.length.unwrap_or(0))
            .ok_or_else(|| file_error(location, "an offset overflows"))?;
        if tensor.offset > size || end > size {
            return Err(file_error(location, "a tensor lies beyond the end of this file"));
        }
    }
    Ok(files)
}

fn file_error(location: &str, reason: &str) -> ManifestError {
    ManifestError::new(format!("{location:?}"), reason)
}

/// The parts of a relative path that goes down only; nothing for any other path.
fn relative_components(location: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    for component in Path::new(location).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty() && parts.len() <= MAX_DIRECTORY_DEPTH).then_some(parts)
}

/// Why a file is not read.
enum FileError {
    Io(io::Error),
    Rejected(&'static str),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// For files that are opened.
impl From<Errno> for FileError {
    fn from(error: Errno) -> Self {
        match error {
            // A link, or a directory that is none.
            Errno::LOOP | Errno::NOTDIR => Self::Rejected(NOT_REGULAR_FILE),
            other => Self::Io(other.into()),
        }
    }
}

/// Reads a regular file with one link. No part of its path is a link. What is checked is the open file: another one may
/// be put in its place meanwhile.
fn read_regular_file(directory: &Path, parts: &[&str], limit: u64) -> Result<Vec<u8>, FileError> {
    let Some((name, directories)) = parts.split_last() else { return Err(FileError::Rejected(NOT_REGULAR_FILE)) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, directory, flags, Mode::empty())?;
    for part in directories {
        at = openat(&at, *part, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    // It does not wait for the other end of a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&at, *name, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(FileError::Rejected(NOT_REGULAR_FILE));
    }
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(FileError::Rejected("the external data is larger than 2 GiB"));
    }
    Ok(content)
}

/// Tensors that every session of the graph shall use instead of its own copy.
///
/// Scalars and vectors stay in the graph: they are small, and optimisations want to see them. So does a tensor whose
/// name an inner graph gives to another one: the runtime would put it in the place of both.
pub(super) fn shared_tensors(scan: &GraphScan) -> ort::Result<Vec<(String, Arc<DynValue>)>> {
    let constants = scan.main_graph.initializers.iter();
    constants
        .filter(|(_, constant)| constant.tensor.dims.len() >= 2 && !constant.tensor.raw_data.is_empty())
        .filter(|(name, _)| !scan.inner_constants.contains(*name))
        .filter_map(|(name, constant)| Some((name, to_runtime_tensor(&constant.tensor)?)))
        .map(|(name, value)| Ok((name.clone(), Arc::new(value?))))
        .collect()
}

/// `None` for element types that are not shared.
fn to_runtime_tensor(tensor: &TensorProto) -> Option<ort::Result<DynValue>> {
    Some(match tensor.data_type {
        1 => from_raw(tensor, f32::from_le_bytes),
        2 => from_raw(tensor, u8::from_le_bytes),
        3 => from_raw(tensor, i8::from_le_bytes),
        6 => from_raw(tensor, i32::from_le_bytes),
        7 => from_raw(tensor, i64::from_le_bytes),
        11 => from_raw(tensor, f64::from_le_bytes),
        _ => return None,
    })
}

fn from_raw<const N: usize, T: PrimitiveTensorElementType + fmt::Debug + Clone + 'static>(
    tensor: &TensorProto,
    decode: fn([u8; N]) -> T,
) -> ort::Result<DynValue> {
    Ok(Tensor::from_array((tensor.dims.clone(), decode_raw(&tensor.raw_data, decode)))?.into_dyn())
}
