//! The index of a large container: where every so many items begin, and for a map that is to be found by value, its pairs
//! in the order of their values. It is kept beside the value, so an operation on a few items does not walk all of them.
//!
//! ```text
//! index = u32 marks, u32 items by value (0 or all), marks * (u32 item, u32 offset in the body), items * u32
//! ```
//!
//! Little endian. The first mark is item 0 at offset 0; two marks are at most [`GROUP_MAX`] items apart.

use super::container::Edit;
use perigee_wire::msgpack::{Reader, compare};

/// Containers of fewer items are walked.
pub const INDEXED_ITEMS_MIN: usize = 128;
/// Items between marks when an index is made.
const GROUP: usize = 16;
/// Items between marks at most, after changes.
const GROUP_MAX: usize = 32;

const HEADER_BYTES: usize = 8;
const MARK_BYTES: usize = 8;
const PLACE_BYTES: usize = 4;

/// A stored index. What it says was checked with the record's checksum.
#[derive(Clone, Copy)]
pub struct Index<'a> {
    marks: &'a [u8],
    by_value: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    item: u32,
    offset: u32,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let chunk = bytes[at..].first_chunk().expect("within the index");
    u32::from_le_bytes(*chunk)
}

impl<'a> Index<'a> {
    /// None if the bytes are no index.
    pub fn parse(bytes: &'a [u8]) -> Option<Index<'a>> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let marks = word(header, 0) as usize * MARK_BYTES;
        let by_value = word(header, 4) as usize * PLACE_BYTES;
        if marks == 0 || rest.len() != marks + by_value {
            return None;
        }
        let (marks, by_value) = rest.split_at(marks);
        Some(Index { marks, by_value })
    }

    fn len(&self) -> usize {
        self.marks.len() / MARK_BYTES
    }

    fn mark(&self, at: usize) -> Mark {
        Mark {
            item: word(self.marks, at * MARK_BYTES),
            offset: word(self.marks, at * MARK_BYTES + 4),
        }
    }

    /// The last mark at or before an item: which item it is of, and where that begins.
    pub fn before(&self, item: usize) -> (usize, usize) {
        let (mut low, mut high) = (1, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.mark(middle).item as usize <= item {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Mark { item, offset } = self.mark(low - 1);
        (item as usize, offset as usize)
    }

    /// Places of the items by value, four bytes each; None if the index has no such order.
    pub fn by_value(&self) -> Option<&'a [u8]> {
        (!self.by_value.is_empty()).then_some(self.by_value)
    }
}

/// The place that stands at a rank in what [`Index::by_value`] returned.
pub fn place_at(by_value: &[u8], rank: usize) -> usize {
    word(by_value, rank * PLACE_BYTES) as usize
}

/// Where items begin, of those in a part of a body.
struct Walk<'b> {
    reader: Reader<'b>,
    values: usize,
}

impl Walk<'_> {
    /// The length of the next item.
    fn next(&mut self) -> usize {
        let before = self.reader.offset();
        for _ in 0..self.values {
            if self.reader.skip().is_err() {
                break;
            }
        }
        self.reader.offset() - before
    }
}

/// Puts marks between `from` and the next mark at `to`, if they are too far apart.
fn split_group(marks: &mut Vec<Mark>, from: Mark, to: u32, body: &[u8], is_map: bool) {
    marks.push(from);
    if to - from.item <= GROUP_MAX as u32 {
        return;
    }
    let mut walk = Walk {
        reader: Reader::new(&body[from.offset as usize..]),
        values: 1 + usize::from(is_map),
    };
    let mut offset = from.offset;
    for item in from.item + 1..to {
        offset += walk.next() as u32;
        let since = item - marks.last().expect("one was pushed").item;
        if since as usize == GROUP && to - item >= GROUP as u32 / 2 {
            marks.push(Mark { item, offset });
        }
    }
}

/// The index of a container with these items in its body. `by_value` are the places of a map's pairs by value.
pub fn build(items: usize, body: &[u8], is_map: bool, by_value: Option<&[u32]>) -> Vec<u8> {
    let mut marks = Vec::with_capacity(items / GROUP + 1);
    let first = Mark { item: 0, offset: 0 };
    split_group(&mut marks, first, items as u32, body, is_map);
    encode(&marks, by_value.unwrap_or_default())
}

fn encode(marks: &[Mark], by_value: &[u32]) -> Vec<u8> {
    let bytes = HEADER_BYTES + marks.len() * MARK_BYTES + by_value.len() * PLACE_BYTES;
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(&(marks.len() as u32).to_le_bytes());
    out.extend_from_slice(&(by_value.len() as u32).to_le_bytes());
    for mark in marks {
        out.extend_from_slice(&mark.item.to_le_bytes());
        out.extend_from_slice(&mark.offset.to_le_bytes());
    }
    for place in by_value {
        out.extend_from_slice(&place.to_le_bytes());
    }
    out
}

/// What changes of a container do to its index.
pub struct Update<'e> {
    /// As [`Container::edited`](super::container::Container::edited) took them.
    pub edits: &'e [Edit<'e>],
    /// The bytes that each edit takes away.
    pub removed_bytes: &'e [usize],
    /// Items before and after, and the body after.
    pub old_items: usize,
    pub items: usize,
    pub body: &'e [u8],
    pub is_map: bool,
}

impl Update<'_> {
    /// The index after the changes.
    pub fn of(&self, old: &Index<'_>) -> Vec<u8> {
        let mut kept = vec![Mark { item: 0, offset: 0 }];
        let (mut edit, mut items, mut bytes) = (0, 0_i64, 0_i64);
        for at in 1..old.len() {
            let mark = old.mark(at);
            // Edits before the mark move it. One that takes its item away takes the mark with it.
            let mut is_gone = false;
            while let Some(next) = self.edits.get(edit) {
                if next.at > mark.item as usize {
                    break;
                }
                if next.at + next.removed > mark.item as usize {
                    is_gone = true;
                    break;
                }
                let inserted: usize = next.inserted.iter().map(|item| item.len()).sum();
                items += next.inserted.len() as i64 - next.removed as i64;
                bytes += inserted as i64 - self.removed_bytes[edit] as i64;
                edit += 1;
            }
            let moved = Mark {
                item: (i64::from(mark.item) + items) as u32,
                offset: (i64::from(mark.offset) + bytes) as u32,
            };
            if !is_gone && moved.item > kept.last().map_or(0, |last| last.item) {
                kept.push(moved);
            }
        }
        let mut marks = Vec::with_capacity(kept.len() + 4);
        for (at, mark) in kept.iter().enumerate() {
            let to = kept.get(at + 1).map_or(self.items as u32, |next| next.item);
            split_group(&mut marks, *mark, to, self.body, self.is_map);
        }
        match old.by_value() {
            Some(by_value) => encode(&marks, &self.by_value(by_value, &marks)),
            None => encode(&marks, &[]),
        }
    }

    /// The places of the pairs by value after the changes.
    fn by_value(&self, old: &[u8], marks: &[Mark]) -> Vec<u32> {
        // Where each old place is now; those that are gone have none.
        let mut moved = Vec::with_capacity(self.old_items);
        let mut now = 0_u32;
        let mut new_places = Vec::new();
        for Edit {
            at,
            removed,
            inserted,
        } in self.edits
        {
            while moved.len() < *at {
                moved.push(now);
                now += 1;
            }
            moved.resize(at + removed, u32::MAX);
            for _ in inserted {
                new_places.push(now);
                now += 1;
            }
        }
        while moved.len() < self.old_items {
            moved.push(now);
            now += 1;
        }
        let mut by_value: Vec<u32> = (0..old.len() / PLACE_BYTES)
            .map(|rank| moved[place_at(old, rank)])
            .filter(|place| *place != u32::MAX)
            .collect();
        let encoded = encode(marks, &[]);
        let index = Index::parse(&encoded).expect("just made");
        let value = |place: u32| value_at(&index, self.body, self.is_map, place as usize);
        if new_places.len() > by_value.len() / 8 {
            by_value.extend(new_places);
            by_value.sort_by(|a, b| compare(value(*a), value(*b)).then(a.cmp(b)));
            return by_value;
        }
        for place in new_places {
            let new = value(place);
            let rank = by_value.partition_point(|other| {
                compare(value(*other), new).then(other.cmp(&place)).is_lt()
            });
            by_value.insert(rank, place);
        }
        by_value
    }
}

/// Where an item lies.
pub fn span_of(
    index: &Index<'_>,
    body: &[u8],
    is_map: bool,
    item: usize,
) -> std::ops::Range<usize> {
    let (from, offset) = index.before(item);
    let mut walk = Walk {
        reader: Reader::new(&body[offset..]),
        values: 1 + usize::from(is_map),
    };
    let mut start = offset;
    for _ in from..item {
        start += walk.next();
    }
    start..start + walk.next()
}

fn value_at<'b>(index: &Index<'_>, body: &'b [u8], is_map: bool, item: usize) -> &'b [u8] {
    let item = &body[span_of(index, body, is_map, item)];
    if is_map {
        super::container::split_pair(item).1
    } else {
        item
    }
}
