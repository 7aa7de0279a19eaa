//! Signals by which an operator has files read or opened again.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::http::App;
use crate::http::tls::WatchedTlsConfig;
use crate::shutdown::{FileSignals, ReloadSignal};
use crate::telemetry;

/// Does what the signals ask for, until the process ends.
pub(super) async fn watch_file_signals(mut signals: FileSignals, app: Arc<App>, tls: Option<WatchedTlsConfig>) {
    loop {
        let request = signals.next().await;
        telemetry::reopen_log_files();
        // The line goes to the files that were opened.
        tracing::info!("log files reopened");
        if request == ReloadSignal::Reload {
            let app = Arc::clone(&app);
            let tls = tls.clone();
            let reload = move || {
                app.access.keys.reload();
                if let Some(tls) = tls {
                    tls.reload();
                }
            };
            if let Err(error) = spawn_blocking(reload).await {
                tracing::error!(%error, "reload of keys and certificates aborted; previous ones stay in use");
            }
        }
    }
}
