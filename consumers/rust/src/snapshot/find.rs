//! Finds a usable snapshot in the stream, complete or in progress.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use walgate_wire::{InitError, InitMeta, InitStart, Token, from_msgpack, subjects};

use super::SnapshotWanted;
use crate::{Error, feed::micros_from_nanos, remote::RemoteStreams, state::StreamExtent};

/// An unfinished snapshot whose last message is older has been abandoned. Differing clocks cost at
/// most one unnecessary snapshot or a minute of waiting.
const ABANDONED_AFTER: Duration = Duration::from_secs(30);

/// Returns the sequence of `INIT` to read from. Requests a new snapshot if none there is usable.
pub(crate) async fn find_or_request(
    remote: &RemoteStreams,
    wanted: &SnapshotWanted,
    cdc: StreamExtent,
) -> Result<u64, Error> {
    // Read before the search and the request, so that a new snapshot begins at or after it.
    let next = remote.stream_extent(&remote.names.init).await?.last_seq + 1;
    let table = wanted.token.as_str();
    match find_snapshot(remote, wanted, cdc).await? {
        Some(found) => {
            tracing::debug!(table, from = found, "found a usable snapshot");
            Ok(found)
        }
        None => {
            tracing::info!(table, "requesting snapshot");
            remote.publish_snapshot_request(&wanted.token).await?;
            Ok(next)
        }
    }
}

async fn find_snapshot(
    remote: &RemoteStreams,
    wanted: &SnapshotWanted,
    cdc: StreamExtent,
) -> Result<Option<u64>, Error> {
    let Some(started) = last_started(remote, &wanted.token).await? else { return Ok(None) };
    if !is_usable(&started.start, wanted, cdc) {
        return Ok(None);
    }
    let is_usable = match find_end(remote, &wanted.token, &started.start).await? {
        Some(SnapshotEnd::Complete) => true,
        Some(SnapshotEnd::Failed) => false,
        None => is_in_progress(remote, &wanted.token, &started).await?,
    };
    Ok(is_usable.then_some(started.sequence))
}

/// The sequence of `INIT` at which an unfinished snapshot begins, if there is one. If that snapshot
/// was abandoned, the next one supersedes it.
pub(crate) async fn find_unfinished(
    remote: &RemoteStreams,
    token: &Token,
) -> Result<Option<u64>, Error> {
    let Some(started) = last_started(remote, token).await? else { return Ok(None) };
    let end = find_end(remote, token, &started.start).await?;
    Ok(end.is_none().then_some(started.sequence))
}

/// The start message of a snapshot in the stream.
struct StartedSnapshot {
    sequence: u64,
    /// Microseconds since 1970, by the server's clock.
    at: i64,
    start: InitStart,
}

enum SnapshotEnd {
    Complete,
    Failed,
}

async fn last_started(
    remote: &RemoteStreams,
    token: &Token,
) -> Result<Option<StartedSnapshot>, Error> {
    let message = remote.last_message(&remote.names.init, &subjects::init_start(token)).await?;
    let Some(message) = message else { return Ok(None) };
    let Ok(start) = from_msgpack::<InitStart>(&message.payload) else { return Ok(None) };
    let sequence = message.sequence;
    let at = micros_from_nanos(message.time.unix_timestamp_nanos());
    Ok(Some(StartedSnapshot { sequence, at, start }))
}

/// How the snapshot ended, if it has ended.
async fn find_end(
    remote: &RemoteStreams,
    token: &Token,
    start: &InitStart,
) -> Result<Option<SnapshotEnd>, Error> {
    let init = &remote.names.init;
    let id = &start.snapshot_id;
    if let Some(message) = remote.last_message(init, &subjects::init_meta(token)).await? {
        let meta = from_msgpack::<InitMeta>(&message.payload);
        if meta.is_ok_and(|meta| meta.start.snapshot_id == *id) {
            return Ok(Some(SnapshotEnd::Complete));
        }
    }
    if let Some(message) = remote.last_message(init, &subjects::init_error(token)).await? {
        let error = from_msgpack::<InitError>(&message.payload);
        if error.is_ok_and(|error| error.snapshot_id.as_ref() == Some(id)) {
            return Ok(Some(SnapshotEnd::Failed));
        }
    }
    Ok(None)
}

/// Whether an unfinished snapshot has a recent message.
async fn is_in_progress(
    remote: &RemoteStreams,
    token: &Token,
    started: &StartedSnapshot,
) -> Result<bool, Error> {
    let chunks = subjects::init_snap_of(token, &started.start.snapshot_id);
    let chunk = remote.last_message(&remote.names.init, &chunks).await?;
    let heard_at =
        chunk.map_or(started.at, |chunk| micros_from_nanos(chunk.time.unix_timestamp_nanos()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let silent = now.saturating_sub(Duration::from_micros(heard_at.unsigned_abs()));
    Ok(silent < ABANDONED_AFTER)
}

/// Whether the snapshot meets the conditions, and the stream still holds all changes after it.
fn is_usable(start: &InitStart, wanted: &SnapshotWanted, cdc: StreamExtent) -> bool {
    wanted.epoch.is_none_or(|epoch| start.epoch == epoch)
        && start.lsn >= wanted.watermark
        && !wanted.avoid.contains(&start.snapshot_id)
        && cdc.first_seq <= start.cdc_sequence + 1
        && start.cdc_sequence <= cdc.last_seq
}
