//! Reads what matters of an ONNX file without trusting it.
//!
//! ONNX files are protobuf messages (field numbers: `onnx.proto`, ONNX 1.x). This walk looks
//! at every tensor, wherever it hides, because a tensor may name a file to read: only graph
//! initializers may, and only files beside the graph. Depth and sizes are bounded; nothing is copied.

use std::collections::BTreeSet;

/// Deepest nesting of graphs, functions and attributes.
const MAX_DEPTH: usize = 64;

/// What a graph file holds, as far as loading it needs.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    /// Constant tensors of the main graph with their bytes in place.
    pub(super) initializers: Vec<Initializer<'a>>,
    /// Files that initializers of the main graph lie in: the largest end offset of each.
    pub(super) external: Vec<ExternalTensor>,
    /// Operators used anywhere.
    pub(super) operators: BTreeSet<&'a str>,
    /// `TensorProto.DataType` numbers of all initializers.
    pub(super) element_types: BTreeSet<u64>,
    /// Class numbers of a classifier node.
    pub(super) class_numbers: Vec<i64>,
    /// Class names of a classifier node.
    pub(super) class_labels: Vec<String>,
}

/// A tensor whose bytes stand in the graph file.
#[derive(Debug, Clone, Default)]
pub(super) struct Initializer<'a> {
    /// Name within the graph.
    pub(super) name: &'a str,
    /// Shape.
    pub(super) dims: Vec<i64>,
    /// `TensorProto.DataType` number.
    pub(super) data_type: u64,
    /// Little-endian elements.
    pub(super) raw: &'a [u8],
}

/// A tensor whose bytes stand in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExternalTensor {
    /// File name as the graph gives it; not yet checked.
    pub(super) location: String,
    /// First byte.
    pub(super) offset: u64,
    /// Number of bytes, if the graph says.
    pub(super) length: Option<u64>,
}

/// Why a file is not an acceptable ONNX graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScanError {
    /// Cut off or not protobuf.
    #[error("it is damaged or not an ONNX file")]
    Malformed,
    /// Nested too deeply.
    #[error("its graphs are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Protobuf, but no graph in it.
    #[error("it holds no graph")]
    NoGraph,
    /// External data where it is not allowed, or described twice.
    #[error("it keeps the data of a tensor in another file in a way that is not accepted: only plain initializers may")]
    ExternalData,
}

/// Walks a serialised `ModelProto`.
///
/// # Errors
/// [`ScanError`] if the file is malformed or uses external data beyond plain initializers.
pub(super) fn scan(bytes: &[u8]) -> Result<Scan<'_>, ScanError> {
    let mut scan = Scan::default();
    let mut graphs = 0;
    for field in Fields(bytes) {
        match field? {
            (7, Value::Bytes(graph)) => {
                graphs += 1;
                scan.graph(graph, 0)?;
            }
            (25, Value::Bytes(function)) => scan.function(function)?,
            (20, Value::Bytes(_)) => return Err(ScanError::ExternalData), // training information: never needed to serve
            _ => {}
        }
    }
    if graphs == 1 { Ok(scan) } else { Err(ScanError::NoGraph) }
}

impl<'a> Scan<'a> {
    fn graph(&mut self, bytes: &'a [u8], depth: usize) -> Result<(), ScanError> {
        if depth > MAX_DEPTH {
            return Err(ScanError::TooDeep);
        }
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(node)) => self.node(node, depth)?,
                (5, Value::Bytes(tensor)) => self.initializer(tensor, depth == 0)?,
                (15, Value::Bytes(sparse)) => refuse_external_sparse(sparse)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn function(&mut self, bytes: &'a [u8]) -> Result<(), ScanError> {
        for field in Fields(bytes) {
            match field? {
                (7, Value::Bytes(node)) => self.node(node, 1)?,
                (11, Value::Bytes(attribute)) => self.attribute(attribute, 1)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, bytes: &'a [u8], depth: usize) -> Result<(), ScanError> {
        for field in Fields(bytes) {
            match field? {
                (4, Value::Bytes(operator)) => _ = self.operators.insert(text(operator)?),
                (5, Value::Bytes(attribute)) => self.attribute(attribute, depth)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn attribute(&mut self, bytes: &'a [u8], depth: usize) -> Result<(), ScanError> {
        let (mut name, mut strings, mut numbers) = ("", Vec::new(), Vec::new());
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(value)) => name = text(value)?,
                (5 | 10, Value::Bytes(tensor)) => refuse_external(tensor)?,
                (6 | 11, Value::Bytes(graph)) => self.graph(graph, depth + 1)?,
                (8, Value::Number(number)) => numbers.push(number.cast_signed()),
                (8, Value::Bytes(packed)) => packed_numbers(packed, &mut numbers)?,
                (9, Value::Bytes(value)) => strings.push(value),
                (22 | 23, Value::Bytes(sparse)) => refuse_external_sparse(sparse)?,
                _ => {}
            }
        }
        if matches!(name, "classlabels_ints" | "classlabels_int64s") && !numbers.is_empty() {
            self.class_numbers = numbers;
        }
        if name == "classlabels_strings" && !strings.is_empty() {
            self.class_labels =
                strings.into_iter().map(|label| text(label).map(str::to_owned)).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn initializer(&mut self, bytes: &'a [u8], in_main_graph: bool) -> Result<(), ScanError> {
        let mut tensor = Initializer::default();
        let mut external = ExternalData::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Number(dim)) => tensor.dims.push(dim.cast_signed()),
                (1, Value::Bytes(packed)) => packed_numbers(packed, &mut tensor.dims)?,
                (2, Value::Number(data_type)) => tensor.data_type = data_type,
                (8, Value::Bytes(name)) => tensor.name = text(name)?,
                (9, Value::Bytes(raw)) => tensor.raw = raw,
                (number, value) => external.field(number, &value)?,
            }
        }
        self.element_types.insert(tensor.data_type);
        match external.finish()? {
            Some(_) if !in_main_graph || !tensor.raw.is_empty() => return Err(ScanError::ExternalData),
            Some(data) => self.external.push(data),
            None => self.initializers.push(tensor),
        }
        Ok(())
    }
}

/// The `external_data` and `data_location` fields of one tensor.
#[derive(Debug, Default)]
struct ExternalData {
    in_file: bool,
    location: Option<String>,
    offset: Option<u64>,
    length: Option<u64>,
    entries: usize,
}

impl ExternalData {
    fn field(&mut self, number: u64, value: &Value<'_>) -> Result<(), ScanError> {
        match (number, value) {
            (13, Value::Bytes(entry)) => self.entry(entry),
            (14, Value::Number(location)) => {
                self.in_file = *location == 1;
                Ok(())
            }
            _ => Ok(()),
        }
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
        let number = || value.parse::<u64>().map_err(|_| ScanError::ExternalData);
        // A key that stands twice could be read one way here and another way by the runtime.
        let twice = match key {
            "location" => self.location.replace(value.to_owned()).is_some(),
            "offset" => self.offset.replace(number()?).is_some(),
            "length" => self.length.replace(number()?).is_some(),
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

fn refuse_external(tensor: &[u8]) -> Result<(), ScanError> {
    for field in Fields(tensor) {
        match field? {
            (13, _) => return Err(ScanError::ExternalData),
            (14, Value::Number(location)) if location != 0 => return Err(ScanError::ExternalData),
            _ => {}
        }
    }
    Ok(())
}

fn refuse_external_sparse(sparse: &[u8]) -> Result<(), ScanError> {
    for field in Fields(sparse) {
        if let (1 | 2, Value::Bytes(tensor)) = field? {
            refuse_external(tensor)?;
        }
    }
    Ok(())
}

fn packed_numbers(mut bytes: &[u8], numbers: &mut Vec<i64>) -> Result<(), ScanError> {
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes)?.cast_signed());
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, ScanError> {
    std::str::from_utf8(bytes).map_err(|_| ScanError::Malformed)
}

/// A field's content by its wire type.
#[derive(Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of one message, in file order.
struct Fields<'a>(&'a [u8]);

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
        1 => take(bytes, 8).map(|_| Value::Fixed)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| ScanError::Malformed)?;
            Value::Bytes(take(bytes, length)?)
        }
        5 => take(bytes, 4).map(|_| Value::Fixed)?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodes one length-delimited field.
    fn message(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        assert!(content.len() < 128);
        bytes.push(u8::try_from(content.len()).unwrap());
        bytes.extend_from_slice(content);
        bytes
    }

    fn tensor(location: &[&str]) -> Vec<u8> {
        let mut tensor = message(8, b"w");
        for location in location {
            tensor.extend(message(13, &[message(1, b"location"), message(2, location.as_bytes())].concat()));
        }
        tensor.extend([14 << 3, 1]);
        tensor
    }

    #[test]
    fn finds_external_data_of_initializers() {
        let model = message(7, &message(5, &tensor(&["weights.bin"])));
        let scan = scan(&model).unwrap();
        assert_eq!(scan.external, [ExternalTensor { location: "weights.bin".to_owned(), offset: 0, length: None }]);
    }

    #[test]
    fn refuses_external_data_elsewhere() {
        let constant = message(7, &message(1, &message(5, &message(5, &tensor(&["x"])))));
        let inner_graph = message(7, &message(1, &message(5, &message(6, &message(5, &tensor(&["x"]))))));
        let sparse = message(7, &message(15, &message(1, &tensor(&["x"]))));
        let twice = message(7, &message(5, &tensor(&["x", "/etc/passwd"])));
        for model in [constant, inner_graph, sparse, twice] {
            assert_eq!(scan(&model).unwrap_err(), ScanError::ExternalData);
        }
    }

    #[test]
    fn reads_operators_and_class_labels() {
        let labels = [message(1, b"classlabels_strings"), message(9, b"a"), message(9, b"b")].concat();
        let node = [message(4, b"LinearClassifier"), message(5, &labels)].concat();
        let model = message(7, &message(1, &node));
        let scan = scan(&model).unwrap();
        assert_eq!(scan.class_labels, ["a", "b"]);
        assert!(scan.operators.contains("LinearClassifier"));
    }

    #[test]
    fn refuses_deep_nesting_and_rubbish() {
        assert_eq!(scan(b"").unwrap_err(), ScanError::NoGraph);
        assert_eq!(scan(b"<html>").unwrap_err(), ScanError::Malformed);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            _ = scan(&bytes);
        }
    }
}
