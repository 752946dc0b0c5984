//! Changes that come by XDR, against what is stored.

use perigee_wire::{Message, ResultCode, info2};

use super::{Request, Stop};
use crate::index::Entry;
use crate::namespace::Namespace;
use crate::record::image::{ImageView, image_flag};
use crate::stats::count;

/// How an accepted version stands to the one that is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Newer,
    /// Equal in time and generation, and of greater content than the stored one, which won so many ties itself.
    TieWon {
        before: u8,
    },
}

impl Namespace {
    /// Whether a change that came by XDR is newer than what is stored. The order is total, so that all sites agree:
    /// last-update time, then generation, then content.
    pub(super) fn check_conflict(
        &self,
        request: &Request<'_>,
        time: u64,
        stored: Option<&Entry>,
    ) -> Result<Standing, Stop> {
        let message = request.message;
        if !self.clock.accepts(time) {
            count(&self.stats.mine().fail_xdr_forbidden);
            return Err(ResultCode::Forbidden.into());
        }
        self.clock.observe(time);
        let Some(stored) = stored else {
            return Ok(Standing::Newer);
        };
        let generation = self.next_generation(message, Some(stored));
        match (time, generation).cmp(&(stored.last_update_time, stored.generation)) {
            std::cmp::Ordering::Greater => Ok(Standing::Newer),
            std::cmp::Ordering::Less => Err(ResultCode::LostConflict.into()),
            std::cmp::Ordering::Equal => {
                let wins = self.with_image(stored, request.copy.as_ref(), |view| {
                    content_of_message(message) > content_of_image(view)
                })?;
                if wins {
                    let before = stored.version().ties;
                    Ok(Standing::TieWon { before })
                } else {
                    Err(ResultCode::LostConflict.into())
                }
            }
        }
    }
}

/// What two versions of equal time and generation are compared by: a tombstone is less than any record, then bins in
/// name order. Both sides of a conflict compute the same from what they hold.
type Content<'a> = (bool, Vec<(&'a [u8], u8, &'a [u8])>);

fn content_of_message<'a>(message: &Message<'a>) -> Content<'a> {
    let record = message.header.info2 & info2::DELETE == 0;
    let mut bins: Vec<_> = message
        .ops
        .into_iter()
        .map(|op| (op.name, op.particle, op.value))
        .collect();
    bins.sort_unstable();
    (record, bins)
}

fn content_of_image<'a>(view: &ImageView<'a>) -> Content<'a> {
    let record = view.flags() & image_flag::TOMBSTONE == 0;
    let mut bins: Vec<_> = view
        .bins()
        .map(|bin| (bin.name, bin.particle, bin.value))
        .collect();
    bins.sort_unstable();
    (record, bins)
}
