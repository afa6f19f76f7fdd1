//! Whether a snapshot that is good enough is in the stream already, complete or under way.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use walgate_wire::{InitError, InitMeta, InitStart, Token, from_msgpack, subjects};

use super::Wish;
use crate::{Error, feed::micros, remote::Remote, state::StreamExtent};

/// A snapshot without an end whose last message is older has been given up. Clocks differ: that costs a
/// snapshot too many or a minute of waiting, no more.
const UNDER_WAY: Duration = Duration::from_secs(30);

/// Returns the sequence of `INIT` to read from. If nothing there will do, asks for a new snapshot.
pub(crate) async fn ask_unless_there(
    remote: &Remote,
    wish: &Wish,
    cdc: StreamExtent,
) -> Result<u64, Error> {
    // Noted before looking and asking: whatever begins from now on is behind it.
    let next = remote.extent(&remote.names.init).await?.last_seq + 1;
    let table = wish.token.as_str();
    match find(remote, wish, cdc).await? {
        Some(found) => {
            tracing::debug!(table, from = found, "a snapshot is there already");
            Ok(found)
        }
        None => {
            tracing::info!(table, "asking for a snapshot");
            remote.ask_for_snapshot(&wish.token).await?;
            Ok(next)
        }
    }
}

async fn find(remote: &Remote, wish: &Wish, cdc: StreamExtent) -> Result<Option<u64>, Error> {
    let Some(begun) = last_begun(remote, &wish.token).await? else { return Ok(None) };
    if !good_enough(&begun.start, wish, cdc) {
        return Ok(None);
    }
    let will_do = match end(remote, &wish.token, &begun.start).await? {
        Some(End::Complete) => true,
        Some(End::Failed) => false,
        None => is_under_way(remote, &wish.token, &begun).await?,
    };
    Ok(will_do.then_some(begun.sequence))
}

/// The sequence of `INIT` at which the snapshot begins that has no end yet, if there is one. It may have been given up:
/// then it is superseded by the next.
pub(crate) async fn without_end(remote: &Remote, token: &Token) -> Result<Option<u64>, Error> {
    let Some(begun) = last_begun(remote, token).await? else { return Ok(None) };
    let end = end(remote, token, &begun.start).await?;
    Ok(end.is_none().then_some(begun.sequence))
}

/// A snapshot that is in the stream, or its beginning.
struct Begun {
    sequence: u64,
    /// Microseconds since 1970, by the server's clock.
    at: i64,
    start: InitStart,
}

enum End {
    Complete,
    Failed,
}

async fn last_begun(remote: &Remote, token: &Token) -> Result<Option<Begun>, Error> {
    let message = remote.last_of(&remote.names.init, &subjects::init_start(token)).await?;
    let Some(message) = message else { return Ok(None) };
    let Ok(start) = from_msgpack::<InitStart>(&message.payload) else { return Ok(None) };
    let (sequence, at) = (message.sequence, micros(message.time.unix_timestamp_nanos()));
    Ok(Some(Begun { sequence, at, start }))
}

/// How the snapshot that began last has ended, if it has.
async fn end(remote: &Remote, token: &Token, start: &InitStart) -> Result<Option<End>, Error> {
    let (init, id) = (&remote.names.init, &start.snapshot_id);
    if let Some(message) = remote.last_of(init, &subjects::init_meta(token)).await? {
        let meta = from_msgpack::<InitMeta>(&message.payload);
        if meta.is_ok_and(|meta| meta.start.snapshot_id == *id) {
            return Ok(Some(End::Complete));
        }
    }
    if let Some(message) = remote.last_of(init, &subjects::init_error(token)).await? {
        let error = from_msgpack::<InitError>(&message.payload);
        if error.is_ok_and(|error| error.snapshot_id.as_ref() == Some(id)) {
            return Ok(Some(End::Failed));
        }
    }
    Ok(None)
}

/// Whether something was heard lately of a snapshot that has no end.
async fn is_under_way(remote: &Remote, token: &Token, begun: &Begun) -> Result<bool, Error> {
    let chunks = subjects::init_snap_of(token, &begun.start.snapshot_id);
    let chunk = remote.last_of(&remote.names.init, &chunks).await?;
    let heard_at = chunk.map_or(begun.at, |chunk| micros(chunk.time.unix_timestamp_nanos()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let silent = now.saturating_sub(Duration::from_micros(heard_at.unsigned_abs()));
    Ok(silent < UNDER_WAY)
}

/// Whether its watermark will do and the stream still holds all changes behind it.
fn good_enough(start: &InitStart, wish: &Wish, cdc: StreamExtent) -> bool {
    wish.epoch.is_none_or(|epoch| start.epoch == epoch)
        && start.lsn >= wish.watermark
        && !wish.avoid.contains(&start.snapshot_id)
        && cdc.first_seq <= start.cdc_sequence + 1
        && start.cdc_sequence <= cdc.last_seq
}
