//! Who is told of drift.
