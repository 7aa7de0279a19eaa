//! Signals by which an operator has files read or opened again.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::http::App;
use crate::http::tls::Tls;
use crate::shutdown::{FileRequest, FileSignals};
use crate::telemetry;

/// Does what the signals ask for, until the process ends.
pub(super) async fn follow(mut signals: FileSignals, app: Arc<App>, tls: Option<Tls>) {
    loop {
        let request = signals.next().await;
        telemetry::reopen();
        // The line goes to the files that were opened.
        tracing::info!("log files were opened again, as a signal asked for");
        if request == FileRequest::Reload {
            let (app, tls) = (Arc::clone(&app), tls.clone());
            let reload = move || {
                app.keys.reload();
                if let Some(tls) = tls {
                    tls.reload();
                }
            };
            if let Err(error) = spawn_blocking(reload).await {
                tracing::error!(%error, "reading keys and certificates again was given up: the old ones stay");
            }
        }
    }
}
