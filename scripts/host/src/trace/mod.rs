//! Traces: the records that Gnomon sends over COM2, read and written out.

pub mod fields;
mod write;

pub use write::{Names, json, text};

use std::path::Path;

use clap::ValueEnum;
use gnomon_trace::{Kind, Record, VERSION};

use crate::status::Failed;

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line for each record, for people
    Text,
    /// One JSON object for each record and line
    Json,
    /// As it came over the wire, for `gnomon trace`
    Bin,
}

impl Format {
    /// By the file's extension.
    #[must_use]
    pub fn of_file(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json" | "jsonl") => Self::Json,
            Some("bin") => Self::Bin,
            _ => Self::Text,
        }
    }
}

/// A trace as it was read.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The records, in order.
    pub records: Vec<Record>,
    /// Bytes at the end that are no whole record: the machine ended while it was sending.
    pub incomplete: usize,
}

/// Reads a trace.
///
/// # Errors
/// If it is no trace, or one of another version, or damaged; the message says where.
pub fn read(bytes: &[u8]) -> anyhow::Result<Trace> {
    let (chunks, rest) = bytes.as_chunks::<{ Record::SIZE }>();
    let mut records = Vec::with_capacity(chunks.len());
    for (index, chunk) in chunks.iter().enumerate() {
        let Some(record) = Record::decode(chunk) else {
            let at = index * Record::SIZE;
            return Err(Failed::usage(format!(
                "not a trace: record {index} (byte {at}) has the unknown kind {}",
                chunk[8]
            )));
        };
        records.push(record);
    }
    match records.first() {
        Some(first) if first.kind != Kind::Header => Err(Failed::usage("not a trace: the first record is no header")),
        Some(first) if first.arg != VERSION => {
            Err(Failed::usage(format!("trace version {}, but this tool reads version {VERSION}", first.arg)))
        }
        _ => Ok(Trace { records, incomplete: rest.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Record {
        Record { arg: VERSION, a: 1_000_000_000, b: Record::SIZE as u64, ..Record::new(Kind::Header) }
    }

    #[test]
    fn reads_records_and_counts_a_cut_tail() {
        let mut bytes = header().encode().to_vec();
        bytes.extend(Record { a: 5, ..Record::new(Kind::Flush) }.encode());
        bytes.extend([1, 2, 3]);
        let trace = read(&bytes).unwrap();
        assert_eq!((trace.records.len(), trace.incomplete), (2, 3));
        assert!(read(&[]).unwrap().records.is_empty());
    }

    #[test]
    fn refuses_what_is_no_trace() {
        assert!(read(&[0; 40]).unwrap_err().to_string().contains("unknown kind 0"));
        assert!(read(&Record::new(Kind::Exit).encode()).unwrap_err().to_string().contains("no header"));
        let other = Record { arg: 99, ..header() };
        assert!(read(&other.encode()).unwrap_err().to_string().contains("version 99"));
    }

    #[test]
    fn formats_follow_extensions() {
        assert_eq!(Format::of_file(Path::new("a.json")), Format::Json);
        assert_eq!(Format::of_file(Path::new("a.bin")), Format::Bin);
        assert_eq!(Format::of_file(Path::new("a.trace")), Format::Text);
    }
}
