//! What a request that is dropped before its answer leaves to be done.

/// Does something when it is dropped, unless the request was answered: its client has left.
pub(super) struct CancelGuard<F: FnMut()> {
    pub(super) is_answered: bool,
    pub(super) on_cancel: F,
}

impl<F: FnMut()> Drop for CancelGuard<F> {
    fn drop(&mut self) {
        if !self.is_answered {
            (self.on_cancel)();
        }
    }
}
