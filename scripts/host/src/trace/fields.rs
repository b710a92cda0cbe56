//! What the fields of each kind of record are called: one description for text and JSON.

use gnomon_trace::{Kind, Reason, Record};
use iced_x86::{Decoder, DecoderOptions, Formatter as _, IntelFormatter};

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A count or small number.
    Number(u64),
    /// Bits, or an address of host or guest memory.
    Hex(u64),
    /// A guest-virtual address that may have a name.
    Address(u64),
    /// Words.
    Text(String),
}

/// A named field.
pub type Field = (&'static str, Value);

/// The named fields of a record.
#[must_use]
pub fn fields(record: &Record) -> Vec<Field> {
    use Value::{Address, Hex, Number, Text};
    let Record { code, flags, arg, a, b, c, .. } = *record;
    let (small, flag, number) = (Number(code.into()), Number(flags.into()), Number(arg.into()));
    match record.kind {
        Kind::Header => vec![("version", number), ("tsc_hz", Number(a)), ("record_size", Number(b))],
        Kind::VmStart => vec![("name", Text(ascii(&[c]))), ("memory", Number(a)), ("entry", Address(b))],
        Kind::VmStop => vec![("stop", small), ("status", number), ("rip", Address(a))],
        Kind::Exit => event(record, ("rip", Address(a)), ("rsp", Hex(c))),
        Kind::Resume => {
            vec![("reason", Text(reason(code))), ("ring", flag), ("rip", Address(a)), ("rsp", Hex(c))]
        }
        Kind::Walk => {
            vec![("level", small), ("set_bits", flag), ("gva", Address(a)), ("gpte_gpa", Hex(b)), ("gpte", Hex(c))]
        }
        Kind::Fill => {
            vec![("level", small), ("leaf", flag), ("gva", Address(a)), ("spte_hpa", Hex(b)), ("spte", Hex(c))]
        }
        Kind::Zap => vec![("level", small), ("spte_hpa", Hex(b)), ("was", Hex(c))],
        Kind::Track => vec![("level", small), ("frame_gpa", Hex(a)), ("sptes_protected", Number(b))],
        Kind::Untrack => vec![("frame_gpa", Hex(a))],
        Kind::PtWrite => vec![("level", small), ("gpte_gpa", Hex(a)), ("before", Hex(b)), ("after", Hex(c))],
        Kind::Inject => event(record, ("handler", Address(a)), ("handler_rsp", Hex(c))),
        Kind::SetCr3 => vec![("before", Hex(a)), ("after", Hex(b)), ("root_hpa", Hex(c))],
        Kind::Ring => vec![("from", small), ("to", flag)],
        Kind::Emulate => vec![
            ("rip", Address(a)),
            ("length", small),
            ("bytes", Text(hex_bytes(b, flags))),
            ("instruction", Text(disassemble(a, b, flags))),
        ],
        Kind::Io => vec![
            ("direction", Text(if flags & 1 != 0 { "out" } else { "in" }.into())),
            (if flags & 2 != 0 { "gpa" } else { "port" }, Hex(arg.into())),
            ("bytes", small),
            ("value", Hex(a)),
        ],
        Kind::Flush => match code {
            1 => vec![("what", Text("page".into())), ("gva", Address(a))],
            _ => vec![("what", Text("all".into()))],
        },
        Kind::Counter => vec![("reason", Text(reason(code))), ("count", Number(a))],
        Kind::MmuCounter => vec![("name", Text(ascii(&[b, c]))), ("count", Number(a))],
        Kind::SetControl => {
            vec![
                ("register", Text(if code == 8 { "efer".into() } else { format!("cr{code}") })),
                ("before", Hex(a)),
                ("after", Hex(b)),
            ]
        }
        Kind::Table => vec![
            ("level", small),
            ("what", Text(if flags == 1 { "made" } else { "dropped" }.into())),
            ("table_gpa", Hex(a)),
            ("shadow_hpa", Hex(b)),
        ],
        Kind::Lost => vec![("records", Number(a))],
        Kind::Drained => vec![("ticks", Number(a))],
        Kind::DiskBlock => vec![("disk", small), ("block", Number(a))],
        Kind::DiskData => vec![("offset", number)],
        Kind::DiskEnd => vec![("disk", small), ("blocks", Number(a))],
    }
}

/// Exits and injections have a vector, and a page fault has an address.
fn event(record: &Record, place: Field, stack: Field) -> Vec<Field> {
    let mut fields = vec![
        ("vector", Value::Number(record.code.into())),
        ("what", Value::Text(vector(record.code))),
        ("ring", Value::Number(record.flags.into())),
        ("error", Value::Hex(record.arg.into())),
        place,
    ];
    if record.code == 14 {
        fields.push(("cr2", Value::Address(record.b)));
    }
    fields.push(stack);
    fields
}

/// The name of an exception or interrupt vector.
#[must_use]
pub fn vector(number: u8) -> String {
    const NAMES: [&str; 22] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "", "#TS", "#NP", "#SS", "#GP", "#PF", "",
        "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
    ];
    match NAMES.get(usize::from(number)) {
        Some(name) if !name.is_empty() => (*name).into(),
        _ => format!("vector {number:#x}"),
    }
}

/// The name of an exit reason.
#[must_use]
pub fn reason(number: u8) -> String {
    Reason::ALL.get(usize::from(number)).map_or_else(|| format!("reason {number}"), |reason| reason.name().into())
}

/// Text that was packed into words, little-endian, padded with zeros.
#[must_use]
pub fn ascii(words: &[u64]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0);
    bytes.map(|byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' }).collect()
}

fn valid(bytes: &[u8; 8], count: u8) -> &[u8] {
    &bytes[..usize::from(count).min(8)]
}

fn hex_bytes(word: u64, count: u8) -> String {
    let bytes = word.to_le_bytes();
    valid(&bytes, count).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// The instruction in Intel's syntax. Guests are 32-bit; an instruction longer than 8 bytes was cut and shows as `(cut)`.
#[must_use]
pub fn disassemble(rip: u64, word: u64, count: u8) -> String {
    let bytes = word.to_le_bytes();
    let mut decoder = Decoder::with_ip(32, valid(&bytes, count), rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return "(cut)".into();
    }
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_space_after_operand_separator(true);
    let mut text = String::new();
    formatter.format(&instruction, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vectors_reasons_and_text() {
        assert_eq!((vector(13), vector(14), vector(0x80)), ("#GP".into(), "#PF".into(), "vector 0x80".into()));
        assert_eq!(reason(0), "hidden-fault");
        assert_eq!(reason(250), "reason 250");
        assert_eq!(ascii(&[u64::from_le_bytes(*b"demo\0\0\0\0")]), "demo");
    }

    #[test]
    fn instructions_are_disassembled() {
        let bytes = u64::from_le_bytes([0x0f, 0x22, 0xd8, 0, 0, 0, 0, 0]);
        assert_eq!(disassemble(0x1000, bytes, 3), "mov cr3, eax");
        assert_eq!(disassemble(0x1000, bytes, 1), "(cut)");
        assert_eq!(hex_bytes(bytes, 3), "0f 22 d8");
    }

    #[test]
    fn every_kind_has_fields() {
        for &kind in Kind::ALL {
            assert!(!fields(&Record::new(kind)).is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn a_page_fault_has_its_address() {
        let fault = Record { code: 14, b: 0x4000, ..Record::new(Kind::Exit) };
        assert!(fields(&fault).contains(&("cr2", Value::Address(0x4000))));
        let other = Record { code: 13, ..Record::new(Kind::Exit) };
        assert!(fields(&other).iter().all(|(name, _)| *name != "cr2"));
    }
}
