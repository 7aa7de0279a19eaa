//! Closes windows of drift whose time is over, where no more texts come that would.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::drifting::Drifting;
use crate::engine::model::Model;
use crate::registry::Registry;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Looks for ever.
pub(super) async fn close_when_due(registry: Arc<Registry>) {
    loop {
        tokio::time::sleep(LOOK).await;
        registry.snapshot().loaded().filter_map(Model::drifting).for_each(Drifting::close_if_due);
    }
}
