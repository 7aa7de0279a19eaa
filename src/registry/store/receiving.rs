//! A file that comes in pieces, written on threads that may wait for the disk.

use std::io;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{Part, Store, StoreError};

/// Bytes that are written together.
const PIECE: usize = 1 << 20;

/// A file on its way into the store. Dropped before its end, it is gone.
#[derive(Debug)]
pub struct Receiving {
    store: Store,
    /// Nothing after an error.
    part: Option<Part>,
    waiting: Vec<Bytes>,
    bytes: usize,
    all: u64,
    most: u64,
}

impl Receiving {
    /// Begins a file of at most so many bytes.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub async fn begin(store: &Store, most: u64) -> Result<Self, StoreError> {
        let opened = store.clone();
        let part = blocking(move || Ok(opened.receive()?)).await?;
        Ok(Self { store: store.clone(), part: Some(part), waiting: Vec::new(), bytes: 0, all: 0, most })
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// If there are too many bytes, or the disk does not allow it.
    pub async fn add(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.bytes += data.len();
        self.all += data.len() as u64;
        if self.all > self.most {
            return Err(StoreError::TooLarge(self.most));
        }
        self.waiting.push(data);
        if self.bytes >= PIECE { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        let (Some(mut part), waiting) = (self.part.take(), std::mem::take(&mut self.waiting)) else { return Ok(()) };
        self.bytes = 0;
        let written = blocking(move || {
            waiting.iter().try_for_each(|data| part.write(data))?;
            Ok(part)
        });
        self.part = Some(written.await?);
        Ok(())
    }

    /// Keeps the file, if it is what was announced; its SHA-256, as hexadecimal digits, and its length.
    ///
    /// # Errors
    /// If it is not, or the disk does not allow it.
    pub async fn end(mut self, announced: Option<String>) -> Result<(String, u64), StoreError> {
        self.write().await?;
        let Some(mut part) = self.part.take() else {
            return Err(StoreError::Disk(io::Error::other("the file was given up")));
        };
        let store = self.store;
        blocking(move || {
            let sha256 = announced.unwrap_or_else(|| part.sha256());
            let bytes = store.keep(&mut part, &sha256)?;
            Ok((sha256, bytes))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.map_err(|error| StoreError::Disk(io::Error::other(error)))?
}
