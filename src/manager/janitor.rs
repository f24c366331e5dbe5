//! Erases what is old while the server works: finished tasks after `--retention`, idempotency keys
//! after a day.

use std::time::Duration;

use crate::store::{EraseStep, KEY_LIFETIME, Store, StoreError};
use crate::task::{Timestamp, with_causes};

/// Looks often enough that nothing outlives its time by much more than a tenth.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Works until the store is closed.
pub(super) async fn run(store: Store, retention: Option<Duration>) {
    let pause = retention.map_or(LONGEST_PAUSE, |retention| retention / 10);
    let pause = pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    loop {
        match sweep(&store, retention).await {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(error = with_causes(&error), "cannot erase old tasks"),
        }
        tokio::time::sleep(pause).await;
    }
}

async fn sweep(store: &Store, retention: Option<Duration>) -> Result<(), StoreError> {
    let now = Timestamp::now().as_micros();
    let before = |age: Duration| {
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(now.saturating_sub(age))
    };
    let mut next = Some(0);
    while let Some(after) = next {
        let cutoff = retention.map(before);
        let keys_cutoff = Timestamp::from_micros(now - KEY_LIFETIME);
        next = store.erase(EraseStep { after, cutoff, keys_cutoff }).await?;
    }
    Ok(())
}
