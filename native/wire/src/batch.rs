//! The rows of a batch command, the data of its BATCH field (section 9).
//!
//! ```text
//! batch = u32 rows, u8 flags (batch_flag), row*
//! row   = u32 index, digest, u8 type (batch_row), and unless it repeats:
//!         u8 info1, u8 info2 and info3 if INFO, u8 info4 if INFO4, u16 generation if GENERATION,
//!         u32 record ttl if TTL, u16 fields, u16 operations, field*, operation*
//! ```

use crate::digest::{DIGEST_BYTES, Digest};
use crate::flags::{batch_row, info1};
use crate::message::{Message, MessageError, MessageHeader};
use crate::result_code::ResultCode;

const BATCH_HEADER_BYTES: usize = size_of::<u32>() + 1;

/// Index, digest and type: what even a repeating row has.
const ROW_BYTES_MIN: usize = size_of::<u32>() + DIGEST_BYTES + 1;

/// Everything else would change how the whole connection or the change queue treats the row.
const ROW_INFO1_MASK: u8 = !(info1::COMPRESS_RESPONSE | info1::XDR);

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    #[error("batch of {found} bytes is shorter than its header of {BATCH_HEADER_BYTES}")]
    Truncated { found: usize },
    #[error("batch announces {rows} rows, {left} bytes are left")]
    Rows { rows: u32, left: usize },
    #[error("batch row number {row} ends too early")]
    RowBounds { row: u32 },
    #[error("batch row number {row} repeats no row, or one with a user key")]
    Repeat { row: u32 },
    #[error("batch row number {row} has no namespace")]
    NoNamespace { row: u32 },
    #[error("batch row number {row}: {error}")]
    Row { row: u32, error: MessageError },
    #[error("{found} bytes follow the last batch row")]
    TrailingBytes { found: usize },
}

impl BatchError {
    /// What the client is told.
    pub fn result_code(&self) -> ResultCode {
        match self {
            BatchError::Row { error, .. } => error.result_code(),
            _ => ResultCode::Parameter,
        }
    }
}

/// One row as the command that it stands for.
#[derive(Clone, Copy, Debug)]
pub struct BatchRow<'a> {
    /// The client's number for the row, to be sent back with its result.
    pub index: u32,
    pub digest: &'a Digest,
    /// Flags, fields and operations; of the row before if this one repeats it. Its digest field is
    /// `digest` and its namespace is there. The total timeout is the parent's.
    pub message: Message<'a>,
}

/// Reads rows in order. After an error there are no more rows.
#[derive(Clone, Debug)]
pub struct BatchRows<'a> {
    data: &'a [u8],
    rest: &'a [u8],
    parent: MessageHeader,
    flags: u8,
    rows: u32,
    row: u32,
    previous: Option<Message<'a>>,
    /// Where the row begins that `previous` is of.
    previous_at: usize,
}

/// A row's place in its batch, to read it again from the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BatchPosition {
    row: u32,
    at: usize,
    /// Where the row begins that it may repeat.
    previous: usize,
}

impl<'a> BatchRows<'a> {
    /// Reads the head of the batch. `parent` is the header of the message that carries it. The
    /// number of rows never exceeds what the bytes can hold.
    pub fn parse(parent: MessageHeader, data: &'a [u8]) -> Result<BatchRows<'a>, BatchError> {
        let Some((&[r0, r1, r2, r3, flags], rest)) = data.split_first_chunk::<BATCH_HEADER_BYTES>()
        else {
            return Err(BatchError::Truncated { found: data.len() });
        };
        let rows = u32::from_be_bytes([r0, r1, r2, r3]);
        if rows as usize > rest.len() / ROW_BYTES_MIN {
            return Err(BatchError::Rows {
                rows,
                left: rest.len(),
            });
        }
        Ok(BatchRows {
            data,
            rest,
            parent,
            flags,
            rows,
            row: 0,
            previous: None,
            previous_at: data.len(),
        })
    }

    /// Where the next row begins.
    pub fn position(&self) -> BatchPosition {
        BatchPosition {
            row: self.row,
            at: self.data.len() - self.rest.len(),
            previous: self.previous_at,
        }
    }

    /// Goes on at a place where a reader of the same bytes has stood.
    pub fn go_to(&mut self, position: BatchPosition) -> Result<(), BatchError> {
        let row = position.row;
        let bounds = BatchError::RowBounds { row };
        (self.row, self.previous, self.previous_at) = (row, None, self.data.len());
        if position.previous < position.at {
            self.rest = self.data.get(position.previous..).ok_or(bounds)?;
            self.parse_row()?;
        }
        self.rest = self.data.get(position.at..).ok_or(bounds)?;
        Ok(())
    }

    /// Bits of [`crate::batch_flag`].
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Rows that the batch announces.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    fn parse_row(&mut self) -> Result<BatchRow<'a>, BatchError> {
        let row = self.row;
        let begins = self.data.len() - self.rest.len();
        let mut cursor = RowCursor {
            rest: self.rest,
            row,
        };
        let index = u32::from_be_bytes(*cursor.chunk()?);
        let digest = cursor.chunk()?;
        let [kind] = *cursor.chunk()?;
        if kind & batch_row::REPEAT != 0 {
            let previous = self.previous.filter(|previous| previous.key.is_none());
            let mut message = previous.ok_or(BatchError::Repeat { row })?;
            message.digest = Some(digest);
            self.rest = cursor.rest;
            return Ok(BatchRow {
                index,
                digest,
                message,
            });
        }
        let mut header = MessageHeader {
            transaction_ttl: self.parent.transaction_ttl,
            ..MessageHeader::default()
        };
        let [info1] = *cursor.chunk()?;
        header.info1 = info1 & ROW_INFO1_MASK;
        if kind & batch_row::INFO != 0 {
            [header.info2, header.info3] = *cursor.chunk()?;
        } else {
            // Rows of the oldest form leave the consistency of reads to the parent.
            header.info3 = self.parent.info3;
        }
        if kind & batch_row::INFO4 != 0 {
            [header.info4] = *cursor.chunk()?;
        }
        if kind & batch_row::GENERATION != 0 {
            header.generation = u32::from(u16::from_be_bytes(*cursor.chunk()?));
        }
        if kind & batch_row::TTL != 0 {
            header.record_ttl = u32::from_be_bytes(*cursor.chunk()?);
        }
        header.n_fields = u16::from_be_bytes(*cursor.chunk()?);
        header.n_ops = u16::from_be_bytes(*cursor.chunk()?);
        let (mut message, rest) = Message::parse_after_header(header, cursor.rest)
            .map_err(|error| BatchError::Row { row, error })?;
        if message.namespace.is_none() {
            return Err(BatchError::NoNamespace { row });
        }
        message.digest = Some(digest);
        (self.previous, self.previous_at) = (Some(message), begins);
        self.rest = rest;
        Ok(BatchRow {
            index,
            digest,
            message,
        })
    }
}

impl<'a> Iterator for BatchRows<'a> {
    type Item = Result<BatchRow<'a>, BatchError>;

    fn next(&mut self) -> Option<Result<BatchRow<'a>, BatchError>> {
        if self.row == self.rows {
            let found = self.rest.len();
            self.rest = &[];
            return (found > 0).then_some(Err(BatchError::TrailingBytes { found }));
        }
        let row = self.parse_row();
        self.row += 1;
        if row.is_err() {
            self.row = self.rows;
            self.rest = &[];
        }
        Some(row)
    }
}

struct RowCursor<'a> {
    rest: &'a [u8],
    row: u32,
}

impl<'a> RowCursor<'a> {
    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], BatchError> {
        let (chunk, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(BatchError::RowBounds { row: self.row })?;
        self.rest = rest;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{hex, recorded_frames};
    use crate::flags::{info2, op};
    use crate::proto::PROTO_HEADER_BYTES;
    use proptest::prelude::*;

    #[test]
    fn every_row_is_read_again_from_its_place() {
        let mut rows_read = 0;
        for frame in recorded_frames() {
            let body = &frame.bytes[PROTO_HEADER_BYTES..];
            let Some((header, data)) = Message::parse(body)
                .ok()
                .and_then(|message| Some((message.header, message.batch?)))
            else {
                continue;
            };
            let mut rows = BatchRows::parse(header, data).unwrap();
            loop {
                let position = rows.position();
                let Some(row) = rows.next() else { break };
                let row = row.unwrap();
                let mut again = BatchRows::parse(header, data).unwrap();
                again.go_to(position).unwrap();
                let same = again.next().unwrap().unwrap();
                assert_eq!((same.index, same.digest), (row.index, row.digest));
                assert_eq!(same.message.header, row.message.header);
                assert_eq!(same.message.ops.len(), row.message.ops.len());
                assert_eq!(again.position(), rows.position());
                rows_read += 1;
            }
        }
        assert!(rows_read > 10, "{rows_read} rows");
    }

    fn rows(body: &[u8]) -> Vec<BatchRow<'_>> {
        let message = Message::parse(body).unwrap();
        let batch = BatchRows::parse(message.header, message.batch.unwrap()).unwrap();
        batch.map(|row| row.unwrap()).collect()
    }

    #[test]
    fn recorded_batches_read_as_the_commands_that_they_stand_for() {
        let mut batches = 0;
        for frame in recorded_frames() {
            if frame.kind != 3 {
                continue;
            }
            let body = &frame.bytes[PROTO_HEADER_BYTES..];
            if Message::parse(body).unwrap().batch.is_none() {
                continue;
            }
            batches += 1;
            let batch = frame.decoded["fields"]
                .as_array()
                .unwrap()
                .iter()
                .find(|field| field[0] == "BATCH")
                .unwrap();
            let expected = batch[1].as_array().unwrap();
            let rows = rows(body);
            assert_eq!(rows.len() + 1, expected.len(), "{}", frame.name);
            let mut previous = None;
            for (row, expected) in rows.iter().zip(&expected[1..]) {
                assert_eq!(u64::from(row.index), expected[0].as_u64().unwrap());
                assert_eq!(&hex(row.digest)[..6], expected[1].as_str().unwrap());
                assert_eq!(row.message.digest, Some(row.digest));
                let expected = if expected[3] == "REPEAT" {
                    previous.unwrap()
                } else {
                    expected
                };
                let header = row.message.header;
                let info = hex(&[header.info1, header.info2, header.info3]);
                assert!(
                    expected[3]
                        .as_str()
                        .unwrap()
                        .contains(&format!("info={info} "))
                );
                assert_eq!(row.message.namespace, Some(&b"test"[..]));
                assert_eq!(row.message.ops.len(), expected[5].as_array().unwrap().len());
                previous = Some(expected);
            }
        }
        assert!(batches >= 7, "{batches} batches");
    }

    #[test]
    fn rows_of_every_kind_read_from_one_batch() {
        // The recorded batch of section 20: a write, a delete, a UDF and a read.
        let body = recorded_frames()
            .into_iter()
            .find(|frame| frame.decoded.to_string().contains("n=4 flags=13"))
            .expect("the mixed batch was recorded")
            .bytes
            .split_off(PROTO_HEADER_BYTES);
        let rows = rows(&body);
        let [write, delete, udf, read] = &rows[..] else {
            panic!("{} rows", rows.len())
        };
        assert_eq!(
            write.message.header.info2,
            info2::WRITE | info2::RESPOND_ALL_OPS
        );
        let codes: Vec<u8> = write.message.ops.iter().map(|op| op.code).collect();
        assert_eq!(codes, [op::WRITE, op::READ]);
        let flags = info2::WRITE | info2::DELETE | info2::RESPOND_ALL_OPS;
        assert_eq!(delete.message.header.info2, flags);
        assert_eq!(udf.message.udf_module, Some(&b"m"[..]));
        assert_eq!(udf.message.udf_args, Some(&[0x91, 1][..]));
        assert_eq!(read.message.header.info1, info1::READ | info1::GET_ALL);
        assert_eq!((read.index, read.message.set), (3, None));
        assert_eq!(read.message.header.transaction_ttl, 1000);
    }

    #[test]
    fn a_row_that_repeats_nothing_is_refused() {
        let mut data = vec![0, 0, 0, 1, 0];
        data.extend_from_slice(&[0; ROW_BYTES_MIN - 1]);
        data.push(batch_row::REPEAT);
        let mut batch = BatchRows::parse(MessageHeader::default(), &data).unwrap();
        assert_eq!(
            batch.next().unwrap().unwrap_err(),
            BatchError::Repeat { row: 0 }
        );
        assert!(batch.next().is_none());
    }

    #[test]
    fn a_row_with_a_user_key_cannot_be_repeated() {
        let mut data = vec![0, 0, 0, 2, 0];
        data.extend_from_slice(&[0; ROW_BYTES_MIN - 1]);
        data.extend_from_slice(&[0, crate::info1::READ, 0, 2, 0, 0]);
        data.extend_from_slice(&[0, 0, 0, 2, 0, b'n', 0, 0, 0, 3, 2, 3, b'k']);
        data.extend_from_slice(&[0; ROW_BYTES_MIN - 1]);
        data.push(batch_row::REPEAT);
        let mut batch = BatchRows::parse(MessageHeader::default(), &data).unwrap();
        assert_eq!(
            batch.next().unwrap().unwrap().message.key,
            Some(&[3, b'k'][..])
        );
        assert_eq!(
            batch.next().unwrap().unwrap_err(),
            BatchError::Repeat { row: 1 }
        );
    }

    #[test]
    fn rows_lose_the_flags_that_belong_to_their_parent() {
        let mut data = vec![0, 0, 0, 1, 0];
        data.extend_from_slice(&[0; ROW_BYTES_MIN - 1]);
        data.extend_from_slice(&[batch_row::INFO, 0xFF, info2::WRITE, 8, 0, 1, 0, 0]);
        data.extend_from_slice(&[0, 0, 0, 2, 0, b'n']);
        let row = BatchRows::parse(MessageHeader::default(), &data)
            .unwrap()
            .next();
        let header = row.unwrap().unwrap().message.header;
        assert_eq!(
            (header.info1, header.info2, header.info3),
            (0x6F, info2::WRITE, 8)
        );
    }

    #[test]
    fn announced_rows_are_bounded_by_the_bytes_that_came() {
        let data = [255, 255, 255, 255, 0, 1, 2, 3];
        let error = BatchRows::parse(MessageHeader::default(), &data).unwrap_err();
        assert_eq!(
            error,
            BatchError::Rows {
                rows: u32::MAX,
                left: 3
            }
        );
    }

    proptest! {
        #[test]
        fn parsing_arbitrary_rows_never_panics(
            rows in 0_u8..4, data in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut batch = vec![0, 0, 0, rows, 13];
            batch.extend(data);
            if let Ok(batch) = BatchRows::parse(MessageHeader::default(), &batch) {
                for row in batch.flatten() {
                    prop_assert!(row.message.namespace.is_some());
                    row.message.ops.iter().for_each(drop);
                }
            }
        }
    }
}
