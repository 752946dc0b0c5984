//! A list or a map as it is stored: where its items lie, in which orders they can be met, and how a changed one is put
//! together. Stored containers are canonical (see [`msgpack::canonical`]): what says that it is ordered is.

use super::index::{INDEXED_ITEMS_MIN, Index, Update, build, place_at, span_of};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::{Reader, Value, Writer, compare, order, read_order};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

/// Items are the elements of a list, or the pairs of a map. They are counted as they lie: an ordered container's by its
/// order, an unordered one's as they were added. What clients call the *index* of a pair in an unordered map is its
/// place by key.
pub struct Container<'a> {
    pub is_map: bool,
    /// One of [`order`].
    pub order: u8,
    len: usize,
    body: &'a [u8],
    offsets: Offsets<'a>,
    by_key: OnceCell<Vec<u32>>,
    by_value: OnceCell<Vec<u32>>,
}

/// Where items begin.
enum Offsets<'a> {
    /// Each of them, and at last where the last one ends.
    All(Vec<u32>),
    Index(Index<'a>),
}

/// Items by some order, named by where they lie.
#[derive(Clone, Copy)]
pub enum Order<'c> {
    /// As they lie.
    Lying,
    Sorted(&'c [u32]),
    Stored(&'c [u8]),
}

impl Order<'_> {
    /// Where the item lies that has this place in the order.
    pub fn at(&self, place: usize) -> usize {
        match self {
            Order::Lying => place,
            Order::Sorted(order) => order[place] as usize,
            Order::Stored(order) => place_at(order, place),
        }
    }

    pub fn is_lying(&self) -> bool {
        matches!(self, Order::Lying)
    }
}

/// A change of a container: at `at`, `removed` items go and `inserted` come.
pub struct Edit<'e> {
    pub at: usize,
    pub removed: usize,
    pub inserted: Vec<Cow<'e, [u8]>>,
}

impl<'a> Container<'a> {
    /// The container that `bytes` are. INCOMPATIBLE_TYPE if they are a scalar.
    pub fn parse(bytes: &'a [u8]) -> Result<Container<'a>, ResultCode> {
        Container::with_index(bytes, None)
    }

    /// As `parse`, of a value with the index that was kept with it.
    pub fn with_index(
        bytes: &'a [u8],
        index: Option<&'a [u8]>,
    ) -> Result<Container<'a>, ResultCode> {
        let mut reader = Reader::new(bytes);
        let (counted, is_map) = match reader.read() {
            Ok(Value::Array(elements)) => (elements, false),
            Ok(Value::Map(pairs)) => (pairs, true),
            _ => return Err(ResultCode::IncompatibleType),
        };
        let damaged = |_| ResultCode::Unknown;
        let (len, order) = read_order(&mut reader, counted, is_map).map_err(damaged)?;
        let mut body = reader.rest();
        let offsets = match index.and_then(Index::parse) {
            Some(index) => Offsets::Index(index),
            None => {
                let before = reader.offset();
                let mut starts = Vec::with_capacity(len as usize + 1);
                for _ in 0..len {
                    starts.push((reader.offset() - before) as u32);
                    reader.skip().map_err(damaged)?;
                    if is_map {
                        reader.skip().map_err(damaged)?;
                    }
                }
                starts.push((reader.offset() - before) as u32);
                body = &body[..reader.offset() - before];
                Offsets::All(starts)
            }
        };
        Ok(Container {
            is_map,
            order,
            len: len as usize,
            body,
            offsets,
            by_key: OnceCell::new(),
            by_value: OnceCell::new(),
        })
    }

    /// One without items.
    pub fn empty(is_map: bool, order: u8) -> Container<'static> {
        Container {
            is_map,
            order,
            len: 0,
            body: &[],
            offsets: Offsets::All(vec![0]),
            by_key: OnceCell::new(),
            by_value: OnceCell::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn is_ordered(&self) -> bool {
        self.order != order::UNORDERED
    }

    fn span(&self, at: usize) -> Range<usize> {
        match &self.offsets {
            Offsets::All(starts) => starts[at] as usize..starts[at + 1] as usize,
            Offsets::Index(index) => span_of(index, self.body, self.is_map, at),
        }
    }

    /// Where an item begins; of the number of items, where they end.
    fn start(&self, at: usize) -> usize {
        if at == self.len {
            self.body.len()
        } else {
            self.span(at).start
        }
    }

    /// The bytes of an item: an element, or a key and its value.
    pub fn item(&self, at: usize) -> &'a [u8] {
        &self.body[self.span(at)]
    }

    /// All items, as they lie.
    pub fn items(&self) -> Items<'a> {
        Items::new(self.body, self.len, self.is_map)
    }

    /// Some of the items, as they lie.
    pub fn range(&self, range: Range<usize>) -> Items<'a> {
        let start = self.start(range.start.min(self.len));
        Items::new(&self.body[start..], range.len(), self.is_map)
    }

    /// All items by an order.
    pub fn in_order(&self, order: Order<'_>) -> impl ExactSizeIterator<Item = &'a [u8]> {
        // One pass over the items, so that an index does not have to find each.
        let items: Vec<_> = self.items().collect();
        let ordered: Vec<_> = (0..self.len).map(|place| items[order.at(place)]).collect();
        ordered.into_iter()
    }

    /// What the container is ordered by: an element, or a pair's key.
    pub fn key(&self, at: usize) -> &'a [u8] {
        self.key_of(self.item(at))
    }

    pub fn key_of<'i>(&self, item: &'i [u8]) -> &'i [u8] {
        if self.is_map {
            split_pair(item).0
        } else {
            item
        }
    }

    /// An element, or a pair's value.
    pub fn value(&self, at: usize) -> &'a [u8] {
        self.value_of(self.item(at))
    }

    pub fn value_of<'i>(&self, item: &'i [u8]) -> &'i [u8] {
        if self.is_map {
            split_pair(item).1
        } else {
            item
        }
    }

    /// Items by index: as they lie in a list, by key in a map.
    pub fn by_index(&self) -> Order<'_> {
        if !self.is_map || self.is_ordered() {
            return Order::Lying;
        }
        Order::Sorted(self.by_key.get_or_init(|| {
            let keys: Vec<_> = self.items().map(|item| self.key_of(item)).collect();
            self.sorted(&keys)
        }))
    }

    /// Items by rank: by value, equal ones by index.
    pub fn by_rank(&self) -> Order<'_> {
        if !self.is_map && self.is_ordered() {
            return Order::Lying;
        }
        if let Offsets::Index(index) = &self.offsets
            && let Some(by_value) = index.by_value()
        {
            return Order::Stored(by_value);
        }
        Order::Sorted(self.by_value.get_or_init(|| {
            let values: Vec<_> = self.items().map(|item| self.value_of(item)).collect();
            match self.by_index() {
                Order::Sorted(by_index) => {
                    let mut sorted = by_index.to_vec();
                    sorted.sort_by(|a, b| compare(values[*a as usize], values[*b as usize]));
                    sorted
                }
                _ => self.sorted(&values),
            }
        }))
    }

    fn sorted(&self, by: &[&[u8]]) -> Vec<u32> {
        let mut sorted: Vec<u32> = (0..self.len as u32).collect();
        sorted.sort_by(|a, b| compare(by[*a as usize], by[*b as usize]));
        sorted
    }

    /// The place in an order of the first item for which `is_before` does not hold. It holds for all before that.
    pub fn partition_point(&self, order: Order<'_>, is_before: impl Fn(&'a [u8]) -> bool) -> usize {
        match &self.offsets {
            Offsets::Index(index) if order.is_lying() => {
                index.partition_point(self.len, self.body, self.is_map, is_before)
            }
            _ => partition_point(0, self.len, |place| is_before(self.item(order.at(place)))),
        }
    }

    /// The place of an item among the items by rank.
    pub fn rank(&self, at: usize) -> usize {
        let (order, value) = (self.by_rank(), self.value(at));
        if order.is_lying() {
            return at;
        }
        let first = self.partition_point(order, |item| compare(self.value_of(item), value).is_lt());
        (first..self.len)
            .find(|rank| order.at(*rank) == at)
            .unwrap_or(first)
    }

    /// Where the items lie whose keys (a list's: elements) equal `key`, in an ordered container; of an empty range, where
    /// such an item belongs.
    pub fn equal_range(&self, key: &[u8]) -> Range<usize> {
        let start = self.lower_bound(key);
        let same = |at: &usize| compare(self.key(*at), key).is_eq();
        // Where keys are unique, or nearly so, looking at neighbours beats another search.
        let few = (start..self.len()).take(4).take_while(same).count();
        let end = if few < 4 {
            start + few
        } else {
            self.partition_point(Order::Lying, |item| compare(self.key_of(item), key).is_le())
        };
        start..end
    }

    /// The first item of an ordered container whose key is not less.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        self.partition_point(Order::Lying, |item| compare(self.key_of(item), key).is_lt())
    }

    /// Where a pair lies, by its key; or where it belongs.
    pub fn find_key(&self, key: &[u8]) -> Result<usize, usize> {
        if self.is_ordered() {
            let found = self.equal_range(key);
            return if found.is_empty() {
                Err(found.start)
            } else {
                Ok(found.start)
            };
        }
        self.items()
            .position(|item| compare(self.key_of(item), key).is_eq())
            .ok_or(self.len)
    }

    /// As `find_key`, for whoever looks for many: an unordered map is sorted for it once.
    pub fn find_key_of_many(&self, key: &[u8]) -> Result<usize, usize> {
        let by_index = self.by_index();
        if by_index.is_lying() {
            return self.find_key(key);
        }
        let place = self.partition_point(by_index, |item| compare(self.key_of(item), key).is_lt());
        let found = (place < self.len).then(|| by_index.at(place));
        found
            .filter(|at| compare(self.key(*at), key).is_eq())
            .ok_or(self.len)
    }

    /// Whether there is an element, or a pair's value, for whoever asks for many: it is sorted for it once.
    pub fn has_value_of_many(&self, value: &[u8]) -> bool {
        let by_rank = self.by_rank();
        let rank =
            self.partition_point(by_rank, |item| compare(self.value_of(item), value).is_lt());
        rank < self.len && compare(self.value(by_rank.at(rank)), value).is_eq()
    }

    /// The container after some changes, which are sorted by where they are, do not overlap, and keep to its order.
    pub fn edited(&self, edits: &[Edit<'_>]) -> Edited {
        let mut removed_bytes = Vec::with_capacity(edits.len());
        let (mut items, mut bytes) = (self.len, self.body.len());
        let mut spans = Vec::with_capacity(edits.len());
        for edit in edits {
            let start = self.start(edit.at);
            let end = match edit.removed {
                0 => start,
                1 => self.span(edit.at).end,
                removed => self.start(edit.at + removed),
            };
            spans.push(start..end);
            removed_bytes.push(end - start);
            items = items - edit.removed + edit.inserted.len();
            bytes += edit.inserted.iter().map(|item| item.len()).sum::<usize>();
        }
        let mut out = Vec::with_capacity(bytes + HEAD_BYTES_MAX);
        Writer::new(&mut out).container(self.is_map, self.order, items as u32);
        let head = out.len();
        let mut copied = 0;
        for (edit, span) in edits.iter().zip(spans) {
            out.extend_from_slice(&self.body[copied..span.start]);
            for item in &edit.inserted {
                out.extend_from_slice(item);
            }
            copied = span.end;
        }
        out.extend_from_slice(&self.body[copied..]);
        let index = match &self.offsets {
            Offsets::Index(index) if items >= INDEXED_ITEMS_MIN => {
                let update = Update {
                    edits,
                    removed_bytes: &removed_bytes,
                    old_items: self.len,
                    items,
                    old_body: self.body,
                    body: &out[head..],
                    is_map: self.is_map,
                };
                Some(update.of(index))
            }
            _ => None,
        };
        Edited { bytes: out, index }
    }

    /// The container without some of its items, given in the order in which they lie.
    pub fn without(&self, removed: impl Iterator<Item = usize>) -> Edited {
        let mut edits: Vec<Edit<'_>> = Vec::new();
        for at in removed {
            match edits.last_mut() {
                Some(last) if last.at + last.removed == at => last.removed += 1,
                _ => edits.push(Edit {
                    at,
                    removed: 1,
                    inserted: Vec::new(),
                }),
            }
        }
        self.edited(&edits)
    }
}

/// A container after changes, and its index if the one before had one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edited {
    pub bytes: Vec<u8>,
    pub index: Option<Vec<u8>>,
}

/// The items of a container, one after the other.
pub struct Items<'a> {
    reader: Reader<'a>,
    left: usize,
    values: usize,
}

impl<'a> Items<'a> {
    /// So many items, elements or pairs, that a body begins with.
    pub(super) fn new(body: &'a [u8], items: usize, is_map: bool) -> Items<'a> {
        Items {
            reader: Reader::new(body),
            left: items,
            values: 1 + usize::from(is_map),
        }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let rest = self.reader.rest();
        let before = self.reader.offset();
        for _ in 0..self.values {
            self.reader.skip().ok()?;
        }
        Some(&rest[..self.reader.offset() - before])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Items<'_> {}

/// The index of a stored container, if it has so many items that one pays.
pub fn index_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let counted = match Reader::new(bytes).read() {
        Ok(Value::Array(counted) | Value::Map(counted)) => counted as usize,
        _ => 0,
    };
    if counted < INDEXED_ITEMS_MIN {
        return None;
    }
    let container = Container::parse(bytes).ok()?;
    if container.len < INDEXED_ITEMS_MIN {
        return None;
    }
    let by_value = match (container.order, container.by_rank()) {
        (order::KEY_VALUE, Order::Sorted(by_value)) => Some(by_value),
        _ => None,
    };
    Some(build(
        container.len,
        container.body,
        container.is_map,
        by_value,
    ))
}

/// Bytes of a header: count and order.
const HEAD_BYTES_MAX: usize = 9;

/// A container of these items, which are in its order.
pub fn of_items<'i>(
    is_map: bool,
    order: u8,
    items: impl ExactSizeIterator<Item = &'i [u8]>,
) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).container(is_map, order, items.len() as u32);
    items.for_each(|item| out.extend_from_slice(item));
    out
}

/// A pair's key and value.
pub fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    let key = Reader::new(pair).skip().map_or(0, <[u8]>::len);
    pair.split_at(key)
}

pub(super) fn partition_point(from: usize, to: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (from, to);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
