//! Record images: as damaged memory, as what was written, and with a compressed part that is not what it says.

use crate::part::{choice, split};
use perigee_engine::record::compression::{
    Compression, CompressionKind, compress, inflate, with_plain,
};
use perigee_engine::record::image::{
    IMAGE_UNIT_BYTES, ImageBuilder, ImageHeader, ImageView, RECORD_BYTES_MAX, image_flag, seal,
};

const SEQUENCE: u64 = 7;

pub(crate) fn run(data: &[u8]) {
    match choice(data, 3) {
        Some((0, data)) => look(&ImageView::trusted(data)),
        Some((1, data)) => written(data),
        Some((_, data)) => damaged(data),
        None => {}
    }
}

/// All that an image says. Values may be wrong; nothing may lie beyond its end.
pub(crate) fn look(view: &ImageView<'_>) {
    let _ = (view.set_name(), view.key(), view.digest(), view.version());
    let _ = (view.void_time(), view.generation(), view.last_update_time());
    let mut bins = 0;
    for bin in view.bins() {
        bins += 1;
        assert!(bin.name.len() + bin.value.len() <= view.bytes().len());
    }
    assert!(bins <= view.n_bins());
    let _ = with_plain(view, |plain| {
        assert!(plain.bytes().len() <= RECORD_BYTES_MAX.next_multiple_of(IMAGE_UNIT_BYTES));
        assert!(plain.bins().count() <= plain.n_bins());
    });
}

/// Name, particle type, value, and the index that is kept beside it.
type Bin<'d> = (&'d [u8], u8, &'d [u8], Option<&'d [u8]>);
/// Set, key, bins.
type Content<'d> = (&'d [u8], Option<&'d [u8]>, Vec<Bin<'d>>);

fn take<'d>(rest: &mut &'d [u8], bytes: usize) -> &'d [u8] {
    let (taken, after) = rest.split_at(bytes.min(rest.len()));
    *rest = after;
    taken
}

fn content(data: &[u8]) -> Option<Content<'_>> {
    let ([set, key, n_bins], mut rest) = data.split_first_chunk::<3>()?;
    let set_name = take(&mut rest, usize::from(set % 64));
    let user_key = (key % 2 == 1).then(|| take(&mut rest, usize::from(key / 2)));
    let mut bins = Vec::new();
    for _ in 0..n_bins % 16 {
        let [kind, name] = *take(&mut rest, 2).first_chunk::<2>()?;
        let name = take(&mut rest, usize::from(name % 16));
        let (value, after) = split(rest)?;
        rest = after;
        let index = (kind & 0x80 != 0).then_some(&value[value.len() / 2..]);
        bins.push((name, kind & 0x7f, value, index));
    }
    Some((set_name, user_key, bins))
}

fn header() -> ImageHeader {
    ImageHeader {
        digest: [9; 20],
        last_update_time: 123_456_789_012,
        generation: 65_535,
        void_time: 99,
        flags: image_flag::XDR_WRITE,
    }
}

fn build((set, key, bins): &Content<'_>) -> Vec<u8> {
    let mut image = Vec::new();
    let mut builder = ImageBuilder::begin(&mut image, &header(), set, *key);
    for (name, kind, value, index) in bins {
        builder.indexed_bin(name, *kind, value, *index);
    }
    builder.finish();
    image
}

fn compressions() -> [Compression; 2] {
    [CompressionKind::Lz4, CompressionKind::Zstd].map(|algorithm| Compression {
        algorithm,
        level: 1,
    })
}

fn written(data: &[u8]) {
    let Some(content) = content(data) else { return };
    let mut plain = build(&content);
    seal(&mut plain, SEQUENCE);
    same_content(&plain, &content);
    for with in compressions() {
        let mut stored = Vec::new();
        if !compress(&plain, with, &mut stored) {
            continue;
        }
        assert!(stored.len() < plain.len());
        seal(&mut stored, SEQUENCE);
        let view = ImageView::verify(&stored, Some(SEQUENCE)).expect("an image");
        let mut again = Vec::new();
        inflate(&view, &mut again).expect("what was compressed");
        seal(&mut again, SEQUENCE);
        assert_eq!(again, plain);
    }
}

fn same_content(image: &[u8], (set, key, bins): &Content<'_>) {
    let view = ImageView::verify(image, Some(SEQUENCE)).expect("an image that was just sealed");
    assert_eq!((view.set_name(), view.key()), (*set, *key));
    let found: Vec<_> = view
        .bins()
        .map(|bin| (bin.name, bin.particle, bin.value, bin.index))
        .collect();
    assert_eq!(&found, bins);
    assert_eq!(view.generation(), header().generation);
    assert_eq!(view.last_update_time(), header().last_update_time);
}

/// Bytes of a sealed image in its compressed form are changed, and the checksum with them.
fn damaged(data: &[u8]) {
    let long = b"compressible ".repeat(40);
    let Some((edits, data)) = split(data) else {
        return;
    };
    let Some(mut content) = content(data) else {
        return;
    };
    content.2.push((b"long", 3, &long, None));
    let plain = build(&content);
    for with in compressions() {
        let mut stored = Vec::new();
        if !compress(&plain, with, &mut stored) {
            continue;
        }
        for [high, low, value] in edits.as_chunks::<3>().0 {
            let at = usize::from(u16::from_be_bytes([*high, *low])) % stored.len();
            stored[at] = *value;
        }
        seal(&mut stored, SEQUENCE);
        if let Ok(view) = ImageView::verify(&stored, Some(SEQUENCE)) {
            look(&view);
        }
    }
}
