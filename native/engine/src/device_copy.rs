//! Records read from a device while nothing was locked, and what it means when that fails.

use perigee_wire::{Digest, Message};

use crate::index::Location;
use crate::namespace::Namespace;
use crate::record::compression::with_plain;
use crate::record::image::ImageView;
use crate::storage::{AlignedBuf, ReadError};

/// A record's image as the device holds it, in the buffer that it was read into. Believed only where the index still
/// names this version.
#[derive(Clone, Copy)]
pub struct DeviceCopy<'a> {
    pub(crate) location: Location,
    pub(crate) image: ImageView<'a>,
}

/// A [`DeviceCopy`] that outlives its buffer.
pub struct KeptCopy {
    location: Location,
    image: Box<[u8]>,
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
    pub fn keep(&self) -> KeptCopy {
        KeptCopy {
            location: self.location,
            image: self.image.bytes().into(),
        }
    }
}

impl KeptCopy {
    pub fn view(&self) -> DeviceCopy<'_> {
        DeviceCopy {
            location: self.location,
            image: ImageView::trusted(&self.image),
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

    /// Whether a failed read means that the record cannot be had. Then the request that met it is counted as an error,
    /// and damage is counted and logged once for each block. Otherwise the record was elsewhere by then, and is to be
    /// looked up again.
    pub fn is_lost(&self, message: &Message<'_>, digest: &Digest, unread: &Unread) -> bool {
        let entry = self.partition(digest).lock().table.get(digest);
        if entry.is_none_or(|entry| entry.location != unread.location) {
            return false;
        }
        if unread.damaged {
            self.store.tell_damage(unread.location);
        }
        self.count_unread(message);
        true
    }
}

fn outcome(
    location: Location,
    read: Result<ImageView<'_>, ReadError>,
) -> Result<DeviceCopy<'_>, Unread> {
    match read {
        // A copy that does not inflate would be asked for again and again.
        Ok(image) => match with_plain(&image, |_| ()) {
            Ok(()) => Ok(DeviceCopy { location, image }),
            Err(error) => Err(Unread {
                location,
                damaged: true,
                reason: error.to_string(),
            }),
        },
        Err(error) => Err(Unread {
            location,
            damaged: matches!(error, ReadError::Corrupt { .. }),
            reason: error.to_string(),
        }),
    }
}
