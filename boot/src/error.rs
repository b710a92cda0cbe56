use core::fmt;

/// Why the boot loader's information cannot be used. The text names the tag or field, what is wrong and what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootError {
    /// EAX at entry is neither loader's magic number.
    UnknownLoader(u32),
    /// A tag or field that must be there is missing.
    Missing(&'static str),
    /// The information block as a whole cannot be walked.
    Information(&'static str),
    /// A tag or field is there, but its content is malformed: name, what is wrong.
    Malformed(&'static str, &'static str),
    /// There are more of these than the kernel keeps: name, the most it keeps.
    TooMany(&'static str, usize),
    /// The command lines together are longer than the kernel keeps: bytes kept.
    TextTooLong(usize),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLoader(magic) => write!(
                f,
                "boot loader: magic {magic:#x} in EAX, expected 0x36d76289 (multiboot2) or 0x2badb002 (multiboot1)"
            ),
            Self::Missing(tag) => write!(f, "boot information: no {tag} tag"),
            Self::Information(what) => write!(f, "boot information: {what}"),
            Self::Malformed(tag, what) => write!(f, "boot information: {tag} tag: {what}"),
            Self::TooMany(tag, max) => write!(f, "boot information: more than {max} {tag} entries"),
            Self::TextTooLong(max) => write!(f, "boot information: command lines of more than {max} bytes together"),
        }
    }
}

impl core::error::Error for BootError {}
