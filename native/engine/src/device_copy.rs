//! Records read from a device while nothing was locked, and what it means when that fails.

use std::borrow::Cow;

use perigee_wire::Digest;

use crate::index::{Entry, Location};
use crate::namespace::Namespace;
use crate::record::compression::inflate;
use crate::record::image::{ImageView, image_flag};
use crate::storage::{AlignedBuf, ReadError};

/// The plain image of a record that was read from the device: in the buffer that it was read into, or inflated. Believed
/// only where the index still names this version.
pub struct DeviceCopy<'a> {
    location: Location,
    image: Cow<'a, [u8]>,
}

/// Why a record's bytes could not be had. It means nothing if the record has moved meanwhile: its block may have been
/// reused before it was read.
#[derive(Debug)]
pub struct Unread {
    pub location: Location,
    /// The device answered, but with bytes that are not the record's.
    pub damaged: bool,
    pub reason: String,
}

impl DeviceCopy<'_> {
    /// The image, if it is of the version that an entry names.
    pub(crate) fn image_of(&self, entry: &Entry) -> Option<ImageView<'_>> {
        let image = ImageView::trusted(&self.image);
        let is_it = self.location == entry.location
            && *image.digest() == entry.digest
            && image.version() == entry.version();
        is_it.then_some(image)
    }

    /// The same without the buffer.
    pub fn into_owned(self) -> DeviceCopy<'static> {
        DeviceCopy {
            location: self.location,
            image: Cow::Owned(self.image.into_owned()),
        }
    }
}

impl Namespace {
    /// Reads a record from the device into `buffer` and checks it. Blocks; call with no lock held. After an error, look
    /// at the index again: only if it still names the same location has the record become unreadable.
    pub fn read_device<'a>(
        &self,
        location: Location,
        buffer: &'a mut AlignedBuf,
    ) -> Result<DeviceCopy<'a>, Unread> {
        outcome(location, self.store.read_device(location, buffer))
    }

    /// As `read_device`, for pages that the caller has read: those of [`Store::record_read`](crate::storage::Store).
    pub fn finish_read<'a>(
        &self,
        location: Location,
        pages: &'a [u8],
        read: std::io::Result<()>,
    ) -> Result<DeviceCopy<'a>, Unread> {
        outcome(location, self.store.finish_read(location, pages, read))
    }

    /// Whether a failed read means that the record cannot be had. Then damage is counted and logged once for each block.
    /// Otherwise the record was elsewhere by then, and is to be looked up again.
    pub fn is_lost(&self, digest: &Digest, unread: &Unread) -> bool {
        let entry = self.partition(digest).lock().table.get(digest);
        if entry.is_none_or(|entry| entry.location != unread.location) {
            return false;
        }
        if unread.damaged {
            self.store.tell_damage(unread.location);
        }
        true
    }
}

fn outcome(
    location: Location,
    read: Result<ImageView<'_>, ReadError>,
) -> Result<DeviceCopy<'_>, Unread> {
    let image = read.map_err(|error| Unread {
        location,
        damaged: matches!(error, ReadError::Corrupt { .. }),
        reason: error.to_string(),
    })?;
    if image.flags() & image_flag::COMPRESSED == 0 {
        let image = Cow::Borrowed(image.bytes());
        return Ok(DeviceCopy { location, image });
    }
    let mut plain = Vec::new();
    // Here, since what does not inflate later would be asked for again and again.
    inflate(&image, &mut plain).map_err(|error| Unread {
        location,
        damaged: true,
        reason: error.to_string(),
    })?;
    Ok(DeviceCopy {
        location,
        image: Cow::Owned(plain),
    })
}
