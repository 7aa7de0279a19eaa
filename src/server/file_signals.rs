//! Signals by which an operator has files read or opened again.

use predictd_http::App;
use predictd_http::tls::WatchedTlsConfig;
use tokio::task::spawn_blocking;

use crate::shutdown::{FileSignals, ReloadSignal};

/// Does what the signals ask for, until the process ends.
pub(super) async fn watch_file_signals(mut signals: FileSignals, app: App, tls: Option<WatchedTlsConfig>) {
    loop {
        let request = signals.next().await;
        predictd_telemetry::reopen_log_files();
        // The line goes to the files that were opened.
        tracing::info!("log files reopened");
        if request == ReloadSignal::Reload {
            let app = app.clone();
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
