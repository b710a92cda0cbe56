//! Traces as text and as JSON.

use std::collections::HashMap;
use std::io::{self, Write};

use gnomon_trace::{Kind, Record};
use serde_json::{Map, Value as Json};

use super::fields::{Value, ascii, fields};
use crate::symbols::Symbols;

/// Names for the guests' addresses: by the name of the VM, then by its number as soon as its `vm-start` record is seen.
#[derive(Debug, Default)]
pub struct Names {
    by_name: HashMap<String, Symbols>,
    numbers: HashMap<u8, String>,
}

impl Names {
    /// Adds the symbols of the VM called `name`. The trace holds the first 8 bytes of a name.
    pub fn add(&mut self, name: &str, symbols: Symbols) {
        self.by_name.insert(name.chars().take(8).collect(), symbols);
    }

    /// Learns which number a VM has.
    pub fn learn(&mut self, record: &Record) {
        if record.kind == Kind::VmStart {
            self.numbers.insert(record.vm, ascii(&[record.c]));
        }
    }

    /// The name of an address in a VM.
    #[must_use]
    pub fn describe(&self, vm: u8, address: u64) -> Option<String> {
        self.by_name.get(self.numbers.get(&vm)?)?.describe(address)
    }
}

/// Writes one line for each record: time stamp, difference to the record before, VM, kind, fields.
///
/// # Errors
/// Those of the writer.
pub fn text(records: &[Record], names: &mut Names, out: &mut dyn Write) -> io::Result<()> {
    let mut last = records.first().map_or(0, |record| record.tsc);
    for record in records {
        names.learn(record);
        let delta = record.tsc.saturating_sub(last);
        last = record.tsc;
        write!(out, "{:>14} {:>+8} vm{} {:<11}", record.tsc, delta.cast_signed(), record.vm, record.kind.name())?;
        for (name, value) in fields(record) {
            match value {
                Value::Number(number) => write!(out, " {name}={number}")?,
                Value::Hex(number) => write!(out, " {name}={number:#x}")?,
                Value::Text(text) if text.contains(' ') => write!(out, " {name}=\"{text}\"")?,
                Value::Text(text) => write!(out, " {name}={text}")?,
                Value::Address(address) => match names.describe(record.vm, address) {
                    Some(symbol) => write!(out, " {name}={address:#x}<{symbol}>")?,
                    None => write!(out, " {name}={address:#x}")?,
                },
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Writes one JSON object for each record. Addresses and bit patterns are strings in hexadecimal, because JSON's numbers are
/// not exact above 2^53; a named address has a second member `<field>_symbol`.
///
/// # Errors
/// Those of the writer.
pub fn json(records: &[Record], names: &mut Names, out: &mut dyn Write) -> io::Result<()> {
    for record in records {
        names.learn(record);
        let mut object = Map::new();
        object.insert("tsc".into(), record.tsc.into());
        object.insert("vm".into(), record.vm.into());
        object.insert("kind".into(), record.kind.name().into());
        for (name, value) in fields(record) {
            if let Value::Address(address) = value
                && let Some(symbol) = names.describe(record.vm, address)
            {
                object.insert(format!("{name}_symbol"), symbol.into());
            }
            object.insert(name.into(), json_value(value));
        }
        serde_json::to_writer(&mut *out, &Json::Object(object))?;
        writeln!(out)?;
    }
    Ok(())
}

fn json_value(value: Value) -> Json {
    match value {
        Value::Number(number) => number.into(),
        Value::Hex(number) | Value::Address(number) => format!("{number:#x}").into(),
        Value::Text(text) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<Record>, Names) {
        let name = u64::from_le_bytes(*b"demo\0\0\0\0");
        let start = Record { tsc: 100, vm: 1, a: 1 << 24, b: 0x10_0000, c: name, ..Record::new(Kind::VmStart) };
        let exit = Record { tsc: 150, vm: 1, code: 13, flags: 1, a: 0x10_0004, ..Record::new(Kind::Exit) };
        let mut names = Names::default();
        names.add("demo", Symbols::from_list([(0x10_0000, 16, "_start".to_owned())]));
        (vec![start, exit], names)
    }

    #[test]
    fn text_names_addresses() {
        let (records, mut names) = sample();
        let mut out = Vec::new();
        text(&records, &mut names, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let last = out.lines().last().unwrap();
        assert!(last.contains("+50 vm1 exit"), "{last}");
        assert!(last.contains("what=#GP ring=1 error=0x0 rip=0x100004<_start+0x4>"), "{last}");
    }

    #[test]
    fn json_is_one_object_each_line() {
        let (records, mut names) = sample();
        let mut out = Vec::new();
        json(&records, &mut names, &mut out).unwrap();
        let lines: Vec<Json> =
            out.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["name"], "demo");
        assert_eq!(lines[1]["rip"], "0x100004");
        assert_eq!(lines[1]["rip_symbol"], "_start+0x4");
        assert_eq!(lines[1]["ring"], 1);
    }
}
