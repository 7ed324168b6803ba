//! Loads: the records of rows that differ, which an index does not have.

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{KeyHash, RowFingerprint},
    host::yield_once,
    plan::digest::{Digested, Other},
    state::{PriorState, RowState},
};

/// Rows that are loaded together, or up to a piece more: in the order of their keys they share the inner pages of a state of
/// ten million rows.
const ROWS_GATHERED: usize = 16 * 1024;
/// Each call of the store gets so many of them.
const AT_ONCE: usize = 4096;
/// So many calls are under way at once for rows that are loaded together.
const CALLS_AT_ONCE: usize = 2;
/// The most pieces that wait for each other's records, and the memory that they take, or up to a piece more.
const PIECES_GATHERED: usize = 1024;
const BYTES_GATHERED: usize = 8 << 20;
/// So often rows are loaded together at once while others are read.
const LOADS_AT_ONCE: usize = 3;

/// Pieces that follow each other, and the records of those of their rows that differ.
pub(super) type Loaded = (Vec<Digested>, Vec<Option<RowState>>);

/// Has the records of some pieces loaded while those before them are planned.
pub(super) fn with_states<'a>(
    pieces: BoxStream<'a, Result<Digested>>,
    prior: &'a dyn PriorState,
) -> BoxStream<'a, Result<Loaded>> {
    gathered(pieces)
        .map(async |pieces| {
            let pieces = pieces?;
            let states = states(prior, &pieces).await?;
            Ok((pieces, states))
        })
        .buffered(LOADS_AT_ONCE)
        .boxed()
}

/// So many pieces together that there are many rows to load.
fn gathered(pieces: BoxStream<'_, Result<Digested>>) -> BoxStream<'_, Result<Vec<Digested>>> {
    stream::try_unfold(pieces, async |mut pieces| {
        let (mut gathered, mut rows, mut bytes): (Vec<Digested>, _, _) = (Vec::new(), 0, 0);
        while rows < ROWS_GATHERED && bytes < BYTES_GATHERED && gathered.len() < PIECES_GATHERED {
            let Some(digested) = pieces.try_next().await? else { break };
            rows += digested.known;
            bytes += digested.bytes + size_of_val(&*digested.unchanged);
            gathered.push(digested);
            // Pieces may be there without a wait, and others on this thread have their turn in between.
            yield_once().await;
        }
        Ok((!gathered.is_empty()).then_some((gathered, pieces)))
    })
    .boxed()
}

/// The records of rows that differ, which an index does not have.
pub(super) async fn states(prior: &dyn PriorState, pieces: &[Digested]) -> Result<Vec<Option<RowState>>> {
    let others = || pieces.iter().flat_map(|piece| &piece.others);
    let mut rows: Vec<_> = others().filter_map(Other::known).zip(0..).collect();
    rows.sort_unstable_by_key(|((hash, _), _)| *hash);
    let mut states: Vec<Option<RowState>> = rows.iter().map(|_| None).collect();
    let load = |part: &[((KeyHash, RowFingerprint), usize)]| {
        let (rows, places): (Vec<_>, Vec<_>) = part.iter().copied().unzip();
        async move { Ok::<_, Error>((places, answered(prior.load_scanned(&rows).await?, rows.len())?)) }
    };
    let mut loads = stream::iter(rows.chunks(AT_ONCE).map(load)).buffered(CALLS_AT_ONCE);
    while let Some((places, loaded)) = loads.try_next().await? {
        for (place, state) in places.into_iter().zip(loaded) {
            states[place] = state;
        }
        // A store may have its answers at once.
        yield_once().await;
    }
    let mut states = states.into_iter();
    Ok(others().map(|other| other.known().and_then(|_| states.next().flatten())).collect())
}

/// A store's answers, of which there has to be one for each question.
pub(super) fn answered<T>(answers: Vec<T>, asked: usize) -> Result<Vec<T>> {
    if answers.len() == asked {
        return Ok(answers);
    }
    let given = answers.len();
    Err(Error::new(
        ErrorKind::StateDamaged,
        format!("the store gave {given} answers where it was asked for {asked} rows: mend its `PriorState`"),
    ))
}
