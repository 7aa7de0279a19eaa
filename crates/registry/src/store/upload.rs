//! A file that comes in pieces, written on threads that may wait for the disk.

use std::io;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::error::StoreError;
use super::temp_file::TempFile;
use super::version_store::Store;

/// Bytes that are written together.
const FLUSH_BYTES: usize = 1 << 20;

/// A file on its way into the store. Dropped before its end, it is gone.
#[derive(Debug)]
pub struct UploadWriter {
    store: Store,
    /// Nothing after an error.
    file: Option<TempFile>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    received_bytes: u64,
    max_bytes: u64,
}

impl UploadWriter {
    /// Begins a file of at most so many bytes.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub async fn open(store: &Store, most: u64) -> Result<Self, StoreError> {
        let store = store.clone();
        let open = move || {
            let file = Some(store.create_temp_file()?);
            Ok(Self { store, file, pending: Vec::new(), pending_bytes: 0, received_bytes: 0, max_bytes: most })
        };
        run_blocking(open).await
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// If there are too many bytes, or the disk does not allow it.
    pub async fn write_chunk(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.pending_bytes += data.len();
        self.received_bytes += data.len() as u64;
        if self.received_bytes > self.max_bytes {
            return Err(StoreError::TooLarge(self.max_bytes));
        }
        self.pending.push(data);
        if self.pending_bytes >= FLUSH_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut self.pending);
        let Some(mut part) = self.file.take() else { return Ok(()) };
        self.pending_bytes = 0;
        let written = run_blocking(move || {
            waiting.iter().try_for_each(|data| part.write(data))?;
            Ok(part)
        });
        self.file = Some(written.await?);
        Ok(())
    }

    /// Keeps the file, if it is what was announced; its SHA-256, as hexadecimal digits, and its length.
    ///
    /// # Errors
    /// If it is not, or the disk does not allow it.
    pub async fn finish(mut self, announced: Option<String>) -> Result<(String, u64), StoreError> {
        self.flush().await?;
        let mut part = self.file.take().ok_or_else(|| io::Error::other("the file was given up"))?;
        let store = self.store;
        run_blocking(move || {
            let sha256 = announced.unwrap_or_else(|| part.sha256());
            let bytes = store.commit_upload(&mut part, &sha256)?;
            Ok((sha256, bytes))
        })
        .await
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
