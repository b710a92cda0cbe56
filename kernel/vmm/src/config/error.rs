//! What can be wrong with a command line.

use alloc::string::String;
use core::fmt;

/// A command line that was refused; its `Display` is one line that says what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A word that is not one of those known.
    UnknownWord {
        /// Which command line: `kernel command line`, `module 2`.
        place: String,
        /// The word as it was written.
        word: String,
        /// The words that are known.
        expected: &'static str,
    },
    /// A known word with a value that cannot be used.
    BadValue {
        /// Which command line.
        place: String,
        /// The word before the `=`.
        key: &'static str,
        /// The value as it was written.
        value: String,
        /// What the value must look like.
        expected: &'static str,
    },
    /// A word that is given twice.
    Repeated {
        /// Which command line.
        place: String,
        /// The word before the `=`.
        key: &'static str,
    },
    /// Two words that exclude or need each other.
    Combination {
        /// Which command line.
        place: String,
        /// What is wrong, as half a sentence.
        problem: &'static str,
    },
    /// Two guests with one name.
    SameName {
        /// The name.
        name: String,
    },
    /// A module with `of=` for a guest that no module describes.
    NoSuchGuest {
        /// Which command line.
        place: String,
        /// The name after `of=`.
        name: String,
    },
    /// No boot module describes a guest.
    NoGuest,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownWord { place, word, expected } => {
                write!(f, "{place}: unknown word `{word}`: expected {expected}")
            }
            Self::BadValue { place, key, value, expected } => {
                write!(f, "{place}: {key}={value} cannot be used: expected {expected}")
            }
            Self::Repeated { place, key } => write!(f, "{place}: {key}= is given twice: expected it once"),
            Self::Combination { place, problem } => write!(f, "{place}: {problem}"),
            Self::SameName { name } => {
                write!(f, "two guests are called {name}: expected another name= for one of them")
            }
            Self::NoSuchGuest { place, name } => {
                write!(f, "{place}: of={name} names no guest: expected the name of a guest among the boot modules")
            }
            Self::NoGuest => {
                write!(f, "no guest to run: expected at least one boot module with a guest's kernel")
            }
        }
    }
}

impl core::error::Error for ConfigError {}
