//! The index of a large container: where every so many items begin, and for a map that is to be found by value, its pairs
//! in the order of their values. It is kept beside the value, so an operation on a few items does not walk all of them.
//!
//! ```text
//! index = u32 marks, u32 items by value (0 or all), marks * (u32 item, u32 offset in the body), items * u32
//! ```
//!
//! Little endian. The first mark is item 0 at offset 0; two marks are at most [`GROUP_MAX`] items apart.

use super::container::{Edit, Items, partition_point, split_pair};
use perigee_wire::msgpack::compare;
use std::ops::Range;

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

impl Mark {
    const FIRST: Mark = Mark { item: 0, offset: 0 };

    fn decode(bytes: &[u8; MARK_BYTES]) -> Mark {
        Mark {
            item: word(bytes, 0),
            offset: word(bytes, 4),
        }
    }

    fn encode(self) -> [u8; MARK_BYTES] {
        (u64::from(self.item) | u64::from(self.offset) << 32).to_le_bytes()
    }

    /// So far to the right, or by a wrapped negative to the left.
    fn moved(self, by: Mark) -> Mark {
        Mark {
            item: self.item.wrapping_add(by.item),
            offset: self.offset.wrapping_add(by.offset),
        }
    }
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
        let bytes = self.marks[at * MARK_BYTES..].first_chunk();
        Mark::decode(bytes.expect("within the index"))
    }

    /// Marks, as they are stored.
    fn marks_of(&self, range: Range<usize>) -> &'a [u8] {
        &self.marks[range.start * MARK_BYTES..range.end * MARK_BYTES]
    }

    /// Which of the marks behind the first one is the first that is not before an item.
    fn first_from(&self, item: usize) -> usize {
        partition_point(1, self.len(), |at| (self.mark(at).item as usize) < item)
    }

    /// The last mark at or before an item: which item it is of, and where that begins.
    fn before(&self, item: usize) -> (usize, usize) {
        let Mark { item, offset } = self.mark(self.first_from(item + 1) - 1);
        (item as usize, offset as usize)
    }

    /// The first of `items` in a body for which `is_before` does not hold. It holds for all before that.
    pub fn partition_point<'b>(
        &self,
        items: usize,
        body: &'b [u8],
        is_map: bool,
        is_before: impl Fn(&'b [u8]) -> bool,
    ) -> usize {
        let from = |mark: Mark| {
            let left = items.saturating_sub(mark.item as usize);
            Items::new(&body[mark.offset as usize..], left, is_map)
        };
        let next = partition_point(1, self.len(), |at| {
            from(self.mark(at)).next().is_some_and(&is_before)
        });
        let mark = self.mark(next - 1);
        mark.item as usize + from(mark).take_while(|item| is_before(item)).count()
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

/// An index that is being put together: room for its header, then its marks.
struct Marks<'b> {
    bytes: Vec<u8>,
    last: Mark,
    body: &'b [u8],
    is_map: bool,
}

impl<'b> Marks<'b> {
    /// With the mark of the first item. The index may come to so many bytes.
    fn begin(bytes: usize, body: &'b [u8], is_map: bool) -> Marks<'b> {
        let mut marks = Marks {
            bytes: Vec::with_capacity(bytes),
            last: Mark::FIRST,
            body,
            is_map,
        };
        marks.bytes.extend_from_slice(&[0; HEADER_BYTES]);
        marks.push(Mark::FIRST);
        marks
    }

    fn push(&mut self, mark: Mark) {
        self.bytes.extend_from_slice(&mark.encode());
        self.last = mark;
    }

    /// Puts marks between the last one and the next, which is to be at the item `to`, if they are too far apart.
    fn fill(&mut self, to: u32) {
        let Mark { item, mut offset } = self.last;
        if to - item <= GROUP_MAX as u32 {
            return;
        }
        let items = Items::new(
            &self.body[offset as usize..],
            (to - item) as usize,
            self.is_map,
        );
        for (item, bytes) in (item + 1..to).zip(items) {
            offset += bytes.len() as u32;
            let since = item - self.last.item;
            if since as usize == GROUP && to - item >= GROUP as u32 / 2 {
                self.push(Mark { item, offset });
            }
        }
    }

    /// Adds marks that follow one another in another index and have all moved as far.
    fn extend(&mut self, mut marks: &[u8], by: Mark) {
        // Where all went that lay before it, the first item has its mark already.
        if let Some(first) = marks.first_chunk()
            && Mark::decode(first).moved(by).item <= self.last.item
        {
            marks = &marks[MARK_BYTES..];
        }
        let (Some(first), Some(last)) = (marks.first_chunk(), marks.last_chunk()) else {
            return;
        };
        self.fill(Mark::decode(first).moved(by).item);
        let from = self.bytes.len();
        self.bytes.extend_from_slice(marks);
        for mark in self.bytes[from..].as_chunks_mut().0 {
            *mark = Mark::decode(mark).moved(by).encode();
        }
        self.last = Mark::decode(last).moved(by);
    }

    /// The index, of so many items. `by_value` is told the marks and gives the places of the items by value.
    fn finish(mut self, items: usize, by_value: impl FnOnce(&Index<'_>) -> Vec<u8>) -> Vec<u8> {
        self.fill(items as u32);
        let index = Index {
            marks: &self.bytes[HEADER_BYTES..],
            by_value: &[],
        };
        let marks = index.len() as u32;
        let by_value = by_value(&index);
        let places = (by_value.len() / PLACE_BYTES) as u32;
        self.bytes[..4].copy_from_slice(&marks.to_le_bytes());
        self.bytes[4..HEADER_BYTES].copy_from_slice(&places.to_le_bytes());
        self.bytes.extend_from_slice(&by_value);
        self.bytes
    }
}

fn index_bytes(marks: usize, places: usize) -> usize {
    HEADER_BYTES + marks * MARK_BYTES + places * PLACE_BYTES
}

fn encode(places: &[u32]) -> Vec<u8> {
    places
        .iter()
        .flat_map(|place| place.to_le_bytes())
        .collect()
}

/// The index of a container with these items in its body. `by_value` are the places of a map's pairs by value.
pub fn build(items: usize, body: &[u8], is_map: bool, by_value: Option<&[u32]>) -> Vec<u8> {
    let by_value = by_value.unwrap_or_default();
    let bytes = index_bytes(items / GROUP + 1, by_value.len());
    Marks::begin(bytes, body, is_map).finish(items, |_| encode(by_value))
}

/// Marks that a change is likely to add at most.
const NEW_MARKS: usize = 8;

/// What changes of a container do to its index.
pub struct Update<'e> {
    /// As [`Container::edited`](super::container::Container::edited) took them.
    pub edits: &'e [Edit<'e>],
    /// The bytes that each edit takes away.
    pub removed_bytes: &'e [usize],
    /// Items before and after, and the bodies.
    pub old_items: usize,
    pub items: usize,
    pub old_body: &'e [u8],
    pub body: &'e [u8],
    pub is_map: bool,
}

impl Update<'_> {
    /// The index after the changes.
    pub fn of(&self, old: &Index<'_>) -> Vec<u8> {
        let places = old.by_value().map_or(0, |_| self.items);
        let bytes = index_bytes(old.len() + NEW_MARKS, places);
        let mut marks = Marks::begin(bytes, self.body, self.is_map);
        let (mut next, mut moved) = (1, Mark::FIRST);
        for (edit, removed_bytes) in self.edits.iter().zip(self.removed_bytes) {
            // Marks before an edit stay where they are, those of items that it takes away go, those behind it move.
            marks.extend(old.marks_of(next..old.first_from(edit.at)), moved);
            next = old.first_from(edit.at + edit.removed);
            let inserted: usize = edit.inserted.iter().map(|item| item.len()).sum();
            moved = moved.moved(Mark {
                item: (edit.inserted.len() as u32).wrapping_sub(edit.removed as u32),
                offset: (inserted as u32).wrapping_sub(*removed_bytes as u32),
            });
        }
        marks.extend(old.marks_of(next..old.len()), moved);
        marks.finish(self.items, |index| {
            let Some(by_value) = old.by_value() else {
                return Vec::new();
            };
            match self.edits {
                [edit] => self.by_value_of_one(old, by_value, edit),
                _ => None,
            }
            .unwrap_or_else(|| encode(&self.by_value(by_value, index)))
        })
    }

    /// The places of the pairs by value after a change of one pair. None where the change is of more, or the order is not
    /// what it should be.
    fn by_value_of_one(
        &self,
        old: &Index<'_>,
        by_value: &[u8],
        edit: &Edit<'_>,
    ) -> Option<Vec<u8>> {
        if edit.removed > 1 || edit.inserted.len() > 1 {
            return None;
        }
        let ranks = self.old_items;
        // Of an old pair at the place of the edit, and of a new one there: pairs of equal value are in the order of their places.
        let rank_of = |value: &[u8]| {
            partition_point(0, ranks, |rank| {
                let place = place_at(by_value, rank);
                compare(value_at(old, self.old_body, self.is_map, place), value)
                    .then(place.cmp(&edit.at))
                    .is_lt()
            })
        };
        let gone = if edit.removed == 0 {
            ranks..ranks
        } else {
            let rank = rank_of(value_at(old, self.old_body, self.is_map, edit.at));
            if rank == ranks || place_at(by_value, rank) != edit.at {
                return None;
            }
            rank..rank + 1
        };
        let inserted = edit.inserted.first();
        let inserted = inserted.map(|item| rank_of(value_of(item, self.is_map)));
        let moved = (edit.inserted.len() as u32).wrapping_sub(edit.removed as u32);
        let mut out = Vec::with_capacity(self.items * PLACE_BYTES);
        let at = edit.at as u32;
        let copy = |out: &mut Vec<u8>, ranks: Range<usize>| {
            let from = out.len();
            out.extend_from_slice(&by_value[ranks.start * PLACE_BYTES..ranks.end * PLACE_BYTES]);
            // Places come in any order, so a branch would be taken half of the times.
            for bytes in out[from..].as_chunks_mut().0 {
                let place = u32::from_le_bytes(*bytes);
                let is_behind = u32::from(place >= at);
                *bytes = place
                    .wrapping_add(moved & is_behind.wrapping_neg())
                    .to_le_bytes();
            }
        };
        let copy_kept = |out: &mut Vec<u8>, part: Range<usize>| {
            let within = |rank: usize| rank.clamp(part.start, part.end);
            copy(out, part.start..within(gone.start));
            copy(out, within(gone.end)..part.end);
        };
        let cut = inserted.unwrap_or(ranks);
        copy_kept(&mut out, 0..cut);
        if inserted.is_some() {
            out.extend_from_slice(&at.to_le_bytes());
        }
        copy_kept(&mut out, cut..ranks);
        Some(out)
    }

    /// The places of the pairs by value after the changes, of which `index` has the marks.
    fn by_value(&self, old: &[u8], index: &Index<'_>) -> Vec<u32> {
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
        let value = |place: u32| value_at(index, self.body, self.is_map, place as usize);
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
pub fn span_of(index: &Index<'_>, body: &[u8], is_map: bool, item: usize) -> Range<usize> {
    let (from, offset) = index.before(item);
    let mut items = Items::new(&body[offset..], 1 + item - from, is_map);
    let before = items.by_ref().take(item - from);
    let start = offset + before.map(<[u8]>::len).sum::<usize>();
    start..start + items.next().map_or(0, <[u8]>::len)
}

fn value_at<'b>(index: &Index<'_>, body: &'b [u8], is_map: bool, item: usize) -> &'b [u8] {
    value_of(&body[span_of(index, body, is_map, item)], is_map)
}

fn value_of(item: &[u8], is_map: bool) -> &[u8] {
    if is_map { split_pair(item).1 } else { item }
}
