//! Several attackers at once.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;

use crate::raw::{Heard, Raw};

/// Opens so many connections that say these settings.
pub(crate) async fn open(
    address: SocketAddr,
    count: usize,
    settings: &[(u16, u32)],
) -> anyhow::Result<Vec<Raw>> {
    let mut crowd = Vec::with_capacity(count);
    for _ in 0..count {
        crowd.push(Raw::connect(address, settings).await?);
    }
    Ok(crowd)
}

/// Writes what each has queued, and hears what comes, until the condition holds for each or the
/// time is over.
pub(crate) async fn until(
    crowd: &mut [Raw],
    limit: Duration,
    condition: impl Fn(&Heard) -> bool + Copy,
) {
    join_all(crowd.iter_mut().map(|raw| raw.until(limit, condition))).await;
}

/// Writes what each has queued, and hears what comes, for this time.
pub(crate) async fn listen(crowd: &mut [Raw], limit: Duration) {
    until(crowd, limit, |_| false).await;
}

/// The sum over all of them.
pub(crate) fn sum(crowd: &[Raw], count: impl Fn(&Heard) -> usize) -> f64 {
    crowd.iter().map(|raw| count(&raw.heard)).sum::<usize>() as f64
}
