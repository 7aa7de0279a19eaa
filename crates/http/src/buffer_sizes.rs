//! Sizes of the buffers of a connection.

/// Bytes of one connection that wait to be read or written: room for the largest head that is refused politely.
pub const MAX_BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a part of a large response. One item more may be in it.
pub const PART_BYTES: usize = 32 << 10;
